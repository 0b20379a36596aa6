"""Contents in and out over the control socket."""

import base64
import contextlib
import os
from collections.abc import Iterator
from typing import IO

from realmfs.control.client import Client
from realmfs.control.protocol import CHUNK


def pieces(client: Client, path: str) -> Iterator[bytes]:
    """Yield the contents of a file in the tree."""
    handle = client.call("file.open", path=path)["handle"]
    try:
        offset = 0
        while True:
            answer = client.call("file.read", handle=handle, offset=offset, size=CHUNK)
            data = base64.b64decode(answer["data"])
            if data:
                yield data
            if len(data) < CHUNK:
                return
            offset += len(data)
    finally:
        client.call("file.close", handle=handle)


def store(client: Client, source: IO[bytes], path: str, mode: int, *, sync: bool = False) -> int:
    """Make or replace a file in the tree; returns its size. What was there stays until all is written."""
    handle = client.call("file.open", path=path, write=True, mode=mode)["handle"]
    offset = 0
    while data := source.read(CHUNK):
        text = base64.b64encode(data).decode()
        client.call("file.write", handle=handle, offset=offset, data=text)
        offset += len(data)
    client.call("file.close", handle=handle, sync=sync)
    return offset


def fetch_to(client: Client, path: str, local: str, mode: int) -> int:
    """Copy a file out of the tree; returns its size. The local file appears only when it is complete."""
    beside = f"{local}.part"
    size = 0
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
        with open(descriptor, "wb") as stream:
            for data in pieces(client, path):
                size += stream.write(data)
        os.replace(beside, local)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    return size
