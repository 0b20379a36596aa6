"""TLS without input and output, and how the other end's certificate is judged (sftp.md §15).

Python's `ssl` works on two buffers in memory: what came from the peer, and what has to go there. `seal` makes
one TLS record of each frame and returns all records of a burst together. That matters towards reference
servers: they take a record for a packet, and lose the connection when too many small pieces wait for them.

A client trusts one authority per realm, which it was given; no public one, since a realm is nobody's
business but its own. The certificate must be for the server's name or for its dotted address: servers found
through volume location are known by address only.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from realmfs.rpc2.errors import BadCertificate, BrokenTunnel

_CHUNK = 65536
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_ISSUER = frozenset({2, 7, 18, 19, 20, 21})
"""OpenSSL's verification errors: the chain ends somewhere else than in what we trust, or only seems to."""


class Tls:
    """One end of a TLS session. Every method that takes the peer's bytes may raise BrokenTunnel."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str = "") -> None:
        """`name` is whom a client asks for (SNI); "" where there is only an address."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=name or None
        )

    def shake_hands(self, data: bytes) -> bool:
        """Take the peer's bytes; tell whether the session is made. Raises BadCertificate, BrokenTunnel."""
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise BadCertificate(_objection(error)) from None
        except (ssl.SSLError, OSError) as error:
            raise BrokenTunnel(f"the TLS handshake failed: {_words(error)}") from None
        return True

    def receive(self, data: bytes) -> list[bytes]:
        """Take the peer's bytes; return what was in the records that are whole by now."""
        self._incoming.write(data)
        pieces = []
        try:
            while piece := self._object.read(_CHUNK):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return pieces
        except (ssl.SSLError, OSError) as error:
            raise BrokenTunnel(f"the TLS session broke: {_words(error)}") from None
        raise BrokenTunnel("the other end closed the TLS session")

    def seal(self, frames: Sequence[bytes]) -> bytes:
        """Return the records for some frames, one each, behind whatever else has to go out."""
        write = self._object.write
        try:
            for frame in frames:
                write(frame)
        except (ssl.SSLError, OSError) as error:
            raise BrokenTunnel(f"the TLS session broke: {_words(error)}") from None
        return self._outgoing.read()

    @property
    def pending(self) -> bool:
        """Whether TLS itself has something to say."""
        return self._outgoing.pending > 0

    @property
    def text(self) -> str:
        """The version and cipher, for people."""
        cipher = self._object.cipher()
        return f"{self._object.version()}, {cipher[0]}" if cipher else "TLS"

    def check_name(self, names: Sequence[str]) -> None:
        """Raise BadCertificate unless the peer's certificate is for one of these names or addresses."""
        der = self._object.getpeercert(binary_form=True)
        certified = [] if der is None else certified_names(x509.load_der_x509_certificate(der))
        if not any(_matches(known, name) for known in certified for name in names):
            wanted = " or ".join(dict.fromkeys(names))
            raise BadCertificate(
                f"its certificate is for {', '.join(certified) or 'nobody'}, not for {wanted}. "
                "Either somebody poses as the server, or it needs a certificate with that name"
            )


def client_context(authorities: Path) -> ssl.SSLContext:
    """Return how to talk to the servers of a realm whose authority is in a PEM file (or each in a directory).

    Raises BadCertificate if nothing usable is there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # `Tls.check_name` takes the address for a name, too
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a record is written at once or never
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # a server's own may be pinned as well
    files = sorted(authorities.glob("*")) if authorities.is_dir() else [authorities]
    try:
        for file in files:
            context.load_verify_locations(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(
            f"the certificate of its authority cannot be read from {file}: {_words(error)}"
        ) from None
    if not context.cert_store_stats()["x509"]:
        raise BadCertificate(f"no certificate of an authority is in {authorities}")
    return context


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how to talk to clients. Raises OSError (of which ssl.SSLError is a kind)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(certificate, key)
    return context


def certified_names(certificate: x509.Certificate) -> list[str]:
    """Return the names and dotted addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _matches(certified: str, name: str) -> bool:
    """Tell whether a certified name covers this one; `*` stands for one whole label at the front."""
    certified, name = certified.rstrip(".").lower(), name.rstrip(".").lower()
    if certified.startswith("*.") and not is_address(name):
        return "." in name and certified[2:] == name.partition(".")[2]
    return certified == name


def is_address(name: str) -> bool:
    """Tell a dotted address from a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _objection(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired, or this machine's clock is wrong"
    if error.verify_code == _NOT_YET_VALID:
        return "its certificate is not valid yet, or this machine's clock is wrong"
    if error.verify_code in _UNKNOWN_ISSUER:
        return "its certificate is not signed by the authority that we know for this realm"
    return f"its certificate is not acceptable: {error.verify_message}"


def _words(error: OSError) -> str:
    """What OpenSSL or the system says, without its own file names and numbers."""
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return str(reason or error).replace("_", " ").lower()
