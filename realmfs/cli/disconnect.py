"""`realmfs disconnect`."""

from typing import Any

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json
from realmfs.control.client import Client
from realmfs.control.words import waiting


@click.command()
@click.argument("realm", required=False)
@json_option
@with_daemon
def command(client: Client, realm: str | None, as_json: bool) -> None:
    """Go off line in REALM, or everywhere: work from the cache until `realmfs reconnect`.

    The servers are told, so that nobody waits for this client. It stays off line over a restart.
    """
    show(client.call("connection.disconnect", realm=realm), as_json=as_json)


def show(connection: dict[str, Any], *, as_json: bool) -> None:
    """Print where we are off line, and how much waits."""
    if as_json:
        print_json(connection)
        return
    click.echo(f"{in_words(connection)}. {waiting(connection['pending'])}")


def in_words(connection: dict[str, Any]) -> str:
    """Say where we are off line by hand."""
    realms = connection["realms"]
    if connection["everywhere"]:
        return "Off line everywhere (realmfs reconnect ends that)"
    if isinstance(realms, list) and realms:
        return f"Off line in {', '.join(realms)} (realmfs reconnect ends that)"
    return "On line"
