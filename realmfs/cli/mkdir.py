"""`realmfs mkdir`."""

import errno

import click

from realmfs.cli.daemon import tree_path, with_daemon
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError


@click.command()
@click.argument("paths", type=TREE, nargs=-1, required=True, metavar="PATH...")
@click.option("-p", "--parents", is_flag=True, help="Make missing parents too; an existing one is no error.")
@with_daemon
def command(client: Client, paths: tuple[str, ...], parents: bool) -> None:
    """Make the directories PATH in the tree."""
    for path in paths:
        whole = tree_path(client, path).strip("/")
        names = whole.split("/")
        wanted = ["/".join(names[:count]) for count in range(2, len(names) + 1)] if parents else [whole]
        for each in wanted:
            try:
                client.call("path.mkdir", path=each)
            except ControlError as error:
                if not parents or error.number != errno.EEXIST:
                    raise
