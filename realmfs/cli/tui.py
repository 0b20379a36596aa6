"""`realmfs tui`: becomes the interface's own process, so that no command ever loads Textual."""

import importlib.util
import os
import sys
from pathlib import Path

import click

from realmfs.cli.daemon import socket_path
from realmfs.cli.failure import Failure


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), envvar="REALMFS_SOCKET", help="Control socket.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--web", is_flag=True, help="Show it in a browser of this machine, at an address told here.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port for --web; 0: a free one.")
def command(socket: Path | None, config: Path | None, web: bool, port: int) -> None:
    """Browse, hoard, and watch what waits, in the terminal or a browser."""
    argv = [str(socket_path(socket, config)), *([] if config is None else [str(config)])]
    if web:
        if importlib.util.find_spec("textual_serve") is None:
            raise Failure("the view in a browser needs textual-serve: pip install 'realmfs[web]'")
        os.execv(sys.executable, [sys.executable, "-m", "realmfs.tui.web", str(port), *argv])
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("the interface needs a terminal. For scripts there are the commands with --json")
    os.execv(sys.executable, [sys.executable, "-m", "realmfs.tui", *argv])
