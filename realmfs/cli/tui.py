"""`realmfs tui`: becomes the interface's own process, so that no command ever loads Textual."""

import os
import sys
from pathlib import Path

import click

from realmfs.cli.daemon import socket_path
from realmfs.cli.failure import Failure


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), envvar="REALMFS_SOCKET", help="Control socket.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
def command(socket: Path | None, config: Path | None) -> None:
    """Browse, hoard, and watch what waits, in the terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("the interface needs a terminal. For scripts there are the commands with --json")
    argv = [str(socket_path(socket, config)), *([] if config is None else [str(config)])]
    os.execv(sys.executable, [sys.executable, "-m", "realmfs.tui", *argv])
