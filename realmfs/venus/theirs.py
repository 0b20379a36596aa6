"""A directory as the servers have it now, beside what is cached of it.

What is to be built upon it must not have changed here meanwhile: of a change that the servers have taken
since, and that does not wait any more, nobody would make the names anew.
"""

from realmfs.realms.group import Group
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.venus.node import Node
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Status

ROUNDS = 4


async def fetch_unchanged(group: Group, node: Node, uid: int) -> tuple[Status, Directory]:
    """Fetch a directory as the servers have it, and as nothing has been done to it here meanwhile.

    Raises CodaError as `fetch_directory` does, and EWOULDBLOCK.
    """
    for _ in range(ROUNDS):
        edition = node.edition
        fetched = await fetch_directory(group, node.fid, uid)
        if node.edition == edition:
            return fetched
    raise CodaError(Code.EWOULDBLOCK, f"{node.label} is being changed")


async def fetch_directory(group: Group, fid: Fid, uid: int) -> tuple[Status, Directory]:
    """Fetch a directory past the cache. Raises CodaError as `Group.fetch` does; EIO for a senseless one."""
    status, data = await fetch_bytes(group, fid, uid)
    try:
        return status, Directory.parse(data)
    except BadPacket as error:
        raise CodaError(Code.EIO, f"{fid}: a senseless directory came") from error


async def fetch_bytes(group: Group, fid: Fid, uid: int) -> tuple[Status, bytes]:
    """Fetch something small past the cache: a directory, the text of a link."""
    sinks: dict[int, BytesSink] = {}

    def at(offset: int) -> BytesSink:
        for start in [start for start in sinks if start >= offset]:
            del sinks[start]
        return sinks.setdefault(offset, BytesSink())

    answer = await group.fetch(fid, uid, at)
    return answer.status, b"".join(bytes(sinks[start].data) for start in sorted(sinks))
