"""`realmfs ls`."""

from collections.abc import Iterator
from typing import Any

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.show import print_json
from realmfs.control.client import Client
from realmfs.control.words import mode, moment, printable


def entries(client: Client, path: str, attributes: bool) -> Iterator[dict[str, Any]]:
    """Yield the entries of a directory, piece by piece."""
    position: int | None = 0
    while position is not None:
        piece = client.call("path.list", path=path, position=position, attributes=attributes)
        yield from piece["entries"]
        position = piece["position"]


@click.command()
@click.argument("path", default="")
@click.option("-l", "--long", is_flag=True, help="With type, permissions, size and time.")
@json_option
@with_daemon
def command(client: Client, path: str, long: bool, as_json: bool) -> None:
    """List the directory at PATH (by default: the realms)."""
    found = entries(client, tree_path(client, path), long or as_json)
    if as_json:
        print_json(sorted(found, key=lambda entry: str(entry["name"])))
        return
    for entry in sorted(found, key=lambda entry: str(entry["name"])):
        name = printable(entry["name"])
        attributes = entry["attributes"]
        if not long:
            click.echo(name)
        elif attributes is None:
            click.echo(f"??????????  {'?':>12}  {'?':19}  {name}")
        else:
            target = "" if entry["target"] is None else f" -> {printable(entry['target'])}"
            stamp = moment(attributes["mtime"])
            click.echo(f"{mode(attributes)}  {attributes['size']:>12}  {stamp}  {name}{target}")
