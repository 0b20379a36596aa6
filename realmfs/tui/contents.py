"""Contents of files for the eye: the first bytes of text, or what they are instead.

They come through a connection of their own, in a thread: a pipe is passed with it, and read up to what is
wanted.
"""

import asyncio
from pathlib import Path

from realmfs.control.client import Client
from realmfs.tui.link import Link

MOST = 64 << 10
_WITHIN = 20.0


async def text_of(link: Link, path: str, length: int, most: int = MOST) -> str | None:
    """Return the beginning of a file as printable text; None if it is not text.

    Raises ControlError and NoDaemonError.
    """
    data = await asyncio.to_thread(_head, link.path, path, min(length, most))
    if b"\0" in data:
        return None
    text = data.decode("utf-8", "replace").expandtabs(4)
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def _head(socket: Path, path: str, most: int) -> bytes:
    with Client(socket, timeout=_WITHIN) as client, client.reading(path) as stream:
        return stream.read(most)
