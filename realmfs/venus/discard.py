"""Giving waiting changes up, so that what they changed is again as the servers have it (conflicts.md §4).

What rests on a change cannot stay without it: all other changes of the object and, if the change makes the
object, all that was done in it. Of a refused removal, the changes of what has got the name meanwhile.

Objects go back to the servers' version, or vanish if they were made here. For a directory that other changes
are still about, the servers' names are taken, and those changes are made in them once more (`rebase`).
"""

from collections.abc import Iterable, Sequence

from realmfs.cache.log import LogEntry, Role
from realmfs.venus.conflicts import object_of
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.fetch import Fetcher
from realmfs.venus.flight import full_record
from realmfs.venus.node import Node
from realmfs.venus.theirs import fetch_directory
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Create, Link, MakeDir, Remove, RemoveDir, Rename, SymLink
from realmfs.vice.types import Fid, Status

_MAKES = (Create, MakeDir, SymLink)
_MAKING = frozenset(kind.OPCODE for kind in _MAKES)
_GONE = frozenset({Code.ENOENT, Code.VNOVNODE})
ROUNDS = 4
"""How often the servers are asked anew because what was asked about has changed here meanwhile."""


class Discarder:
    """Gives changes up."""

    def __init__(self, core: Core, fetcher: Fetcher) -> None:
        self._core = core
        self._fetcher = fetcher

    def resting_on(self, number: int) -> list[LogEntry]:
        """Return all records about an object, and what rests on them, in order."""
        found: dict[int, LogEntry] = {}
        seen = {number}
        todo = [number]
        while todo:
            number = todo.pop()
            about = list(self._core.cache.log.about(number))
            own = {entry.sequence: entry for entry, role in about if role & Role.OBJECT}
            found |= own
            heirs = {heir[0].ino for heir in [self._core.conflicts.heir(number)] if heir} - seen
            seen |= heirs
            todo += heirs
            if any(entry.opcode in _MAKING for entry in own.values()):
                inside = {object_of(entry) for entry, role in about if not role & Role.OBJECT} - seen
                seen |= inside
                todo += inside
        return [found[sequence] for sequence in sorted(found)]

    async def discard(self, caller: Caller, entries: Sequence[LogEntry]) -> None:
        """Give these records up: all about their objects (`resting_on`), or refused ones that have no effect.

        Raises CodaError: EPERM for another user's, EWOULDBLOCK if one is on its way or something else is
        being done to the same objects, ETIMEDOUT.
        """
        if not entries:
            return
        core = self._core
        if any(entry.uid != caller.uid for entry in entries) and caller.uid:
            raise CodaError(Code.EPERM, "these changes are another user's")
        volume = core.volumes.by_key(entries[0].volume)
        await core.enter(volume)
        made = {object_of(entry) for entry in entries if entry.opcode in _MAKING}
        objects = {object_of(entry) for entry in entries} - made
        parents = {number for entry in entries for number, role in entry.about if role & Role.PARENT} - made
        for _ in range(ROUNDS):
            before = self._editions(objects | parents)
            statuses = {number: await self._status(number, caller.uid) for number in objects}
            fresh = {number: await self._directory(number, caller.uid) for number in parents}
            if self._editions(objects | parents) == before:
                break
        else:
            raise CodaError(Code.EWOULDBLOCK, "what these changes are about is being changed")
        current = [core.cache.log.get(entry.volume, entry.sequence) for entry in entries]
        still = [entry for entry in current if entry is not None]
        if any(entry.frozen for entry in still):
            raise CodaError(Code.EWOULDBLOCK, "a change is on its way to the servers")
        with core.cache.transaction():
            core.nodes.cleaned(core.cache.log.remove(still))
            for number in made:
                self._unmake(core.nodes.by_number(number))
            for number, status in statuses.items():
                self._take_back(core.nodes.by_number(number), status, caller.uid)
            for number in parents:
                self._restore(core.nodes.by_number(number), fresh[number])
        if not core.cache.log.summary(volume.key).records:
            volume.drained.unpark_all()
        core.shrunk.unpark_all()

    def _editions(self, numbers: Iterable[int]) -> dict[int, int]:
        return {number: self._core.nodes.by_number(number).edition for number in numbers}

    async def _status(self, number: int, uid: int) -> Status | None:
        node = self._core.nodes.by_number(number)
        try:
            return (await self._core.group(node.volume).get_attr(node.fid, uid)).status
        except CodaError as error:
            if error.code in _GONE:
                return None
            raise

    async def _directory(self, number: int, uid: int) -> tuple[Status, Directory] | None:
        node = self._core.nodes.by_number(number)
        try:
            return await fetch_directory(self._core.group(node.volume), node.fid, uid)
        except CodaError as error:
            if error.code in _GONE:
                return None
            raise

    # -- inside a transaction --------------------------------------------------------------------------

    def _unmake(self, node: Node) -> None:
        core = self._core
        core.kernel_forget(node)
        core.nodes.drop(node)
        core.nodes.leave(node)
        core.cache.on_rollback(lambda: core.nodes.come_back(node))

    def _take_back(self, node: Node, status: Status | None, uid: int) -> None:
        core = self._core
        if node.dirty and status is not None:
            if node.is_directory:  # with other changes in it; whether its names are theirs, nobody has looked
                core.nodes.change_status(node, mode=status.mode, owner=status.owner, date=status.date)
            return  # a file was changed again meanwhile, upon the version that it had then
        if status is None or node.status is None or node.status.links == 0:
            self._unmake(node)  # gone there as well; or removed here, and looked up anew from now on
            return
        node = core.replaced_elsewhere(node)
        node.rights[uid] = status.my_rights
        core.nodes.take_version(node, status)

    def _restore(self, node: Node, fresh: tuple[Status, Directory] | None) -> None:
        core = self._core
        core.kernel_forget(node, pages=True)
        node.promise = None
        node.edition += 1
        if not node.dirty:
            core.nodes.drop_data(node)
            node.stale = True
        elif fresh is not None:
            self.rebase(node, *fresh)

    def rebase(self, node: Node, status: Status, directory: Directory) -> None:
        """Let a directory have the servers' names, with the changes that still wait made in them."""
        core = self._core
        links = status.links
        waiting = [entry for entry, role in core.cache.log.about(node.ino) if role & Role.PARENT]
        for entry in reversed(waiting):
            links += replay(full_record(core, entry), node.fid, directory)
        directory.take_dirty()
        core.cache.on_rollback(node.forget_directory)
        node.directory = directory
        core.cache.directories.replace(node.ino, directory.image)
        core.nodes.change_status(node, vv=status.vv, length=directory.length, links=links)


def replay(record: AnyRecord, parent: Fid, directory: Directory) -> int:
    """Do to the names of one directory what a record does; return by how much its links change."""
    links = 0
    if isinstance(record, Rename):
        moved = record.fid.is_directory and record.old_parent != record.new_parent
        if record.old_parent == parent:
            _delete(directory, record.old_name, record.fid)
            links -= moved
        if record.new_parent == parent:
            _insert(directory, record.new_name, record.fid)
            links += moved
    elif isinstance(record, Remove | RemoveDir):
        _delete(directory, record.name, record.fid)
        links -= record.fid.is_directory
    elif isinstance(record, (*_MAKES, Link)):
        _insert(directory, record.name, record.fid)
        links += record.fid.is_directory
    return links


def _delete(directory: Directory, name: bytes, fid: Fid) -> None:
    if directory.lookup(name) == fid[1:]:
        directory.delete(name)


def _insert(directory: Directory, name: bytes, fid: Fid) -> None:
    if name in directory:
        directory.rebind(name, fid.vnode, fid.unique)
    else:
        directory.insert(name, fid.vnode, fid.unique)
