"""`realmfs volumes`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client


@click.command()
@json_option
@with_daemon
def command(client: Client, as_json: bool) -> None:
    """List the volumes known here: where they live, whether they can be reached, what waits for them."""
    volumes = list(client.pages("volumes.list"))
    if as_json:
        print_json(volumes)
        return
    rows = [
        (
            f"{volume['name']}@{volume['realm']}",
            volume["id"],
            volume["type"],
            f"{volume['state']} ({volume['why']})" if volume["why"] else volume["state"],
            volume["pending"],
            " ".join(volume["servers"]),
        )
        for volume in volumes
    ]
    head = ("VOLUME", "ID", "TYPE", "STATE", "PENDING", "SERVERS")
    print_table(head, rows, "No volume is known. Try: realmfs ls REALM")
