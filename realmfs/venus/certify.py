"""Finding out before a batch is sent that servers would refuse it (reintegration.md §§2.2, 2.3).

A reference server that has to roll back a batch with a creation in it does not survive that. Every replica
gets the same batch, and once they are restarted they get it again. So batches with creations hold nothing
else that others could be in the way of (batch.py), and what is left is looked for here:

* Names and the right to insert, in directories that are certainly the servers':

    promise holds, servers heard of lately    what is cached is what the servers have, with our changes: the
                                              operation was checked against it already
    promise holds                             so it is if the servers have our version. They may have been cut
                                              off, and have given up calling us back
    neither                                   the directory is fetched, and the batch replayed on its names

* Room in the volume's quota, as the servers told it not long ago.

A batch of unknown outcome, during which a server may have died, is looked at thoroughly before it is sent
again: all its directories are fetched, and all its files must still be of the version that it begins from.

What is refused though we know better, because a server that is down has what the others lack, waits for it.

Of directories that other clients change, too, the version is asked for last, and the records name it instead
of the one that is cached: servers give a directory that is changed in ignorance of its version a store id of
each one's own, and it must be resolved (reintegration.md §2.7).

What comes between this look and the call is not seen: that is as long as one round trip.
"""

from collections.abc import Sequence
from math import inf

import trio

from realmfs.cache.log import LogEntry
from realmfs.realms.group import Group
from realmfs.venus.commit import Bases, Committer, vectors_of
from realmfs.venus.core import Core
from realmfs.venus.flight import full_record, sent_as
from realmfs.venus.theirs import fetch_directory
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import (
    AnyRecord,
    Chmod,
    Chown,
    Create,
    Link,
    MakeDir,
    Remove,
    RemoveDir,
    Rename,
    Store,
    SymLink,
    Utimes,
)
from realmfs.vice.types import Fid, Order, Rights, Status, VersionVector

LATELY = 2.0  # seconds; servers try for longer than that to call back
ROOM_KNOWN = 10.0  # seconds for which the room in a volume is taken for known
ROOM_ENOUGH = 4096  # blocks of 1 KiB; with more than that left, nobody is asked again so soon
LOOKED_AT = 4  # objects of a refused batch whose versions are compared
BLOCKS = 2  # charged for a new object, at most

Names = dict[bytes, Fid]
Refusal = tuple[int, Code]
"""The index of the record that would be refused (-1: of none in particular), and with what."""
_MAKES = (Create, MakeDir, SymLink)
_GONE = frozenset({Code.ENOENT, Code.VNOVNODE})


class Certifier:
    """Looks at batches of one volume."""

    def __init__(self, core: Core, volume: VolumeState, committer: Committer) -> None:
        self._core = core
        self._committer = committer
        self._volume = volume
        self._room = 0.0
        self._room_until = -inf

    async def refusal(
        self, records: Sequence[AnyRecord], uid: int, *, thorough: bool = False
    ) -> Refusal | None:
        """Return what servers would refuse, or None.

        Without `thorough` asks only for batches that make objects. Raises CodaError if something cannot be
        had.
        """
        makes = sum(isinstance(record, _MAKES) for record in records)
        if not makes and not thorough:
            return None
        found = await self._names_refused(records, uid, thorough)
        if found is None and makes and not await self._has_room(makes, uid):
            found = -1, Code.EDQUOT
        if found is None and thorough:
            found = await self._versions_refused(records, uid)
        return found

    async def bases(self, entries: Sequence[LogEntry]) -> Bases:
        """Return the versions that the servers have of directories in a batch which others change, too.

        Waits until they agree on them. Raises CodaError.
        """
        records = [full_record(self._core, entry) for entry in entries]
        parents = {parent for record in records for parent in _parents(record)}
        consulted = self._committer.consulted(self._volume, records, parents)
        made = {record.fid for record in records if isinstance(record, MakeDir)}
        group, found = self._core.group(self._volume), dict[Fid, VersionVector]()
        for fid in sorted((parents | consulted.keys()) - made):
            vv = await group.settled(fid, sent_as(entries[0]))
            if vv is not None:
                found[fid] = vv
        return found

    async def is_ahead(self, records: Sequence[AnyRecord], uid: int) -> bool:
        """Tell whether we know a version of something in a batch that is at a server which is down.

        Then those that are up have missed an update of ours and refuse what rests on it; once the other one
        is back they are made equal. Raises CodaError.
        """
        group = self._core.group(self._volume)
        if len(group.slots_up) == self._volume.replicas:
            return False
        known = vectors_of(self._core, self._volume, records)
        for fid, vv in [(fid, vv) for fid, vv in known.items() if any(vv.versions)][:LOOKED_AT]:
            theirs = [status.vv for status in (await group.replica_statuses(fid, uid)).values()]
            if not theirs:
                if not any(vv.versions[slot] for slot in group.slots_up):
                    return True  # they never had it; from who removed it we would have their counts
                continue
            top = VersionVector()
            for one in theirs:
                top = top.maximum(one)
            newer = vv.compare(top, ignore_inconsistent=True) in (Order.DOMINATES, Order.INCONSISTENT)
            if newer and vv.store_id not in {one.store_id for one in theirs}:
                return True
        return False

    async def is_done(self, records: Sequence[AnyRecord], uid: int) -> bool:
        """Tell whether the servers' names are as if a batch of unknown outcome had been executed.

        Servers that have made their replicas equal since then may have given the directories new store ids.
        Only of records after which no file is left that would say by its own store id whether they were
        executed; whoever did it, there is nothing left to do. Raises CodaError.
        """
        if not all(map(_leaves_no_file, records)):
            return False
        wanted: dict[tuple[Fid, bytes], Fid | None] = {}
        for record in records:
            if isinstance(record, Rename):
                wanted[record.old_parent, record.old_name] = None
                wanted[record.new_parent, record.new_name] = record.fid
            elif isinstance(record, MakeDir | Remove | RemoveDir):
                gone = isinstance(record, Remove | RemoveDir)
                wanted[record.parent, record.name] = None if gone else record.fid
        group = self._core.group(self._volume)
        found: dict[Fid, Names] = {}
        for (parent, name), child in wanted.items():
            if parent not in found:
                try:
                    found[parent] = await _names(group, parent, uid, inserts=False)
                except CodaError as error:
                    if error.code not in _GONE:
                        raise
                    found[parent] = {}
            if found[parent].get(name) != child:
                return False
        return True

    async def _names_refused(self, records: Sequence[AnyRecord], uid: int, thorough: bool) -> Refusal | None:
        directories: dict[Fid, Names | None] = {}
        made = {record.fid for record in records if isinstance(record, MakeDir)}
        for index, record in enumerate(records):
            for parent in _parents(record):
                if parent in directories:
                    continue
                inserts = isinstance(record, (*_MAKES, Link))
                try:
                    directories[parent] = (
                        None if parent in made else await self._look(parent, uid, thorough, inserts)
                    )
                except CodaError as error:
                    if error.code not in _GONE and error.code is not Code.EACCES:
                        raise
                    return index, Code.ENOENT if error.code in _GONE else Code.EACCES
            code = _replay(record, directories)
            if code is not None:
                return index, code
        return None

    async def _look(self, fid: Fid, uid: int, thorough: bool, inserts: bool) -> Names | None:
        """Return the names in a directory; None if those in the cache are certain. Raises CodaError."""
        group = self._core.group(self._volume)
        node = self._volume.nodes.get(fid[1:])
        if node is not None and node.promise == node.sample() and not thorough:
            if group.silence < LATELY:
                return None
            status = (await group.get_attr(fid, uid)).status
            _require(status, inserts)
            if node.same_version(status.vv):
                return None
        return await _names(group, fid, uid, inserts)

    async def _has_room(self, count: int, uid: int) -> bool:
        """Tell whether so many new objects fit into the volume's quota."""
        now = trio.current_time()
        self._room -= count * BLOCKS
        if now > self._room_until or self._room < 0:
            try:
                status = (await self._core.group(self._volume).volume_status(uid)).status
            except CodaError as error:
                if error.code in (Code.ETIMEDOUT, Code.EWOULDBLOCK):
                    raise
                status = None  # servers that do not tell: then the batch itself will
            self._room = inf
            if status is not None and status.max_quota > 0:
                self._room = status.max_quota - status.blocks_in_use - count * BLOCKS
            self._room_until = now + (ROOM_KNOWN if self._room < ROOM_ENOUGH else ROOM_KNOWN * 6)
        return self._room >= 0

    async def _versions_refused(self, records: Sequence[AnyRecord], uid: int) -> Refusal | None:
        """Compare the versions that records begin from with the servers'."""
        group = self._core.group(self._volume)
        vectors = vectors_of(self._core, self._volume, records)
        seen = {record.fid for record in records if isinstance(record, _MAKES)}
        for index, record in enumerate(records):
            if not isinstance(record, Store | Utimes | Chmod | Chown | Remove | Rename | Link):
                continue
            fid = record.fid
            if fid in seen or fid.is_directory:
                continue
            seen.add(fid)
            try:
                status = (await group.get_attr(fid, uid)).status
            except CodaError as error:
                if error.code in _GONE or error.code is Code.EINCONS:
                    return index, Code.EINCONS if error.code is Code.EINCONS else Code.ENOENT
                raise
            if status.vv.store_id != vectors[fid].store_id:
                return index, Code.EINCOMPATIBLE
        return None


def _leaves_no_file(record: AnyRecord) -> bool:
    return isinstance(record, MakeDir | RemoveDir | Remove) or (
        isinstance(record, Rename) and record.fid.is_directory
    )


def _parents(record: AnyRecord) -> tuple[Fid, ...]:
    if isinstance(record, Rename):
        return record.old_parent, record.new_parent
    if isinstance(record, (*_MAKES, Link, Remove, RemoveDir)):
        return (record.parent,)
    return ()


def _require(status: Status, inserts: bool) -> None:
    if inserts and not status.my_rights & Rights.INSERT:
        raise CodaError(Code.EACCES, "no right to insert")


async def _names(group: Group, fid: Fid, uid: int, inserts: bool) -> Names:
    status, directory = await fetch_directory(group, fid, uid)
    _require(status, inserts)
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
