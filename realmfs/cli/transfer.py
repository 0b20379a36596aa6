"""Contents in and out over the control socket."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from realmfs.cli.progress import Bar
from realmfs.control.client import Client

_PIECE = 256 << 10


def pieces(client: Client, path: str) -> Iterator[bytes]:
    """Yield the contents of a file in the tree."""
    with client.reading(path) as stream:
        while data := stream.read(_PIECE):
            yield data


def store(
    client: Client, source: BinaryIO, path: str, mode: int, *, sync: bool = False, total: int | None = None
) -> int:
    """Make or replace a file in the tree; returns its size. What was there stays until all is written.

    `total`: how much will come, for the bar.
    """
    size = 0
    with Bar(path) as bar, client.writing(path, mode, sync=sync) as stream:
        while data := source.read(_PIECE):
            size += stream.write(data)
            bar.tell(size, total, is_bytes=True)
    return size


def fetch_to(client: Client, path: str, local: str, mode: int, total: int | None = None) -> int:
    """Copy a file out of the tree; returns its size. The local file appears only when it is complete."""
    beside = f"{local}.part"
    size = 0
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
        with open(descriptor, "wb") as stream, Bar(path) as bar:
            for data in pieces(client, path):
                size += stream.write(data)
                bar.tell(size, total, is_bytes=True)
        os.replace(beside, local)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    return size
