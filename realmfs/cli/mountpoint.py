"""`realmfs mountpoint`: where volumes are mounted in a realm."""

from typing import Any

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Failure
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import printable


@click.group()
def command() -> None:
    """Mount points: names at which other volumes of the realm are mounted."""


@command.command()
@click.argument("path", type=TREE)
@click.argument("volume", default="")
@json_option
@with_daemon
def make(client: Client, path: str, volume: str, as_json: bool) -> None:
    """Mount VOLUME at the new name PATH; without VOLUME the one named as the path in its realm.

    That takes the right to insert into the directory.
    """
    _show(client.call("mountpoints.make", path=tree_path(client, path), volume=volume), as_json)


@command.command()
@click.argument("path", type=TREE)
@json_option
@with_daemon
def show(client: Client, path: str, as_json: bool) -> None:
    """Tell which volume is mounted at PATH, whether or not it can be reached."""
    _show(client.call("mountpoints.show", path=tree_path(client, path)), as_json)


@command.command()
@click.argument("path", type=TREE)
@json_option
@with_daemon
def remove(client: Client, path: str, as_json: bool) -> None:
    """Remove the mount point PATH, not its volume. Servers let only administrators do that."""
    told = client.call("mountpoints.remove", path=tree_path(client, path))
    above = tree_path(client, path).rpartition("/")[0]
    holder = client.call("volumes.status", path=above, local=True)
    left = client.call("changes.send", volume=f"{holder['name']}@{holder['realm']}", within=20.0)
    if left:
        reason = left[0]["waits_for"] or "its servers are away"
        raise Failure(f"removed here, but the servers do not have it yet ({reason}). See `realmfs conflicts`")
    _show(told, as_json)


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        click.echo(f"{printable(told['path'])}: volume {printable(told['volume'])}@{told['realm']}")
