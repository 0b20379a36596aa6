"""`realmfs ls`."""

import click

from realmfs.cli.daemon import entries, json_option, tree_path, with_daemon
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import mode, moment, printable


@click.command()
@click.argument("path", type=TREE, default="")
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
