"""`realmfs logout`."""

import click

from realmfs.cli.credentials import note
from realmfs.cli.daemon import with_daemon
from realmfs.control.client import Client
from realmfs.control.words import waiting


@click.command()
@click.argument("realm", required=False)
@with_daemon
def command(client: Client, realm: str | None) -> None:
    """Log out of REALM, or of all realms. What you changed and was not sent waits for your next login."""
    gone = client.call("tokens.logout", realm=None if realm is None else realm.rpartition("@")[2])
    for token in gone:
        click.echo(f"Logged out of {token['realm']}")
        if token["pending"]:
            note(f"{waiting(token['pending'])} in {token['realm']} for your next login")
    if not gone:
        note(f"You are not logged in to {realm or 'any realm'}.")
