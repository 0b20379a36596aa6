"""Contents of files for the eye: the first bytes of text, or what they are instead."""

import base64

from realmfs.tui.link import Link

MOST = 64 << 10


async def text_of(link: Link, path: str, length: int, most: int = MOST) -> str | None:
    """Return the beginning of a file as printable text; None if it is not text.

    Raises ControlError and NoDaemonError.
    """
    opened = await link.call("file.open", path=path)
    try:
        wanted = min(length, most)
        answer = await link.call("file.read", handle=opened["handle"], offset=0, size=wanted)
    finally:
        await link.call("file.close", handle=opened["handle"])
    data = base64.b64decode(answer["data"])
    if b"\0" in data:
        return None
    text = data.decode("utf-8", "replace").expandtabs(4)
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)
