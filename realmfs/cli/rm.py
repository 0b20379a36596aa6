"""`realmfs rm`."""

import errno

import click

from realmfs.cli.daemon import entries, tree_path, with_daemon
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError


@click.command()
@click.argument("paths", type=TREE, nargs=-1, required=True, metavar="PATH...")
@click.option("-r", "--recursive", is_flag=True, help="Directories with all that is in them.")
@click.option("-f", "--force", is_flag=True, help="A missing one is no error.")
@with_daemon
def command(client: Client, paths: tuple[str, ...], recursive: bool, force: bool) -> None:
    """Remove PATH from the tree: files, links and empty directories."""
    for path in paths:
        whole = tree_path(client, path).strip("/")
        try:
            if recursive:
                _empty(client, whole)
            client.call("path.remove", path=whole)
        except ControlError as error:
            if not force or error.number != errno.ENOENT:
                raise


def _empty(client: Client, path: str) -> None:
    """Remove what is below a directory, the deepest first; links are removed, not followed."""
    if client.call("path.stat", path=path, follow=False)["attributes"]["type"] != "directory":
        return
    below = [path]
    directories = []
    while below:
        directory = below.pop()
        for entry in list(entries(client, directory, True)):
            child = f"{directory}/{entry['name']}"
            if entry["attributes"] is not None and entry["attributes"]["type"] == "directory":
                below.append(child)
                directories.append(child)
            else:
                client.call("path.remove", path=child)
    for directory in reversed(directories):
        client.call("path.remove", path=directory)
