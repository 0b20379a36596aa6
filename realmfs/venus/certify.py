"""Finding out before a batch is sent that servers would refuse its names (reintegration.md §§2.2, 2.3).

A reference server that has to roll back a batch with a creation in it does not survive that. Every replica
gets the same batch, and once they are restarted they get it again. So what they would refuse is looked for
here, in directories that are certainly theirs:

    promise holds, servers heard of lately    what is cached is what the servers have, with our changes: the
                                              operation was checked against it already
    promise holds                             so it is if the servers have our version. They may have been cut
                                              off, and have given up calling us back
    neither                                   the directory is fetched, and the batch replayed on its names

What comes between this look and the call is not seen: that is as long as one round trip.
"""

from collections.abc import Sequence

from realmfs.realms.group import Group
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.venus.core import Core
from realmfs.venus.volume import VolumeState
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Create, Link, MakeDir, Remove, RemoveDir, Rename, SymLink
from realmfs.vice.types import Fid

LATELY = 2.0  # seconds; servers try for longer than that to call back

Names = dict[bytes, Fid]
_MAKES = (Create, MakeDir, SymLink)


async def refusal(
    core: Core, volume: VolumeState, records: Sequence[AnyRecord], uid: int
) -> tuple[int, Code] | None:
    """Return the index of the first record that servers would refuse for a name, and with what; or None.

    Asks only for batches that make objects. Raises CodaError if a directory cannot be had.
    """
    if not any(isinstance(record, _MAKES) for record in records):
        return None
    directories: dict[Fid, Names | None] = {}
    made = {record.fid for record in records if isinstance(record, MakeDir)}
    for index, record in enumerate(records):
        for parent in _parents(record):
            if parent in directories:
                continue
            try:
                certain = parent in made or await _is_certain(core.group(volume), volume, parent, uid)
                directories[parent] = None if certain else await _names(core.group(volume), parent, uid)
            except CodaError as error:
                if error.code not in (Code.ENOENT, Code.VNOVNODE):
                    raise
                return index, Code.ENOENT
        code = _replay(record, directories)
        if code is not None:
            return index, code
    return None


def _parents(record: AnyRecord) -> tuple[Fid, ...]:
    if isinstance(record, Rename):
        return record.old_parent, record.new_parent
    if isinstance(record, (*_MAKES, Link, Remove, RemoveDir)):
        return (record.parent,)
    return ()


async def _is_certain(group: Group, volume: VolumeState, fid: Fid, uid: int) -> bool:
    node = volume.nodes.get(fid[1:])
    if node is None or node.promise != node.sample():
        return False
    return group.silence < LATELY or node.same_version((await group.get_attr(fid, uid)).status.vv)


async def _names(group: Group, fid: Fid, uid: int) -> Names:
    sinks: dict[int, BytesSink] = {}

    def at(offset: int) -> BytesSink:
        for start in [start for start in sinks if start >= offset]:
            del sinks[start]
        return sinks.setdefault(offset, BytesSink())

    await group.fetch(fid, uid, at)
    try:
        directory = Directory.parse(b"".join(bytes(sinks[start].data) for start in sorted(sinks)))
    except BadPacket as error:
        raise CodaError(Code.EIO, f"{fid}: a senseless directory came") from error
    return {name: Fid(fid.volume, vnode, unique) for name, vnode, unique in directory.items()}


def _replay(record: AnyRecord, directories: dict[Fid, Names | None]) -> Code | None:
    """Do what a record does to the names; return what is against it. None: these names are not in doubt."""
    if isinstance(record, Rename):
        old, new = directories[record.old_parent], directories[record.new_parent]
        if new is not None and record.new_name in new:
            return Code.EEXIST
        if old is not None and old.pop(record.old_name, None) is None:
            return Code.ENOENT
        if new is not None:
            new[record.new_name] = record.fid
    elif isinstance(record, Remove | RemoveDir):
        names = directories[record.parent]
        if names is not None and names.pop(record.name, None) is None:
            return Code.ENOENT
    elif isinstance(record, (*_MAKES, Link)):
        names = directories[record.parent]
        if names is not None and record.name in names:
            return Code.EEXIST
        if names is not None:
            names[record.name] = record.fid
    return None
