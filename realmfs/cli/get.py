"""`realmfs get`."""

import os
from pathlib import Path

import click

from realmfs.cli.daemon import tree_path, with_daemon
from realmfs.cli.failure import Failure
from realmfs.cli.transfer import fetch_to
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import size


@click.command()
@click.argument("path", type=TREE)
@click.argument("local", default=".", type=click.Path(path_type=Path))
@with_daemon
def command(client: Client, path: str, local: Path) -> None:
    """Copy the file at PATH in the tree to LOCAL, a file or a directory (by default: here)."""
    source = tree_path(client, path)
    found = client.call("path.stat", path=source)["attributes"]
    if found["type"] != "file":
        raise Failure(f"{path} is a {found['type']}. Copy its files one by one, or use the mount")
    target = local / source.rstrip("/").rpartition("/")[2] if local.is_dir() else local
    done = fetch_to(client, source, os.fspath(target), found["mode"] & 0o777, found["size"])
    click.echo(f"{target}: {size(done)}", err=True)
