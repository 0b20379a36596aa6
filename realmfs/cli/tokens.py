"""`realmfs tokens`."""

import time

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client
from realmfs.control.words import age


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Of all users of this machine (for root).")
@json_option
@with_daemon
def command(client: Client, everybody: bool, as_json: bool) -> None:
    """Show where you are logged in, as whom, for how long, and how many changes wait there."""
    tokens = list(client.pages("tokens.list", everybody=everybody))
    if as_json:
        print_json(tokens)
        return
    now = time.time()
    rows = [
        (
            token["realm"],
            token["uid"],
            token["user"] or "-",
            token["id"],
            token["state"],
            age(token["ends"] - now) if token["state"] == "valid" else "-",
            token["pending"],
        )
        for token in tokens
    ]
    head = ("REALM", "UID", "USER", "ID", "STATE", "LEFT", "CHANGES")
    print_table(head, rows, "You are not logged in to any realm: realmfs login USER@REALM")
