"""A certificate authority for tests, which signs whatever one likes: expired, for others, by a stranger."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


@dataclass
class Authority:
    """Keeps its files below `directory`: `ca.crt`, and for each server a certificate and a key."""

    directory: Path
    name: str = "test authority"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        certificate = self._sign(self.key.public_key(), self.name, [], authority=True)
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.crt"

    def issue(
        self,
        *names: str,
        since: dt.timedelta = -DAY,
        until: dt.timedelta = DAY,
        file: str = "server",
    ) -> tuple[Path, Path]:
        """Return the paths of a certificate for names and addresses, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key.public_key(), "a server", list(names), since=since, until=until)
        paths = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        subject: str,
        names: list[str],
        *,
        authority: bool = False,
        since: dt.timedelta = -DAY,
        until: dt.timedelta = DAY,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(self.name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(n) for n in names]), False
            )
        return builder.sign(self.key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
