"""`realmfs hoard learn`: a command in a session of its own, watched by the daemon."""

import contextlib
import os
import signal
from collections.abc import Sequence

import click

from realmfs.cli.failure import Failure
from realmfs.control.client import Client
from realmfs.control.words import size
from realmfs.venus.hoardlanguage import parse_wish, write

_NOT_FOUND = 127


def learn(client: Client, argv: Sequence[str]) -> tuple[list[str], int]:
    """Run a command; return the lines for a profile, and the command's status."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _become(reading, writing, argv)
    os.close(reading)
    try:
        client.call("hoard.learn.begin", group=child)
        os.write(writing, b"!")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(writing)
    code = _wait(child)
    proposals = client.call("hoard.learn.end", group=child)
    if code == _NOT_FOUND and not proposals:
        raise Failure(f"{argv[0]} cannot be run. Is it the name of a program?")
    total = sum(one["size"] for one in proposals)
    files = sum(one["files"] for one in proposals)
    click.echo(f"opened in the tree: {files} files, {size(total)}", err=True)
    return [write(f"/coda{one['path']}", parse_wish(one["attributes"])) for one in proposals], code


def _become(reading: int, writing: int, argv: Sequence[str]) -> None:
    """In the child: wait until the daemon watches, then become the command. Never returns."""
    with contextlib.suppress(OSError):
        os.close(writing)
        os.setsid()
        if os.read(reading, 1):
            os.close(reading)
            os.execvp(argv[0], list(argv))
    os._exit(_NOT_FOUND)


def _wait(child: int) -> int:
    """Wait for the command's end; interruptions are for it."""
    while True:
        try:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status) & 0xFF
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGINT)
