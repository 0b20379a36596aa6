"""`realmfs whereis`."""

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client


@click.command()
@click.argument("path", type=TREE)
@json_option
@with_daemon
def command(client: Client, path: str, as_json: bool) -> None:
    """Tell which servers hold the object at PATH."""
    details = client.call("path.stat", path=tree_path(client, path))["details"]
    servers = details.get("servers", "").split()
    if as_json:
        print_json({"path": path, "volume": details.get("volume"), "servers": servers})
        return
    if not servers:
        click.echo(f"{path}: nobody knows its servers now", err=True)
    for server in servers:
        click.echo(server)
