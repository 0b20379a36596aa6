"""`realmfs realms`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client


@click.command()
@json_option
@with_daemon
def command(client: Client, as_json: bool) -> None:
    """List the realms ever reached, with their servers."""
    realms = list(client.pages("realms.list"))
    if as_json:
        print_json(realms)
        return
    rows = [
        (realm["name"], "reachable" if realm["reachable"] else "unreachable", " ".join(realm["servers"]))
        for realm in realms
    ]
    print_table(("REALM", "STATE", "SERVERS"), rows, "No realm was ever reached. Try: realmfs ls REALM")
