"""How commands find and call the daemon."""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from realmfs.control.client import Client
from realmfs.host.paths import Paths
from realmfs.host.settings import settle

P = ParamSpec("P")

PLACE = click.Path(path_type=Path, readable=False)
"""A directory that may hold a dead mount, so that asking for its permissions fails."""


def socket_path(socket: Path | None, config: Path | None) -> Path:
    """Return the control socket: the named one, else the user's own daemon's, else the system daemon's."""
    path = settle(Paths.of_user(), config, {"socket": socket}).socket
    system = settle(Paths.of_system(), None, {}).socket if socket is None and config is None else path
    return path if path.exists() or not system.exists() else system


@dataclass(frozen=True, slots=True)
class _Named:
    """Which daemon a group's options name."""

    socket: Path | None
    config: Path | None


def with_daemon(function: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """Give a command the options that name the daemon, and a connection as its first argument.

    A group that does something by itself connects only then; its options hold for the commands below it.
    """

    @with_socket
    @functools.wraps(function)
    def connected(path: Path, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with Client(path) as client:
            function(client, *args, **kwargs)

    return connected


def with_socket(function: Callable[Concatenate[Path, P], None]) -> Callable[..., None]:
    """Give a command the options that name the daemon, and its control socket as its first argument."""

    @click.option(
        "--socket",
        type=click.Path(path_type=Path),
        envvar="REALMFS_SOCKET",
        help="Control socket of the daemon.",
    )
    @click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
    @functools.wraps(function)
    def named(socket: Path | None, config: Path | None, *args: P.args, **kwargs: P.kwargs) -> None:
        context = click.get_current_context()
        above = context.parent.obj if context.parent is not None else None
        if isinstance(above, _Named):
            socket, config = socket or above.socket, config or above.config
        if context.invoked_subcommand is not None:
            context.obj = _Named(socket, config)
            return
        function(socket_path(socket, config), *args, **kwargs)

    return named


def json_option(function: Callable[P, None]) -> Callable[P, None]:
    """Give a command the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def tree_path(client: Client, path: str) -> str:
    """Return a path in the tree, relative to its root.

    Understood are a path below the mount point, `/coda/...`, and, with a working directory inside the
    mount, a path relative to that; any other is taken from the root of the tree: `realm/directory/file`.
    """
    mount = _mount_point(client)
    inside = _below(mount, os.path.abspath(path)) if mount else None
    if inside is not None:
        return inside
    if not path.startswith("/"):
        return path
    return _below("/coda", os.path.normpath(path)) or path.lstrip("/")


def entries(client: Client, path: str, attributes: bool) -> Iterator[dict[str, Any]]:
    """Yield the entries of a directory, piece by piece."""
    position: int | None = 0
    while position is not None:
        piece = client.call("path.list", path=path, position=position, attributes=attributes)
        yield from piece["entries"]
        position = piece["position"]


@functools.lru_cache(maxsize=8)
def _mount_point(client: Client) -> str | None:
    """Ask only once: hoard files have thousands of paths."""
    mount: str | None = client.call("daemon.status")["mount_point"]
    return mount


def _below(top: str, path: str) -> str | None:
    """Return what follows `top` in `path`; None if it is not below."""
    if path == top:
        return ""
    return path[len(top) + 1 :] if path.startswith(top.rstrip("/") + "/") else None
