"""`realmfs unmount`."""

import time
from pathlib import Path
from typing import Any

import click

from realmfs.cli.daemon import PLACE, socket_path
from realmfs.cli.failure import Failure
from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError, Kind
from realmfs.control.words import size, waiting

_ENDS_WITHIN = 15.0


@click.command()
@click.argument("directory", required=False, type=PLACE)
@click.option("--force", is_flag=True, help="Cut off programs that still use the mount.")
@click.option("--socket", type=click.Path(path_type=Path), envvar="REALMFS_SOCKET", help="Control socket.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
def command(directory: Path | None, force: bool, socket: Path | None, config: Path | None) -> None:
    """Stop the daemon and unmount; tells what is still pending, which is kept for the next start."""
    path = socket_path(socket, config)
    try:
        stopping, pid = _stop(path, directory, force)
    except NoDaemonError:
        if directory is None or not _detach_dead(directory):
            raise
        click.echo(f"{directory} held the mount of a daemon that had died: detached")
        return
    if stopping.get("pending"):
        text = f"{waiting(stopping['pending'])} to be sent ({size(stopping['pending_bytes'])})"
        click.echo(f"{text}; kept, to go on at the next start")
    if stopping.get("busy") and not force:
        click.echo("Files are still open: the daemon ends after their last close (--force cuts them off)")
        return
    if not _gone(pid):
        raise Failure("the daemon has not ended yet. Files may still be open: realmfs unmount --force")
    click.echo("unmounted")


def _stop(path: Path, directory: Path | None, force: bool) -> tuple[dict[str, Any], int]:
    """Begin the end of the daemon, of any version; returns its answer and its process."""
    try:
        with Client(path) as client:
            _check_directory(directory, client.call("daemon.status")["mount_point"])
            return client.call("daemon.stop", force=force), client.peer
    except ControlError as error:
        if error.kind is not Kind.VERSION or directory is not None:
            raise
    with Client(path, any_version=True) as client:
        return client.call("daemon.stop", force=force), client.peer


def _check_directory(directory: Path | None, mounted: str | None) -> None:
    """The daemon to stop must be the one that serves the directory named."""
    if directory is not None and str(directory.absolute()) != mounted:
        where = f"on {mounted}" if mounted else "nowhere"
        raise Failure(f"this daemon is mounted {where}, not on {directory}. Name its --socket")


def _detach_dead(directory: Path) -> bool:
    """Detach a mount that lost its daemon. Tells whether there was one."""
    import trio

    from realmfs.fuse import mounts

    mount = mounts.find(directory)
    if mount is None or mount.file_system != mounts.FILE_SYSTEM:
        return False
    reason = trio.run(mounts.detach, directory)
    if reason is not None:
        raise Failure(f"{directory} holds a dead mount that cannot be detached: {reason}")
    return True


def _gone(pid: int) -> bool:
    """Wait until the daemon has ended: not before has it let go of the cache, for the next one to take."""
    limit = time.monotonic() + _ENDS_WITHIN
    while Path(f"/proc/{pid}").exists() and not _is_zombie(pid):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
