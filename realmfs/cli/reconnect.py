"""`realmfs reconnect`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.disconnect import show
from realmfs.cli.failure import Failure
from realmfs.control.client import Client


@click.command()
@click.argument("realm", required=False)
@json_option
@with_daemon
def command(client: Client, realm: str | None, as_json: bool) -> None:
    """Be on line again in REALM, or everywhere; what waits is sent."""
    connection = client.call("connection.reconnect", realm=realm)
    show(connection, as_json=as_json)
    if realm is not None and connection["everywhere"]:
        raise Failure(f"{realm} is still off line, as everything is. Reconnect without a realm")
