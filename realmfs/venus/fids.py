"""Fids for new objects: ranges granted ahead, and the translation of local fids (reintegration.md §6).

An object made while no granted fid is left gets a *local* one, which no server must ever see. Before its
Create (or MakeDir, SymLink) is sent, it is translated: the inode number stays and means the real fid from
then on, and whatever names the local fid is rewritten in the same transaction:

    the entry in the parent directory           the object's own `.`, and `..` of directories in it
    every waiting log record about it           the parent in the status of what is in it
"""

import functools
from collections.abc import Iterable

from realmfs.cache.log import LogEntry
from realmfs.cache.volumes import is_local
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer
from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.venus.volume import VolumeState
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import Create, MakeDir, SymLink, unpack_log
from realmfs.vice.types import Fid, ObjectType

GRANT = 32  # the most that servers give at once
LOW = 16
_MAKES = {
    Create.OPCODE: ObjectType.FILE,
    MakeDir.OPCODE: ObjectType.DIRECTORY,
    SymLink.OPCODE: ObjectType.SYMLINK,
}


class Fids:
    """Gives fids to new objects and makes real ones of local ones."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def new(self, volume: VolumeState, kind: ObjectType, uid: int) -> Fid:
        """Return a fid for a new object, without waiting. Inside a transaction."""
        volumes = self._core.cache.volumes
        fid = volumes.granted_fid(volume.key, kind) or volumes.local_fid(volume.key, kind)
        if volume.reachable and volumes.granted(volume.key, kind) < LOW:
            self._core.flights.start(("fids", volume.key, kind), lambda: self._refill(volume, kind, uid))
        return fid

    async def _refill(self, volume: VolumeState, kind: ObjectType, uid: int) -> None:
        with self._core.call("AllocFids", volume.name):
            granted = await self._core.group(volume).alloc_fids(kind, GRANT, uid)
        self._core.cache.volumes.grant(volume.key, kind, granted)

    async def prepare(self, volume: VolumeState, entries: Iterable[LogEntry], uid: int) -> None:
        """Get as many real fids as translating the records will need. Raises CodaError."""
        wanted = dict.fromkeys(ObjectType, 0)
        for entry in entries:
            if entry.opcode in _MAKES and self._local_child(entry) is not None:
                wanted[_MAKES[entry.opcode]] += 1
        for kind, count in wanted.items():
            while (had := self._core.cache.volumes.granted(volume.key, kind)) < count:
                refill = functools.partial(self._refill, volume, kind, uid)
                await self._core.flights.join(("fids", volume.key, kind), refill)
                if self._core.cache.volumes.granted(volume.key, kind) <= had:
                    raise CodaError(Code.EWOULDBLOCK, f"{volume.name}: the servers grant too few fids")

    def translate(self, volume: VolumeState, entries: Iterable[LogEntry]) -> None:
        """Give real fids to what the records make. No checkpoint, one transaction.

        Raises CodaError EWOULDBLOCK if the fids prepared have been used up meanwhile.
        """
        with self._core.cache.transaction():
            for entry in entries:
                local = self._local_child(entry) if entry.opcode in _MAKES else None
                if local is None:
                    continue
                real = self._core.cache.volumes.granted_fid(volume.key, _MAKES[entry.opcode])
                if real is None:
                    raise CodaError(Code.EWOULDBLOCK, "no fids left")
                self.rebind(self._core.nodes.get(volume, local), real)

    def _local_child(self, entry: LogEntry) -> Fid | None:
        (record,) = unpack_log(entry.record)
        fid = getattr(record, "fid", None)
        return fid if isinstance(fid, Fid) and is_local(fid) else None

    def rebind(self, node: Node, real: Fid) -> None:
        """Let an object have another fid, everywhere it is named. Inside a transaction."""
        core, local = self._core, node.fid
        waiting = [entry for entry, _ in core.cache.log.about(node.ino)]
        parent = core.nodes.by_number(node.parent) if node.parent else None
        core.nodes.translate(node, real)
        core.cache.on_rollback(lambda: core.nodes.rename(node, local))
        for entry in waiting:
            packer = Packer()
            (record,) = unpack_log(entry.record)
            record.translated({local: real}).pack_into(packer)
            core.cache.log.rewrite(entry, packer.done())
        if parent is not None:
            for name in _names_of(self._pages(parent), local):
                self._rebind(parent, name, real)
        if node.is_directory:
            self._rebind(node, b".", real)
            self._adopt_children(node, real)

    def _adopt_children(self, node: Node, real: Fid) -> None:
        for child in list(self._core.nodes.cached_children(node)):
            if child.status is not None:
                self._core.nodes.change_status(child, parent=real[1:])
            if child.is_directory:
                self._rebind(child, b"..", real)

    def _rebind(self, node: Node, name: bytes, fid: Fid) -> None:
        directory = self._pages(node)
        if directory is not None and name in directory:
            directory.rebind(name, fid.vnode, fid.unique)
            self._core.nodes.save_directory(node, directory)

    def _pages(self, node: Node) -> Directory | None:
        if node.directory is None:
            image = self._core.cache.directories.load(node.ino)
            try:
                node.directory = Directory.parse(image) if image is not None else None
            except BadPacket as error:
                raise CodaError(Code.EIO, f"{node.label}: the cached directory is damaged") from error
        return node.directory


def _names_of(directory: Directory | None, fid: Fid) -> list[bytes]:
    if directory is None:
        return []
    return [name for name, vnode, unique in directory.items() if (vnode, unique) == fid[1:] and name != b".."]
