"""`realmfs changes`."""

import time

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client
from realmfs.control.words import age, printable, size


@click.group(invoke_without_command=True)
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@json_option
@with_daemon
def command(client: Client, volume: str | None, as_json: bool) -> None:
    """Show the changes that wait to be sent to the servers."""
    if click.get_current_context().invoked_subcommand is None:
        show(client, volume, as_json)


@command.command("list")
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@json_option
@with_daemon
def list_changes(client: Client, volume: str | None, as_json: bool) -> None:
    """List them, the oldest first (the default)."""
    show(client, volume, as_json)


def show(client: Client, volume: str | None, as_json: bool) -> None:
    """Print the pending changes."""
    changes = client.call("changes.list", volume=volume)
    if as_json:
        print_json(changes)
        return
    rows = [
        (
            f"{change['volume']}@{change['realm']}",
            age(max(0.0, time.time() - change["made"])),
            change["uid"],
            change["what"],
            size(change["size"]) if change["size"] else "-",
            change["state"],
            printable(change["path"]),
        )
        for change in changes
    ]
    head = ("VOLUME", "AGE", "USER", "CHANGE", "SIZE", "STATE", "PATH")
    print_table(head, rows, "No change waits: everything has reached the servers.")
