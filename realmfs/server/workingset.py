"""The objects that one batch of changes touches: copies to work on, and the transaction that makes them real.

    collect      get(), directory(), create(): objects come in as copies; the store still has the old ones
    change       in memory, object by object, noting under which store id each was changed last
    fill         containers get the data of stores, and are synced; meanwhile everybody reads the old state
    commit       one transaction: rows, pages, volume stamp, what is remembered of the client
    discard      on any failure: new containers are removed, nothing else was touched

The volume's lock is held from the first to the last (state.py), so nobody else changes these objects, but for
two: the second phase of older updates (COP2) changes version vectors, which is why commit() starts from the
vectors as they then are; and an administrator's program may change anything, after which the batch is refused
and done again by the client.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from realmfs.rpc2.errors import BadPacket
from realmfs.server.access import Acl
from realmfs.server.containers import Container
from realmfs.server.store import ServerStore
from realmfs.server.views import NOWHERE, Node, Stamp, Tomb
from realmfs.server.vnodes import Vnode
from realmfs.server.volumes import Volume
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, StoreId, VersionVector

_FID_LEEWAY = 1 << 24
"""How far ahead of what was handed out a client's fid may be: a wild one must not use up all numbers."""
_LOCAL_VNODES = 0xFFFFFFFA
"""Vnodes from here on are a client's private ones (vice.md §3)."""


class WorkingSet:
    """The objects of one batch in one volume."""

    def __init__(self, store: ServerStore, volume: Volume) -> None:
        self.volume = volume
        self._store = store
        self._generation = store.database.generation
        self._vnodes: dict[Fid, Vnode | None] = {}
        self._directories: dict[Fid, Directory] = {}
        self._changed: dict[Fid, StoreId] = {}
        self._created: dict[Fid, None] = {}
        self._removed: dict[Fid, None] = {}
        self._containers: dict[Fid, Container] = {}
        self._lent: set[int] = set()
        self._superseded: list[int] = []
        self._blocks = 0
        self._stamps: dict[tuple[Fid, bytes], StoreId] = {}
        self._tombs: list[tuple[Fid, Tomb]] = []
        self._planted: dict[Fid, Vnode] = {}
        self.repairing = False
        """Whether what is in conflict may be touched."""
        self.bases: dict[Fid, VersionVector] = {}
        """Vectors to count on from instead of those that are stored."""
        self._overtaken: set[Fid] = set()
        self._noted = store.volumes.replicas(volume) > 1

    # collecting

    def get(self, fid: Fid) -> Vnode:
        """Return the working copy of an object. Raises CodaError VNOVNODE, EINCONS."""
        if fid not in self._vnodes:
            self._vnodes[fid] = self._store.vnodes.find(fid)
        vnode = self._vnodes[fid]
        if vnode is None:
            raise CodaError(Code.VNOVNODE, f"{fid} does not exist")
        if vnode.vv.inconsistent and not self.repairing:
            raise CodaError(Code.EINCONS, f"{fid} is in conflict")
        return vnode

    def directory(self, fid: Fid) -> Directory:
        """Return the contents of a directory, to read and to change.

        Raises CodaError ENOTDIR, EIO if it is damaged.
        """
        if fid not in self._directories:
            if not self.get(fid).is_directory:
                raise CodaError(Code.ENOTDIR)
            try:
                self._directories[fid] = self._store.vnodes.take_directory(fid)
            except BadPacket as error:
                raise CodaError(Code.VSALVAGE, f"directory {fid} is damaged: {error}") from error
        return self._directories[fid]

    def acl(self, vnode: Vnode) -> Acl:
        """Return the access list that governs an object: its own, or its parent directory's."""
        acl = vnode.acl if vnode.acl is not None else self.get(vnode.parent_fid).acl
        return acl if acl is not None else Acl(())

    # changing

    def create(self, vnode: Vnode, contents: Directory | None = None) -> None:
        """Add a new object.

        Raises CodaError EEXIST if there is one of this fid, EINVAL if no client may choose the fid, EDQUOT.
        """
        fid = vnode.fid
        slot = (fid.vnode - 1) >> 1
        top = self.volume.next_directory if fid.is_directory else self.volume.next_file
        if not 0 < fid.vnode < _LOCAL_VNODES or fid.unique == 0 or fid.is_directory != vnode.is_directory:
            raise CodaError(Code.EINVAL, f"{fid} cannot be the fid of such an object")
        if fid.unique > self.volume.next_unique + _FID_LEEWAY or slot > top + _FID_LEEWAY:
            raise CodaError(Code.EINVAL, f"{fid} is far from any fid that was handed out")
        if (
            fid in self._removed
            or self._vnodes.get(fid) is not None
            or self._store.vnodes.find(fid) is not None
        ):
            raise CodaError(Code.EEXIST, f"{fid} exists already")
        self.charge(vnode.blocks)
        self._vnodes[fid] = vnode
        self._created[fid] = None
        if contents is not None:
            self._directories[fid] = contents

    def touch(self, vnode: Vnode, store_id: StoreId) -> None:
        """Note that an object was changed by the update `store_id`."""
        vnode.vv = vnode.vv.with_store_id(store_id)
        self._changed.pop(vnode.fid, None)
        self._changed[vnode.fid] = store_id

    def overtaken(self, directory: Fid) -> None:
        """Note that others had changed a directory without the knowledge of who changes it now.

        The store id of the update does not say what comes out then (Vnodes.id_upon).
        """
        self._overtaken.add(directory)

    def plant(self, vnode: Vnode) -> None:
        """Write an object as it is, without counting an update of it."""
        self._planted[vnode.fid] = vnode

    def entered(self, directory: Fid, name: bytes, op: StoreId) -> None:
        """Note which change has put an entry there, or has set an attribute (merge.py)."""
        if self._noted:
            self._stamps[directory, name] = op

    def left(self, directory: Fid, name: bytes, child: Vnode, op: StoreId, to: Node = NOWHERE) -> None:
        """Note which change has taken an entry away, and where the child went, if it was moved."""
        if not self._noted:
            return
        stamp = self._stamps.pop((directory, name), None) or self._store.elements.stamp(directory, name)
        tomb = Tomb(name=name, child=child.fid[1:], stamp=stamp, op=op, batch=op, to=to, vv=child.vv)
        self._tombs.append((directory, tomb))

    def set_attribute(self, directory: Vnode, name: bytes, op: StoreId) -> None:
        """Note which change has set an attribute of a directory: the former value is taken away."""
        self.left(directory.fid, name, directory, op)
        self.entered(directory.fid, name, op)

    def resize(self, vnode: Vnode, length: int) -> None:
        """Set an object's length and charge the volume for it. Raises CodaError EDQUOT."""
        before = vnode.blocks
        vnode.length = length
        self.charge(vnode.blocks - before)

    def charge(self, blocks: int) -> None:
        """Count blocks of 1 KiB against the quota.

        Raises CodaError EDQUOT, only if they are more than before.
        """
        self._blocks += blocks
        quota = self.volume.max_quota
        if blocks > 0 and quota and self.volume.blocks + self._blocks > quota:
            raise CodaError(Code.EDQUOT, f"{self.volume.name} may hold {quota} KiB")

    def remove(self, vnode: Vnode) -> None:
        """Free an object whose last name is gone."""
        fid = vnode.fid
        self._blocks -= vnode.blocks
        self._vnodes[fid] = None
        self._directories.pop(fid, None)
        self._changed.pop(fid, None)
        self._removed[fid] = None
        self.supersede(fid, vnode)

    def supersede(self, fid: Fid, vnode: Vnode) -> None:
        """Give up an object's present contents."""
        fresh = self._containers.pop(fid, None)
        if fresh is not None:
            fresh.discard()
        elif vnode.container is not None:
            self._superseded.append(vnode.container)
        vnode.container = vnode.sha = None

    def attach(self, fid: Fid, container: Container, *, lent: bool = False) -> None:
        """Give an object new contents; its length must be right already. What is lent survives a failure."""
        vnode = self.get(fid)
        if lent:
            self._lent.add(container.number)
        self._containers[fid] = container
        vnode.container, vnode.sha = container.number, container.sha

    # ending

    @property
    def containers(self) -> list[Container]:
        """The new containers, to be synced before the commit."""
        return list(self._containers.values())

    @property
    def affected(self) -> list[Fid]:
        """Objects changed or removed that existed before: whoever has a promise for one must be told."""
        changed = dict.fromkeys((*self._removed, *self._changed, *self._planted))
        return [fid for fid in changed if fid not in self._created]

    def is_removed(self, fid: Fid) -> bool:
        """Whether the batch has removed the object."""
        return fid in self._removed

    def commit(self, remember: StoreId | None) -> None:
        """Make it real; `remember` is the last record's store id, for the detection of duplicates.

        Each changed object counts one update of this replica, whatever the number of records. Raises
        CodaError EWOULDBLOCK if another process has changed the store since the batch began.
        """
        store, volume = self._store, self.volume
        with store.transaction():
            if store.database.generation != self._generation:
                raise CodaError(Code.EWOULDBLOCK, "the store was changed by an administrator meanwhile")
            changed = [vnode for fid in self._changed if (vnode := self._vnodes[fid]) is not None]
            self._note_past(store)
            for vnode in changed:
                vnode.vv = self._final_vector(vnode)
            store.vnodes.remove(fid for fid in self._removed if fid not in self._created)
            planted = [vnode for vnode in self._planted.values() if vnode.fid not in self._removed]
            store.vnodes.write([*planted, *changed])
            for fid, directory in self._directories.items():
                store.vnodes.write_pages(fid, directory.take_dirty())
            self._note_elements(store)
            self._note_fids(store)
            store.volumes.settle(volume.id, len(changed), self._blocks)
            if remember is not None:
                store.volumes.remember_record(volume.id, *remember)
        for fid, directory in self._directories.items():
            store.vnodes.keep_directory(fid, directory)
        for container in self._containers.values():
            container.close()
        self._containers.clear()

    def drop_superseded(self) -> None:
        """Remove the containers that the committed batch has replaced."""
        self._store.containers.remove(self._superseded)

    def discard(self) -> None:
        """Forget everything; harmless after commit()."""
        for container in self._containers.values():
            if container.number not in self._lent:
                container.discard()
        self._containers.clear()

    def _final_vector(self, vnode: Vnode) -> VersionVector:
        stored = self._store.vnodes.find(vnode.fid)
        base = stored.vv if stored is not None else VersionVector()
        base = self.bases.get(vnode.fid, base)
        store_id = self._changed[vnode.fid]
        if vnode.fid in self._overtaken:
            store_id = self._store.vnodes.id_upon(vnode.fid, base, store_id)
        return self._store.vnodes.count_update(vnode.fid, base, self.volume.slot, store_id)

    def _note_past(self, store: ServerStore) -> None:
        """Note of which versions the changed or removed files were made."""
        if self._noted:
            for fid in (*self._changed, *self._removed):
                if not fid.is_directory and (stored := store.vnodes.find(fid)) is not None:
                    store.elements.note_past(fid, [stored.vv.store_id])

    def _note_elements(self, store: ServerStore) -> None:
        for directory, tomb in self._tombs:
            batch = self._changed.get(directory, tomb.op)
            store.elements.leave(directory, [dataclasses.replace(tomb, batch=batch)])
        for (directory, name), op in self._stamps.items():
            if directory not in self._removed:
                store.elements.enter(directory, [Stamp(name=name, id=op)])

    def _note_fids(self, store: ServerStore) -> None:
        if self._created:
            files, directories = _slots(self._created, False), _slots(self._created, True)
            top = max(fid.unique for fid in self._created) + 1
            store.volumes.note_marks(
                self.volume.id, top, max(files, default=-1) + 1, max(directories, default=-1) + 1
            )


def _slots(fids: Iterable[Fid], directories: bool) -> list[int]:
    return [(fid.vnode - 1) >> 1 for fid in fids if fid.is_directory == directories]
