"""`realmfs cat`."""

import sys

import click

from realmfs.cli.daemon import tree_path, with_daemon
from realmfs.cli.transfer import pieces
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client


@click.command()
@click.argument("paths", type=TREE, nargs=-1, required=True, metavar="PATH...")
@with_daemon
def command(client: Client, paths: tuple[str, ...]) -> None:
    """Print the files at PATH to standard output."""
    for path in paths:
        for data in pieces(client, tree_path(client, path)):
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
