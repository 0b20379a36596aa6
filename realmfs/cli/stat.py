"""`realmfs stat`."""

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import mode, moment, printable


@click.command()
@click.argument("path", type=TREE)
@click.option("--no-follow", is_flag=True, help="Of a symbolic link itself.")
@json_option
@with_daemon
def command(client: Client, path: str, no_follow: bool, as_json: bool) -> None:
    """Tell all that is known about the object at PATH."""
    found = client.call("path.stat", path=tree_path(client, path), follow=not no_follow)
    if as_json:
        print_json(found)
        return
    attributes = found["attributes"]
    target = f" -> {printable(found['target'])}" if found["target"] is not None else ""
    click.echo(f"/{printable(found['path'])}{target}")
    click.echo(
        f"  {mode(attributes)}  {attributes['size']} bytes, {attributes['links']} links, "
        f"owner {attributes['uid']}, {moment(attributes['mtime'])}"
    )
    for name, value in found["details"].items():
        click.echo(f"  {name + ':':12}{printable(value)}")
