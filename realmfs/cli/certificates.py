"""`realmfs admin certificates`: the authority of an embedded realm, and certificates of its servers."""

import json
from pathlib import Path
from typing import Any

import click

from realmfs.cli.failure import Failure
from realmfs.server.certificates import DIRECTORY, SERVER_DAYS, CertificateError, Certificates
from realmfs.server.database import StoreError
from realmfs.server.store import ServerStore


@click.command("certificates")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, file_okay=False), help="The server's directory."
)
@click.option("--realm", help="The realm, if nothing was ever served from the directory.")
@click.option("--name", "names", multiple=True, help="A host name of the server; may be given several times.")
@click.option("--address", "addresses", multiple=True, help="A dotted address of the server; likewise.")
@click.option(
    "--ca", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory with the authority's ca.crt and ca.key, if it is not the server's own.",
)  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), default=SERVER_DAYS, show_default=True)
@click.option("--renew", is_flag=True, help="Make a new certificate though the old one lasts a while.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data: Path,
    realm: str | None,
    names: tuple[str, ...],
    addresses: tuple[str, ...],
    ca: Path | None,
    days: int,
    renew: bool,
    as_json: bool,
) -> None:
    """Make the realm's authority and this server's certificate, or renew what ends within 30 days.

    The certificate is for the names and addresses given, for those it had, for the realm's name and for the
    address that the server serves at. A running server takes a new one at once.
    """
    certificates = Certificates(data / DIRECTORY)
    try:
        realm, known = _known(data, realm)
        made = certificates.make(
            realm, (*names, realm, *addresses, *known), authority=ca, days=days, renew=renew
        )
        server = certificates.describe(certificates.certificate)
        authority = certificates.describe(certificates.authority)
    except StoreError as error:
        raise Failure(str(error)) from None
    if as_json:
        facts: dict[str, Any] = {
            "made": made,
            "authority": str(authority.path),
            "authority_until": authority.until.isoformat(),
            "certificate": str(server.path),
            "certificate_until": server.until.isoformat(),
            "names": list(server.names),
        }
        click.echo(json.dumps(facts))
        return
    click.echo(f"{'made' if made else 'kept'} {server.path}")
    click.echo(f"  for {', '.join(server.names)}, until {server.until.date()}")
    click.echo(f"authority {authority.path}, until {authority.until.date()}")
    click.echo(f"  clients want it as {realm}.pem in the directory `ca` beside their config.toml")


def _known(data: Path, realm: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the realm and the address of a store, if there is one. Raises StoreError."""
    if not (data / "store.db").exists():
        if realm is None:
            raise CertificateError(f"{data} holds no server yet: name its realm with --realm")
        return realm, ()
    with ServerStore.open(data, lock=False) as store:  # a server may be running on it
        if realm not in (None, store.realm):
            raise CertificateError(f"{data} is of the realm {store.realm}, not {realm}")
        return store.realm, (store.address.address,)
