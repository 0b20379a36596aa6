"""This server's replicas, as the servers of a group compare and change them (merge.py, planning.py).

Looking takes no lock: all of an answer is from one moment, since nothing awaits. A change takes the volume's
lock, as clients' changes do, checks its guards, and is on the disk and told to clients before it is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from realmfs.rpc2.transfer import Sink
from realmfs.server.access import Acl
from realmfs.server.containers import sync_containers
from realmfs.server.state import ServerState
from realmfs.server.store import ServerStore
from realmfs.server.views import (
    NOWHERE,
    Change,
    DirectoryChange,
    DirectoryView,
    Guard,
    Node,
    ObjectView,
    Plan,
    Views,
)
from realmfs.server.vnodes import Vnode
from realmfs.server.volumes import Volume
from realmfs.vice.directory import PAGE, Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, StoreId, VersionVector

_DEEPEST = 4096

Fetch = Callable[[Sink], Awaitable[None]]


def _view_of(vnode: Vnode, past: tuple[StoreId, ...]) -> ObjectView:
    """Return an object's status in the form that servers exchange."""
    return ObjectView(
        node=vnode.fid[1:], type=vnode.type, links=vnode.links, length=vnode.length,
        data_version=vnode.data_version, vv=vnode.vv, mtime=vnode.mtime, author=vnode.author,
        owner=vnode.owner, mode=vnode.mode, parent=vnode.parent, target=vnode.target or b"",
        sha=vnode.sha or b"", past=past,
    )  # fmt: skip


class LocalReplica:
    """One volume's replica here."""

    def __init__(self, state: ServerState, volume: Volume) -> None:
        self._state = state
        self._store: ServerStore = state.store
        self.volume = volume

    # looking

    def look(self, directories: Sequence[Node], objects: Sequence[Node]) -> Views:
        """Return what there is of directories, all of each, and of objects."""
        found = (self._find(node) for node in objects)
        return Views(
            directories=tuple(self._directory(node) for node in directories),
            objects=tuple(self._view(vnode) for vnode in found if vnode is not None),
        )

    def _view(self, vnode: Vnode) -> ObjectView:
        return _view_of(vnode, () if vnode.is_directory else self._store.elements.past(vnode.fid))

    def _fid(self, node: Node) -> Fid:
        return Fid(self.volume.id, *node)

    def _find(self, node: Node) -> Vnode | None:
        return self._store.vnodes.find(self._fid(node))

    def _directory(self, node: Node) -> DirectoryView:
        fid, vnode = self._fid(node), self._find(node)
        stamps, tombs = self._store.elements.stamps(fid), self._store.elements.tombs(fid)
        if vnode is None or not vnode.is_directory:
            return DirectoryView(node=node, tombs=tombs)
        return DirectoryView(
            node=node, rows=(self._view(vnode),), acl=vnode.acl.pack() if vnode.acl is not None else b"",
            image=self._store.vnodes.image(fid), stamps=stamps, tombs=tombs, above=self._above(vnode),
        )  # fmt: skip

    def _above(self, vnode: Vnode) -> tuple[Node, ...]:
        chain: list[Node] = []
        parent: Vnode | None = vnode
        while parent is not None and parent.parent != NOWHERE and len(chain) < _DEEPEST:
            chain.append(parent.parent)
            parent = self._find(parent.parent)
        return tuple(chain)

    # changing

    async def install(self, plan: Plan) -> None:
        """Do what a plan says. Raises CodaError EAGAIN if a guard does not hold, EWOULDBLOCK."""
        async with self._state.exclusive(self.volume):
            for guard in plan.guards:
                self._check(guard)
            writer = _Writer(self._store, self.volume)
            with self._store.transaction():
                for directory in plan.directories:
                    writer.put_directory(directory)
                for change in plan.objects:
                    writer.put_object(change)
                for node in plan.gone:
                    writer.remove(node)
                writer.finish()
            await self._store.database.durable()
        self._store.containers.remove(writer.superseded)
        await self._state.hosts.break_promises(self.volume, writer.changed, None)

    async def take(self, guard: Guard, row: ObjectView, fetch: Fetch) -> None:
        """Give a file or symbolic link the contents, status and version that another replica has.

        Raises CodaError EAGAIN if the guard does not hold or other contents came, and what `fetch` raises.
        """
        container = None
        if row.type is ObjectType.FILE and row.length:
            container = self._store.containers.create()
        try:
            if container is not None:
                await fetch(container)
                if container.length != row.length:
                    raise CodaError(Code.EAGAIN, "the other replica has changed meanwhile")
                await sync_containers([container])
            old = await self._take(guard, row, container.number if container is not None else None)
        except BaseException:
            if container is not None:
                container.discard()
            raise
        if container is not None:
            container.close()
        self._store.containers.remove(old)
        await self._state.hosts.break_promises(self.volume, [self._fid(row.node)], None)

    async def _take(self, guard: Guard, row: ObjectView, container: int | None) -> list[int]:
        async with self._state.exclusive(self.volume):
            self._check(guard)
            vnode = self._find(row.node)
            if vnode is None or vnode.type is not row.type:
                raise CodaError(Code.EAGAIN)
            old, blocks = vnode.container, vnode.blocks
            vnode.length, vnode.mtime, vnode.author, vnode.owner = (
                row.length,
                row.mtime,
                row.author,
                row.owner,
            )
            vnode.mode, vnode.vv, vnode.container, vnode.sha = row.mode, row.vv, container, row.sha or None
            vnode.target = row.target if row.type is ObjectType.SYMLINK else None
            vnode.data_version += 1
            with self._store.transaction():
                self._store.vnodes.write([vnode])
                self._store.elements.note_past(vnode.fid, row.past)
                self._store.volumes.settle(self.volume.id, 1, vnode.blocks - blocks)
            await self._store.database.durable()
        return [old] if old is not None else []

    def forget(self, settled: Sequence[tuple[Node, VersionVector]]) -> None:
        """Drop the tombs of directories that are the same at all replicas, if they still are this version."""
        with self._store.transaction():
            for node, vv in settled:
                vnode = self._find(node)
                if vnode is not None and vnode.vv == vv:
                    self._store.elements.forget(vnode.fid)

    def _check(self, guard: Guard) -> None:
        vnode = self._find(guard.node)
        if (() if vnode is None else (vnode.vv,)) != guard.rows:
            raise CodaError(Code.EAGAIN, f"{guard.node} was changed meanwhile")


class _Writer:
    """One transaction of an installation."""

    def __init__(self, store: ServerStore, volume: Volume) -> None:
        self._store = store
        self._volume = volume
        self._blocks = 0
        self._created: list[Fid] = []
        self.changed: list[Fid] = []
        self.superseded: list[int] = []

    def put_directory(self, change: DirectoryChange) -> None:
        """Give a directory its merged contents."""
        vnode = self._put(change.row)
        vnode.length, vnode.acl = len(change.image), Acl.unpack(change.acl)
        self._write_pages(
            vnode, {n: change.image[n * PAGE : (n + 1) * PAGE] for n in range(vnode.length // PAGE)}
        )
        self._store.elements.replace(vnode.fid, change.stamps, change.tombs)
        self._write(vnode)

    def put_object(self, change: Change) -> None:
        """Give an object its place and version, or make it."""
        row = change.row
        fid = Fid(self._volume.id, *row.node)
        vnode = self._store.vnodes.find(fid)
        if vnode is None:
            vnode = self._put(row)
            vnode.length, vnode.sha = row.length, None
            vnode.target = row.target if row.type is ObjectType.SYMLINK else None
            if row.is_directory:
                vnode.acl, vnode.length = Acl(()), PAGE
                self._write_pages(vnode, Directory.new(fid[1:], row.parent).take_dirty())
        else:
            self._blocks -= vnode.blocks
            if vnode.is_directory and vnode.parent != row.parent:
                contents = self._store.vnodes.take_directory(fid)
                contents.move_to(row.parent)
                vnode.length, vnode.data_version = contents.length, vnode.data_version + 1
                self._store.vnodes.write_pages(fid, contents.take_dirty())
            vnode.links, vnode.parent, vnode.vv = row.links, row.parent, row.vv
        self._store.elements.note_past(fid, row.past)
        self._write(vnode)

    def remove(self, node: Node) -> None:
        """Remove an object. What was taken away from a directory before stays known."""
        fid = Fid(self._volume.id, *node)
        vnode = self._store.vnodes.find(fid)
        if vnode is None:
            return
        self._blocks -= vnode.blocks
        if vnode.container is not None:
            self.superseded.append(vnode.container)
        self._store.vnodes.remove([fid])
        self._store.vnodes.forget_directory(fid)
        self.changed.append(fid)

    def finish(self) -> None:
        """Settle what was counted."""
        volumes = self._store.volumes
        volumes.settle(self._volume.id, len(self.changed), self._blocks)
        if self._created:
            slots = [
                max([(fid.vnode - 1) >> 1 for fid in self._created if fid.is_directory is kind], default=-1)
                + 1
                for kind in (False, True)
            ]
            volumes.note_marks(self._volume.id, max(fid.unique for fid in self._created) + 1, *slots)

    def _put(self, row: ObjectView) -> Vnode:
        """Return the object with its new status, length and contents being the caller's to set."""
        fid = Fid(self._volume.id, *row.node)
        present = self._store.vnodes.find(fid)
        if present is None:
            self._created.append(fid)
        else:
            self._blocks -= present.blocks
        return Vnode(
            fid, row.type, row.links, 0, row.data_version, row.vv, row.mtime, row.author, row.owner, row.mode,
            row.parent,
        )  # fmt: skip

    def _write(self, vnode: Vnode) -> None:
        self._blocks += vnode.blocks
        self._store.vnodes.write([vnode])
        self.changed.append(vnode.fid)

    def _write_pages(self, vnode: Vnode, pages: Mapping[int, bytes]) -> None:
        self._store.vnodes.forget_directory(vnode.fid)
        self._store.vnodes.drop_pages(vnode.fid)
        self._store.vnodes.write_pages(vnode.fid, pages)
