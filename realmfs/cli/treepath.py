"""Paths in the tree as arguments of commands, completed by the shell.

What begins as a path of this machine is completed by the shell itself, on the mount too. Any other is one in
the tree, and the daemon is asked for the names; if none answers at once there are none.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realmfs.cli.daemon import entries, socket_path, tree_path
from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.host.settings import ConfigError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_WITHIN = 2.0
"""Seconds that the daemon may take to answer a key."""
_OF_THIS_MACHINE = ("/", "./", "../", "~")


class TreePath(click.ParamType[str]):
    """The type of such an argument."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Return the names that may be meant."""
        from click.shell_completion import CompletionItem  # costs, and only the shell's key wants it

        if incomplete.startswith(_OF_THIS_MACHINE) and not _is_in_no_mount(incomplete):
            return [CompletionItem(incomplete, type="file")]
        directory, slash, start = incomplete.rpartition("/")
        try:
            with Client(_socket(ctx), timeout=_WITHIN) as client:
                found = list(entries(client, tree_path(client, directory), attributes=False))
        except (NoDaemonError, ControlError, ConfigError, OSError):
            return []
        return [
            CompletionItem(f"{directory}{slash}{entry['name']}" + _mark(entry))
            for entry in found
            if entry["name"].startswith(start) and entry["name"].isprintable()
        ]


def _is_in_no_mount(path: str) -> bool:
    """Tell whether `/coda/...` is meant as the tree: nothing is mounted there."""
    return path.startswith("/coda/") and not Path("/coda").is_mount()


def _mark(entry: dict[str, Any]) -> str:
    return "/" if entry["kind"] == "directory" else ""


def _socket(context: click.Context) -> Path:
    return socket_path(context.params.get("socket"), context.params.get("config"))


TREE = TreePath()
