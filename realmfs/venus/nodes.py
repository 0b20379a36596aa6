"""All nodes: found by fid or by inode number, in memory or from the cache, written back as they change.

A node is identified by its inode number; a fid leads to the newest node of that fid. The table knows nodes
weakly: whoever holds a node gets the same one from the table. `recent` holds the most recently used ones
strongly, so that their promises live on; it is bounded.

Nothing here waits. What changes the cache must be called inside a transaction; if that is rolled back,
memory is put back as it was (`on_rollback`), so that it never knows more than the disk.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

from realmfs.cache.cache import Cache
from realmfs.cache.container import Container
from realmfs.cache.objects import Flags, ObjectRow
from realmfs.venus.errand import waited_for
from realmfs.venus.node import Node
from realmfs.venus.volume import VolumeState
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Status


class Nodes:
    """The table. `volume_of` finds a volume by its key; `forgotten` hears of nodes that leave memory."""

    def __init__(
        self,
        cache: Cache,
        limit: int,
        volume_of: Callable[[int], VolumeState],
        forgotten: Callable[[Node], None],
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._volume_of = volume_of
        self._forgotten = forgotten
        self._by_number: WeakValueDictionary[int, Node] = WeakValueDictionary()
        self._recent: OrderedDict[int, Node] = OrderedDict()
        self._doubts: dict[int, frozenset[int]] = {}  # by realm: users who logged in or out in this run

    # -- finding ---------------------------------------------------------------------------------------------

    def get(self, volume: VolumeState, fid: Fid) -> Node:
        """Return the node of a fid: from memory, from the cache, or new and empty (a runt)."""
        node = volume.nodes.get(fid[1:])
        if node is None:
            row = self._cache.objects.find(volume.realm_id, fid)
            node = Node(volume, fid, self.number(volume, fid) if row is None else row.number)
            if row is not None:
                self._fill(node, row)
            self.enter(node)
        return node

    def by_number(self, number: int) -> Node:
        """Return the node of an inode number. Raises CodaError ENOENT if no object ever had it."""
        node = self._by_number.get(number)
        if node is not None:
            return node
        identity = self._cache.inodes.identity(number)
        if identity is None:
            raise CodaError(Code.ENOENT, f"inode {number}")
        realm, fid = identity
        return self.get(self._volume_of(realm << 32 | fid.volume), fid)

    def in_memory(self, number: int) -> Node | None:
        """Return the node of an inode number if it is in memory."""
        return self._by_number.get(number)

    def cached_children(self, parent: Node, *, after: int = 0, limit: int = -1) -> Iterator[Node]:
        """Yield the nodes of the cached objects last found in a directory, in the order of their numbers.

        Only those with numbers greater than `after`, at most `limit` (-1: all). Reading a row costs far more
        than finding a node in memory, so only what is not there is read.
        """
        for number in self._cache.objects.children(parent.ino, after=after, limit=limit):
            node = self._by_number.get(number) or self._from_row(number)
            if node is not None:
                yield node

    def cached(self, number: int) -> Node | None:
        """Return the node of a cached object; None if it is not cached (any more)."""
        return self._by_number.get(number) or self._from_row(number)

    def _from_row(self, number: int) -> Node | None:
        row = self._cache.objects.load(number)
        if row is None:
            return None
        volume = self._volume_of(row.realm << 32 | row.fid.volume)
        node = volume.nodes.get(row.fid[1:])
        if node is None:
            node = Node(volume, row.fid, row.number)
            self._fill(node, row)
            self.enter(node)
        return node

    def number(self, volume: VolumeState, fid: Fid) -> int:
        """Return the inode number of a fid, giving it one if it has none."""
        known = self._cache.inodes.find(volume.realm_id, fid)
        if known is None:
            with self._cache.transaction():
                known = self._cache.inodes.number(volume.realm_id, fid)
        return known

    def _fill(self, node: Node, row: ObjectRow) -> None:
        node.status = row.status
        node.rights = dict(row.rights)
        node.doubted = self._doubts.get(node.volume.realm_id, frozenset())
        node.parent = row.parent
        node.name = row.name
        node.link = row.link
        node.container = row.container
        node.stored = True
        node.dirty = bool(row.flags & Flags.DIRTY)
        node.conflict = bool(row.flags & Flags.CONFLICT)

    # -- memory ----------------------------------------------------------------------------------------------

    def enter(self, node: Node) -> None:
        """Put a node into the tables."""
        node.volume.nodes[node.fid[1:]] = node
        self._by_number[node.ino] = node
        self.touch(node)

    def touch(self, node: Node) -> None:
        """Note a use. The nodes used longest ago are let go when there are too many."""
        if node.stored and waited_for():
            self._cache.objects.touch(node.ino)
        if node.ino in self._recent:
            self._recent.move_to_end(node.ino)
            return
        self._recent[node.ino] = node
        while len(self._recent) > self._limit:
            _, oldest = self._recent.popitem(last=False)
            self._forgotten(oldest)

    def leave(self, node: Node) -> None:
        """Take a node out of the tables; who has it open keeps it."""
        node.gone = True
        if node.volume.nodes.get(node.fid[1:]) is node:
            del node.volume.nodes[node.fid[1:]]
        self._recent.pop(node.ino, None)
        if not node.open:
            self._by_number.pop(node.ino, None)

    def evicted(self, node: Node) -> None:
        """Note that the cache has let go of an object. Who is at work with it brings it here again."""
        node.stored = False
        node.container = node.link = node.directory = None
        node.promise = node.said = None
        node.stale = node.status is not None
        node.edition += 1
        node.version += 1
        self._recent.pop(node.ino, None)

    def doubt(self, realm: int, uid: int) -> None:
        """Have a user's rights in a realm asked again, of nodes in memory and of those still on the disk."""
        self._doubts[realm] = self._doubts.get(realm, frozenset()) | {uid}
        for node in list(self._by_number.values()):
            if node.volume.realm_id == realm:
                node.doubted |= {uid}

    def forget_rights(self, realm: int, uid: int) -> None:
        """Forget what a user may do in a realm, here and on the disk: he has logged out."""
        with self._cache.transaction():
            self._cache.objects.forget_rights(realm, uid)
        for node in list(self._by_number.values()):
            if node.volume.realm_id == realm:
                node.rights.pop(uid, None)

    def come_back(self, node: Node) -> None:
        """Undo `leave`: the removal was rolled back."""
        node.gone = False
        self.enter(node)

    # -- the disk; inside a transaction ----------------------------------------------------------------

    def save(self, node: Node) -> None:
        """Write what the node knows of itself, but contents and directory pages."""
        if node.gone:
            return
        if node.stored:
            self._cache.objects.update(
                node.ino,
                status=node.status,
                rights=node.rights,
                link=node.link,
                parent=node.parent,
                name=node.name,
            )
            return
        row = ObjectRow(
            node.ino,
            node.volume.realm_id,
            node.fid,
            parent=node.parent,
            name=node.name,
            status=node.status,
            rights=node.rights,
            link=node.link,
        )
        self._cache.objects.add(row)
        if waited_for():
            self._cache.objects.touch(node.ino)  # else the newest would be the first to be replaced
        node.stored = True
        self._cache.on_rollback(lambda: setattr(node, "stored", False))

    def change_status(self, node: Node, **fields: object) -> None:
        """Change fields of the status, in memory and on disk."""
        before = node.status
        if before is None:
            raise CodaError(Code.EIO, f"{node.label} has no status to change")
        node.status = replace(before, **fields)  # type: ignore[arg-type]  # callers name fields of Status
        self._cache.on_rollback(lambda: setattr(node, "status", before))
        node.edition += 1
        self.save(node)

    def save_directory(self, node: Node, directory: Directory) -> None:
        """Write the pages of a directory that were edited; memory forgets the edit if it is rolled back."""
        self._cache.on_rollback(node.forget_directory)
        self._cache.directories.write(node.ino, directory.take_dirty())

    def cleaned(self, numbers: Iterable[int]) -> None:
        """Note that no log record is about these objects any more. Those that were removed go now."""
        for number in numbers:
            node = self._by_number.get(number)
            if node is not None and node.dirty:
                node.dirty = False
                self._cache.on_rollback(node.mark_dirty)
            row = self._cache.objects.load(number)
            if row is not None and row.status is not None and row.status.links == 0:
                self._cache.objects.drop(number)

    def drop(self, node: Node) -> None:
        """Forget an object: it is gone from the servers, or makes room. Its number stays."""
        if node.stored:
            self._cache.objects.drop(node.ino)
            node.stored = False
            self._cache.on_rollback(lambda: setattr(node, "stored", True))

    def drop_data(self, node: Node) -> None:
        """Forget contents, directory or link text; the status stays.

        Whoever fills or reads the open container goes on with it, but it is not the object's any more.
        """
        node.version += 1
        node.directory = None
        if node.stored:
            self._cache.objects.attach(node.ino, None)
            self._cache.directories.drop(node.ino)
            self._cache.objects.update(node.ino, link=None)
        self._cache.on_rollback(partial(node.hold, node.container, node.link))
        node.container = node.link = None
        if node.content is not None:
            self._cache.on_rollback(partial(node.hold_open, node.content))
            self._cache.on_commit(node.content.close)
            node.content = None

    def drop_other_data(self, node: Node, content: Container) -> None:
        """Forget the contents of an older version, while `content` is filled with those of a new one."""
        node.version += 1
        if node.container not in (None, content.id):
            self._cache.objects.attach(node.ino, None)
            self._cache.on_rollback(partial(node.hold, node.container, node.link))
            node.container = None

    def take_version(self, node: Node, status: Status) -> None:
        """Take in a status, and let go of the data if it is of another version: one step (node.py).

        For a file that somebody has open call `Core.replaced_elsewhere` before.
        """
        if not node.same_version(status.vv):
            self.drop_data(node)
        self._cache.on_rollback(partial(node.return_to, node.status))
        node.status = status
        node.promise = node.said = None
        node.edition += 1
        self.save(node)

    def retire(self, node: Node) -> Node:
        """Give the fid of a node that is open a new number and a new node; the old one keeps what it has."""
        fresh = Node(node.volume, node.fid, self._cache.inodes.retire(node.ino))
        if node.stored:
            self._cache.objects.renumber(node.ino, fresh.ino)
            node.stored, fresh.stored = False, True
        fresh.parent, fresh.name = node.parent, node.name
        fresh.rights, fresh.doubted = dict(node.rights), node.doubted
        node.replaced = True
        self.leave(node)
        self._by_number[node.ino] = node
        self.enter(fresh)
        return fresh

    def translate(self, node: Node, fid: Fid) -> None:
        """Let a node mean its real fid from now on (reintegration.md §6). Its number stays."""
        self._cache.inodes.translate(node.ino, fid)
        self.rename(node, fid)

    def rename(self, node: Node, fid: Fid) -> None:
        """Let memory know a node by another fid."""
        node.volume.nodes.pop(node.fid[1:], None)
        node.fid = fid
        node.volume.nodes[fid[1:]] = node
