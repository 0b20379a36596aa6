"""The certificates of an embedded realm: an authority of its own, and what it vouches for.

    ca.crt      the authority's certificate: what clients need, and may be given to anybody
    ca.key      its key: whoever has it can pose as any server of the realm
    server.crt  this server's certificate, for its names and dotted addresses
    server.key  its key

The names are those of the reference, whose servers look for `server.crt` and `server.key` (sftp.md §15). Keys
are kept for their owner only. A renewal signs a new certificate for the old key, so there is no moment at
which certificate and key do not fit. Where the authority's key lies elsewhere, as it should for more than one
server, this directory holds its certificate only.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from realmfs.rpc2.tls import certified_names, server_context
from realmfs.server.database import StoreError

DIRECTORY = "tls"
"""Below the server's data directory."""
AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
RENEW_BEFORE = dt.timedelta(days=30)
_SKEW = dt.timedelta(hours=1)
_LONGEST_NAME = 64


class CertificateError(StoreError):
    """Certificates that are not there, cannot be read, or cannot be made; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What a certificate says: for whom it is, and until when (UTC)."""

    path: Path
    names: tuple[str, ...]
    until: dt.datetime

    def is_due(self, now: dt.datetime) -> bool:
        """Whether it is time to renew it."""
        return now >= self.until - RENEW_BEFORE


class Certificates:
    """The files in one directory."""

    def __init__(self, directory: Path) -> None:
        """Nothing is read or made yet."""
        self.directory = directory
        self._context: ssl.SSLContext | None = None
        self._stamp: tuple[int, ...] = ()

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The server's."""
        return self.directory / "server.crt"

    @property
    def key(self) -> Path:
        """The server's key."""
        return self.directory / "server.key"

    @property
    def exist(self) -> bool:
        """Whether there is a certificate to serve with."""
        return self.certificate.exists() and self.key.exists()

    def describe(self, path: Path) -> Certified:
        """Read a certificate. Raises CertificateError."""
        certificate = _load(path)
        return Certified(path, tuple(certified_names(certificate)), certificate.not_valid_after_utc)

    def context(self) -> ssl.SSLContext:
        """Return how to serve clients, read anew if the files have changed. Raises CertificateError."""
        try:
            stamp = tuple(path.stat().st_mtime_ns for path in (self.certificate, self.key))
            if self._context is None or stamp != self._stamp:
                self._context, self._stamp = server_context(self.certificate, self.key), stamp
        except OSError as error:
            if self._context is None:
                raise CertificateError(f"{self.certificate} and its key cannot be used: {error}") from None
        return self._context

    def make(
        self,
        realm: str,
        names: Iterable[str],
        *,
        authority: Path | None = None,
        days: int = SERVER_DAYS,
        renew: bool = False,
    ) -> bool:
        """Make what is missing or due, or with `renew` the server's certificate anyway; tell if anything was.

        `names` are host names and dotted addresses, in addition to those that the present certificate has;
        `authority` is a directory with `ca.crt` and `ca.key`, by default this one, where they are made if
        they are missing. Raises CertificateError.
        """
        now = dt.datetime.now(dt.UTC)
        known = self.describe(self.certificate) if self.exist else None
        wanted = tuple(dict.fromkeys([*(known.names if known else ()), *map(_clean, names)]))
        if known is not None and known.names == wanted and not (renew or known.is_due(now)):
            return False
        home = authority or self.directory
        _private_directory(self.directory)
        if not (home / "ca.crt").exists() and not (home / "ca.key").exists():
            self._make_authority(home, realm, now)
        issuer, issuer_key = _load(home / "ca.crt"), _load_key(home / "ca.key")
        _check_pair(issuer, issuer_key, home)
        key = _load_key(self.key) if self.key.exists() else _new_key(self.key)
        until = min(now + dt.timedelta(days=days), issuer.not_valid_after_utc)
        certificate = _server_certificate(wanted, key, issuer, issuer_key, now, until)
        _write(self.authority, issuer.public_bytes(Encoding.PEM), 0o644)
        _write(self.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
        return True

    @staticmethod
    def _make_authority(home: Path, realm: str, now: dt.datetime) -> None:
        _private_directory(home)
        key = _new_key(home / "ca.key")
        name = _name(f"{realm} authority")
        certificate = (
            _builder(name, name, key.public_key(), now, now + dt.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(home / "ca.crt", certificate.public_bytes(Encoding.PEM), 0o644)


def _server_certificate(
    names: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    until: dt.datetime,
) -> x509.Certificate:
    if not names:
        raise CertificateError("a certificate needs at least one name or address: --name, --address")
    subject = _name(next((name for name in names if len(name) <= _LONGEST_NAME), "server"))
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        _builder(subject, issuer.subject, key.public_key(), now, until)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    until: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)  # somebody's clock is always slow
        .not_valid_after(until)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_LONGEST_NAME])])


def _clean(name: str) -> str:
    return name.strip().rstrip(".").lower()


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise CertificateError(f"{name!r} can be no name of a server") from None


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no certificate"
        raise CertificateError(f"{path} cannot be read: {reason}") from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise CertificateError(
            f"{path} is missing; without it nothing can be signed. "
            "Name the directory that has it with --ca. If it is lost, remove ca.crt and begin anew"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no key that needs no password"
        raise CertificateError(f"{path} cannot be read: {reason}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path} is no key of an elliptic curve, as realmfs makes them")
    return key


def _check_pair(issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey, home: Path) -> None:
    """Raise CertificateError unless certificate and key of an authority belong together."""
    try:
        issuer.verify_directly_issued_by(issuer)
        fits = issuer.public_key() == key.public_key()
    except (InvalidSignature, ValueError, TypeError):
        fits = False
    if not fits:
        raise CertificateError(f"{home}/ca.crt and {home}/ca.key are not of one authority")


def _private_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CertificateError(f"{path} cannot be made: {error.strerror}") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put a file into place at once; nobody but its owner ever could read it unless `mode` lets him."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CertificateError(f"{path} cannot be written: {error.strerror}") from None
