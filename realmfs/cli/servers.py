"""`realmfs servers`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.progress import Bar
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client
from realmfs.control.words import age, size


@click.command()
@click.option("--check", is_flag=True, help="Ask each server now.")
@json_option
@with_daemon
def command(client: Client, check: bool, as_json: bool) -> None:
    """List the servers: who is up, how far away, how protected."""
    with Bar("asking the servers"):
        servers = list(client.pages("servers.list", check=check))
    if as_json:
        print_json(servers)
        return
    rows = [
        (
            server["realm"],
            server["address"],
            server["state"],
            "-" if server["round_trip"] is None else f"{server['round_trip'] * 1000:.1f} ms",
            "-" if server["bandwidth"] is None else f"{size(server['bandwidth'])}/s",
            str(server["callbacks"]),
            "-" if server["last_heard"] is None else f"{age(server['last_heard'])} ago",
            server["reason"] or server["protection"],
        )
        for server in servers
    ]
    head = (
        "REALM",
        "ADDRESS",
        "STATE",
        "ROUND TRIP",
        "BANDWIDTH",
        "CALLBACKS",
        "HEARD",
        "PROTECTION, OR WHY DOWN",
    )
    print_table(head, rows, "No server is known. Try: realmfs ls REALM")
