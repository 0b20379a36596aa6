"""`realmfs put`."""

from pathlib import Path

import click

from realmfs.cli.daemon import tree_path, with_daemon
from realmfs.cli.transfer import store
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.control.words import size


@click.command()
@click.argument("local", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("path", type=TREE)
@click.option("--sync", is_flag=True, help="Return only when it is safe against power loss here.")
@with_daemon
def command(client: Client, local: Path, path: str, sync: bool) -> None:
    """Copy the file LOCAL to PATH in the tree, a file or a directory."""
    target = tree_path(client, path)
    if target.endswith("/") or _is_directory(client, target):
        target = f"{target.rstrip('/')}/{local.name}"
    with local.open("rb") as source:
        about = local.stat()
        done = store(client, source, target, about.st_mode & 0o777, sync=sync, total=about.st_size)
    click.echo(f"/{target}: {size(done)}", err=True)


def _is_directory(client: Client, path: str) -> bool:
    try:
        return bool(client.call("path.stat", path=path)["attributes"]["type"] == "directory")
    except ControlError:
        return False
