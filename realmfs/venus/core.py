"""What all parts of the cache manager share: the tables, the disk, the servers, what the kernel is told."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from time import time

import trio

from realmfs.cache.cache import Cache
from realmfs.cache.errors import CacheFull
from realmfs.cache.inodes import ROOT_NUMBER
from realmfs.cache.replacement import Evicted, Victim
from realmfs.realms.group import Group
from realmfs.realms.types import ANYUSER
from realmfs.venus.authors import Authors
from realmfs.venus.conflicts import Conflicts
from realmfs.venus.errand import urgency, waited_for
from realmfs.venus.events import CallMade, Conflict, ConflictSettled, EventStream, Replaced
from realmfs.venus.face import KernelNotifier
from realmfs.venus.flights import Flights
from realmfs.venus.node import Node
from realmfs.venus.nodes import Nodes
from realmfs.venus.settings import VenusSettings
from realmfs.venus.volume import TOP_REALM, TOP_VOLUME, VolumeState
from realmfs.venus.volumes import Volumes
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Rights, Status, VersionVector

log = logging.getLogger(__name__)

UNFOUND = 15.0  # seconds for which a volume that nobody could locate is served from the cache, unasked


class Core:
    """One per cache manager. `kernel` is None without a mount."""

    def __init__(self, cache: Cache, settings: VenusSettings) -> None:
        self.cache = cache
        self.settings = settings
        self.events = EventStream()
        self.flights = Flights()
        self.volumes = Volumes(cache)
        self.authors = Authors(cache, self.volumes, self.events, settings.patience)
        self.nodes = Nodes(cache, settings.objects_in_memory, self.volumes.by_key, self._left_memory)
        self.busy = Busy(self.nodes)
        self.kernel: KernelNotifier | None = None
        self.top = self._make_top()
        self.conflicts = Conflicts(self.nodes, cache)
        self.shrunk = trio.lowlevel.ParkingLot()  # who waits for pending changes to be taken by servers
        self.unblocked: Callable[[VolumeState], None] = lambda volume: None  # what waited may be sent again
        self.logged: Callable[[VolumeState], None] = lambda volume: None  # told of every new record

    def _make_top(self) -> Node:
        """Make `/coda`: a directory nobody can change, in a volume no server has (directories.md §4.3)."""
        volume = VolumeState(0, TOP_REALM, TOP_VOLUME, "")
        top = Node(volume, volume.root, ROOT_NUMBER)
        rights = int(Rights.LOOKUP | Rights.READ)
        top.status = Status(
            ObjectType.DIRECTORY, 2, 2048, 1, VersionVector(), 0, 0, 0, False, rights, rights, 0o555, (0, 0)
        )
        top.rights[ANYUSER] = rights
        self.nodes.enter(top)
        return top

    # -- the servers -----------------------------------------------------------------------------------------

    async def enter(self, volume: VolumeState) -> None:
        """See to it that we know where a volume lives. Raises CodaError ETIMEDOUT if nobody can tell."""
        if volume.place is not None or not volume.key:
            return
        if volume.away:
            raise CodaError(Code.ETIMEDOUT, f"nobody could tell just now where {volume.name} lives")
        await self.flights.join(("place", volume.key), lambda: self._locate(volume))

    async def _locate(self, volume: VolumeState) -> None:
        try:
            await self.volumes.locate(volume)
        except CodaError as error:
            if error.code is Code.ETIMEDOUT:
                volume.unfound_until = trio.current_time() + UNFOUND
            raise

    def group(self, volume: VolumeState) -> Group:
        """Return the servers of a volume that has been entered. Raises CodaError ETIMEDOUT otherwise."""
        if volume.place is None:
            raise CodaError(Code.ETIMEDOUT, f"{volume.name}@{volume.realm} has not been located")
        return volume.place.group

    def all_own(self, volume: VolumeState) -> bool:
        """Tell whether all servers of a volume are realmfs's own, without the habits of reference servers."""
        told = self.settings.own_servers
        return self.group(volume).ours if told is None else told

    def any_own(self, volume: VolumeState) -> bool:
        """Tell whether a server of a volume is realmfs's own, as far as they were met."""
        told = self.settings.own_servers
        return any(server.ours for server in self.group(volume).servers_up) if told is None else told

    @contextmanager
    def call(self, name: str, what: str) -> Iterator[None]:
        """Publish that a call begins, and that it has ended."""
        if not self.events.watched:
            yield
            return
        self.events.publish(CallMade(name, what))
        try:
            yield
        finally:
            self.events.publish(CallMade(name, what, done=True))

    def now(self) -> float:
        """Return the time of day in Unix seconds, by which records and files are dated."""
        return time()

    # -- room ------------------------------------------------------------------------------------------------

    async def room(self, *, size: int = 0, objects: int = 0, records: int = 0) -> None:
        """Make room in the cache and the log.

        What pending changes hold comes free as servers take them, so a full cache waits for that, most of
        the patience. Raises CacheFull (ENOSPC) when that does not help (promise 2 of the design); a log that
        stays full is refused by `append`, if the change then needs a record at all. An errand does not wait,
        and replaces only what is less important than what it brings.
        """
        if not waited_for():
            await self._replace(size, objects)
            return
        if not await self._full(size, objects, records):
            return
        with trio.move_on_after(self.settings.patience * 0.8):
            while self._may_shrink():
                await self.shrunk.park()
                if not await self._full(size, objects, records):
                    return
        if not self.cache.replacement.fits(size=size, objects=objects):
            await self._replace(size, objects)

    async def _full(self, size: int, objects: int, records: int) -> bool:
        if self.cache.log.count + records > self.cache.limits.log_records:
            return True
        if self.cache.replacement.fits(size=size, objects=objects):
            return False
        try:
            await self._replace(size, objects)
        except CacheFull:
            return True
        return False

    async def _replace(self, size: int, objects: int) -> None:
        """Replace what is less important, a batch at a time. Raises CacheFull."""
        while True:
            evicted = self.cache.replacement.make_room(
                size=size, objects=objects, priority=urgency(), busy=self.busy
            )
            self.evicted(evicted)
            if not evicted.more:
                return
            await trio.lowlevel.checkpoint()

    def place(self, node: Node) -> None:
        """Make room for an object about to be entered, without waiting: many answers may come at once.

        Raises CacheFull.
        """
        if not node.stored:
            self.make_room(objects=1)

    def make_room(self, size: int = 0, *, objects: int = 0) -> None:
        """Make a little room without waiting. Raises CacheFull."""
        evicted = self.cache.replacement.make_room(
            size=size, objects=objects, priority=urgency(), busy=self.busy
        )
        self.evicted(evicted)

    def _may_shrink(self) -> bool:
        """Tell whether any waiting change is being sent."""
        volumes = (self.volumes.by_key(key) for key in self.cache.log.volumes())
        return any(volume.reachable and not volume.waiting_for for volume in volumes)

    async def trim(self) -> None:
        """Free the margins of the cache again; on a full disk also what the reserve lacks.

        Files go from the disk some seconds after they went from the cache, so of the latter one step is made.
        """
        shortage = self.cache.shortage()
        more = True
        while more:
            evicted = self.cache.replacement.trim(self.busy, shortage)
            self.evicted(evicted)
            more = evicted.more or bool(shortage)
            shortage = 0
            await trio.lowlevel.checkpoint()

    def evicted(self, evicted: Evicted) -> None:
        """Tell what the cache has thrown away, and let memory follow."""
        for number in evicted.data:
            self._tell_replaced("data", evicted.victims[number])
            node = self.nodes.in_memory(number)
            if node is not None:
                node.container = None
        for number in evicted.objects:
            self._tell_replaced("status/data", evicted.victims[number])
            node = self.nodes.in_memory(number)
            if node is not None:
                self.kernel_forget(node)
                self.nodes.evicted(node)

    def _tell_replaced(self, what: str, victim: Victim) -> None:
        if not self.events.watched:
            return
        label = victim.name.decode("utf-8", "replace")
        if not label and (identity := self.cache.inodes.identity(victim.number)) is not None:
            label = str(identity[1])
        self.events.publish(Replaced(what, label, (victim.size + 1023) // 1024))

    # -- neighbours ------------------------------------------------------------------------------------------

    def siblings(self, node: Node, limit: int) -> Iterator[Node]:
        """Yield objects that will likely be wanted next: its own children, and the next in its directory.

        The next are those that came into the cache after it, then from the first one on.
        """
        if node.is_directory:
            yield from self.nodes.cached_children(node, limit=limit)
        parent = self.nodes.in_memory(node.parent)
        if parent is not None and not node.fid.is_root:
            yield from self.nodes.cached_children(parent, after=node.ino, limit=limit)
            first = self.nodes.cached_children(parent, limit=limit)
            yield from takewhile(lambda other: other.ino < node.ino, first)

    # -- what becomes of objects -----------------------------------------------------------------------

    def vanish(self, node: Node) -> None:
        """The servers do not have the object any more."""
        with self.cache.transaction():
            self.nodes.drop(node)
        self.kernel_forget(node)
        self.nodes.leave(node)
        parent = self.nodes.in_memory(node.parent)
        if parent is not None and not parent.dirty:
            parent.promise = None

    def in_conflict(self, node: Node) -> None:
        """The servers cannot agree on the object: from now on its name leads to its versions."""
        node.conflict = True
        node.promise = None
        self.conflicts.diverged(node)
        self.kernel_forget(node)
        self.kernel_forget_name(node.parent, node.name)
        self.events.publish(Conflict(self.path(node), str(node.fid), local=False))

    def refused(self, node: Node, code: Code) -> None:
        """The servers refuse a change of the object made here: its name leads to its versions, too."""
        view = self.conflicts.refused(node)
        if view is not None:
            self.kernel_forget(node)
            self._shown_otherwise(view)
        log.info("%s: the servers refuse a change: %s", self.path(node), code.name)
        self.events.publish(Conflict(self.path(node), str(node.fid), local=True))

    def _shown_otherwise(self, view: Node) -> None:
        """A name leads to another object than before, or is there at all for being in conflict."""
        self.kernel_forget_name(view.parent, view.name)
        above = self.nodes.in_memory(view.parent)
        if above is not None:
            above.edition += 1  # what the kernel has listed is not what there is

    def settled(self, node: Node, how: str) -> None:
        """A conflict is over, or one kind of it: the name means the object again once none is left."""
        view = self.conflicts.settled(node)
        if view is not None:
            self.kernel_forget(view)
            self._shown_otherwise(view)
        self.kernel_forget(node)
        self.kernel_forget_name(node.parent, node.name)
        self.events.publish(ConflictSettled(self.path(node), str(node.fid), how))
        self.unblocked(node.volume)

    def replaced_elsewhere(self, node: Node) -> Node:
        """Forget our data: the servers have another version. Inside a transaction; returns the fid's node.

        Whoever has the old version open keeps it under the old inode number (design, row "inodes").
        """
        self.kernel_forget(node, pages=True)
        if node.open and not node.is_directory:
            return self.nodes.retire(node)
        self.nodes.drop_data(node)
        return node

    # -- the kernel ------------------------------------------------------------------------------------------

    def kernel_forget(self, node: Node, *, pages: bool = False) -> None:
        """Tell the kernel that what it remembers of a node may be wrong: attributes, names, perhaps pages."""
        kernel = self.kernel
        if kernel is None or not (node.lookups or node.kernel_names):
            return
        if node.lookups:
            kernel.invalidate_inode(node.ino, attr_only=not pages)
            self.kernel_forget_name(node.parent, node.name)
        for name in node.kernel_names:
            kernel.invalidate_entry(node.ino, name)
        node.kernel_names.clear()

    def kernel_forget_name(self, parent: int, name: bytes) -> None:
        """Tell the kernel to look a name up again."""
        if self.kernel is not None and parent and name:
            self.kernel.invalidate_entry(parent, name)

    def _left_memory(self, node: Node) -> None:
        self.kernel_forget(node)

    # -- paths -----------------------------------------------------------------------------------------------

    def path(self, node: Node) -> str:
        """Return the path below the mount as far as it is known, for people; not for looking anything up."""
        parts: list[str] = []
        while node is not self.top and len(parts) < 256:
            parts.append(node.label)
            above = self.above(node)
            if above is None:
                break
            node = above
        return "/" + "/".join(reversed(parts))

    def above(self, node: Node) -> Node | None:
        """Return the directory that holds a node; above the root of a volume is where it is mounted."""
        if node.fid.is_root:
            mounted = node.volume.mounted_on
            return mounted[0] if mounted else None
        return self.nodes.by_number(node.parent) if node.parent else None


class Busy:
    """The inode numbers that may not be replaced now: open, being fetched, or the root of a volume."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def __contains__(self, number: object) -> bool:
        node = self._nodes.in_memory(number) if isinstance(number, int) else None
        return node is not None and (node.open or node.content is not None or node.fid.is_root)
