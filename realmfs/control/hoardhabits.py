"""The orders of the reference's `hoard`, done by our methods; see habits.py.

A walk goes on after `_WITHIN` seconds, and the tool is told that all is well.
"""

import struct
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from realmfs.control import messages
from realmfs.control.job import Job, write_list

_HOARD_ADD = struct.Struct("=I65s1024s3xii")
_HOARD_DELETE = struct.Struct("=I65s1024s")
_ATTRIBUTES: Final = {2: "c", 3: "c+", 4: "d", 5: "d+", 6: "d", 7: "d+"}
"""By the bits of the tool: 1 new ones too, 2 children, 4 all below."""
_WITHIN = 8.0
_POLL = 0.2


async def _place(job: Job, volume: int, realm: bytes, name: bytes) -> str:
    """Return the path of a name that is told from the root of its volume."""
    where = realm.split(b"\0", 1)[0].decode("ascii", "replace")
    top: messages.PathOf = await job.call("volumes.path", id=volume, realm=where)
    below = name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape").removeprefix(".").strip("/")
    return f"{top.path}/{below}".strip("/")


async def _add(job: Job) -> bytes:
    volume, realm, name, priority, attributes = _HOARD_ADD.unpack_from(job.data)
    wish = f"{priority}:{_ATTRIBUTES.get(attributes, '')}".rstrip(":")
    path = await _place(job, volume, realm, name)
    await job.call("hoard.add", path=path, attributes=wish, uid=job.caller.uid)
    return b""


async def _delete(job: Job) -> bytes:
    volume, realm, name = _HOARD_DELETE.unpack_from(job.data)
    await job.call("hoard.remove", path=await _place(job, volume, realm, name))
    return b""


async def _clear(job: Job) -> bytes:
    await job.call("hoard.clear", uid=job.caller.uid)
    return b""


async def _list(job: Job) -> bytes:
    entries = await job.pages("hoard.list")
    entries.sort(key=lambda one: (-one.priority, one.place))
    lines = [f"<{one.volume}, {one.place}>, {one.attributes}, {one.uid}\n" for one in entries]
    write_list(job, lines)
    return b""


async def _verify(job: Job) -> bytes:
    told: messages.hoard.Verified = await job.call("hoard.verify")
    problems = [*told.problems]
    if told.cursor is not None:
        problems += await job.pages("hoard.problems", cursor=told.cursor)
    lines = [f"{one.verdict} {one.path} ({one.priority}): {one.why}\n" for one in problems]
    write_list(job, lines)
    return b""


async def _walk(job: Job) -> bytes:
    """Have a walk, and wait a while for its end."""
    before = (await job.call("hoard.walk")).walks
    for _ in range(int(_WITHIN / _POLL)):
        if (await job.call("hoard.status")).walks > before:
            break
        await trio.sleep(_POLL)
    return b""


async def _on(job: Job) -> bytes:
    await job.call("hoard.switch", on=True)
    return b""


async def _off(job: Job) -> bytes:
    await job.call("hoard.switch", on=False)
    return b""


ORDERS: Final[dict[int, Callable[[Job], Awaitable[bytes]]]] = {
    200: _add,
    201: _delete,
    203: _clear,
    204: _list,
    206: _walk,
    222: _verify,
    224: _on,
    225: _off,
}
"""By the tool's numbers."""
