"""Bringing ahead what a program that walks through a directory will ask for next.

When the questions for entries come in an order (`ahead.Walk`), their status is brought ahead, several at
once; when small files, or directories, are opened one after the other, their contents as well. Whoever has
listed a directory will ask in order from its first name on, and who has read the files of another one will
read these. Nobody asked for these, so there are bounds: on
how much is under way, on the size, and on what is remembered of walks.

From near servers they come in sweeps (sweeps.py), from far ones each by itself, all at the same time.
"""

import functools
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from realmfs.venus.ahead import Walk
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.fetch import Fetcher
from realmfs.venus.listing import DOTS
from realmfs.venus.node import Node
from realmfs.venus.sweeps import Sweeps
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice.directory import Directory
from realmfs.vice.types import Fid, ObjectType

WALKS = 64
"""Directories of which is remembered how programs go through them."""
NAMES = 200_000
"""Names in all of these together."""
AT_ONCE = 64
"""Objects under way at once."""
CHILDREN = 2000
"""Entries of directories brought ahead that are looked at at once: sixteen directories of some hundred."""
BUDGET = 1 << 20
"""Bytes of contents brought ahead in one directory, as far as the size of the last file tells."""

Bring = Callable[[Sequence[Node], int], Awaitable[None]]


class Portion(NamedTuple):
    """Objects to bring together, and how; `kind` tells apart what may be under way for the same object."""

    kind: str
    bring: Bring
    wants: Callable[[Node], bool]
    nodes: Sequence[Node]
    uid: int


class Walks:
    """The ways programs take, by the number of the directory; the oldest are forgotten."""

    def __init__(self) -> None:
        self._walks: OrderedDict[int, Walk] = OrderedDict()
        self._names = 0

    def known(self, node: Node) -> Walk | None:
        """Return the walk through a directory, if there is one."""
        return self._walks.get(node.ino)

    def through(self, node: Node, directory: Directory, name: bytes) -> Walk:
        """Return the walk through a directory, which has that name."""
        walk = self._walks.get(node.ino)
        if walk is None or (not walk.knows(name) and len(directory) > 2 * walk.size):
            # Making a walk costs as much as a listing; one that grows is not made anew for each new name.
            self._forget(node.ino)
            walk = Walk(each for each in directory.names() if each not in DOTS)
            self._walks[node.ino] = walk
            self._names += walk.size
            while len(self._walks) > 1 and (len(self._walks) > WALKS or self._names > NAMES):
                self._forget(next(iter(self._walks)))
        return walk

    def _forget(self, number: int) -> None:
        walk = self._walks.pop(number, None)
        if walk is not None:
            self._names -= walk.size


def _is_unknown(node: Node) -> bool:
    return node.status is None


def _is_suspect(node: Node) -> bool:
    return node.status is not None and not node.valid


def _remember(numbers: OrderedDict[int, None], number: int) -> None:
    numbers[number] = None
    numbers.move_to_end(number)
    if len(numbers) > WALKS:
        numbers.popitem(last=False)


class ReadAhead:
    """Brings status and small files ahead of programs that walk through a directory."""

    def __init__(self, core: Core, validator: Validator, fetcher: Fetcher) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher
        self._sweeps = Sweeps(core, validator, fetcher)
        self._looks = Walks()
        self._reads = Walks()
        self._listed: OrderedDict[int, None] = OrderedDict()
        self._readers: OrderedDict[int, None] = OrderedDict()
        self._waiting: deque[Portion] = deque(maxlen=4 * core.settings.status_ahead)
        self._flying = 0
        # What nobody asked for may take an eighth of the cache while it is on its way.
        affordable = core.cache.limits.bytes // 8 // core.settings.data_ahead_size
        self._data_limit = min(core.settings.data_ahead, affordable)

    def listed(self, node: Node) -> None:
        """Note that a program has listed a directory to its end."""
        _remember(self._listed, node.ino)

    def looked_up(self, parent: Node, name: bytes, caller: Caller) -> None:
        """Note that a name was looked up; bring the status of the next ones."""
        reads = self._reads.known(parent)
        if reads is not None and reads.in_order:
            return  # their status comes along with their contents
        reader = parent.ino in self._listed and caller.pid in self._readers
        limit = self._data_limit if reader else self._core.settings.status_ahead
        self._note(self._looks, parent, name, caller.uid, limit, data=reader)

    def opened(self, node: Node, caller: Caller) -> None:
        """Note that a small file, or a directory, was opened for reading; bring the next ones whole."""
        parent = self._core.nodes.in_memory(node.parent)
        if parent is None or node.status is None or node.status.length > self._core.settings.data_ahead_size:
            return
        limit = min(self._data_limit, max(BUDGET // max(node.status.length, 1), 2))
        in_order = self._data_limit and self._note(
            self._reads, parent, node.name, caller.uid, limit, data=True
        )
        if in_order and not node.is_directory:
            _remember(self._readers, caller.pid)

    def _note(self, walks: Walks, parent: Node, name: bytes, uid: int, limit: int, *, data: bool) -> bool:
        """Note a step; tell whether it was one of several in order."""
        directory = parent.directory
        if directory is None or not parent.volume.reachable or name not in directory:
            return False
        walk = walks.through(parent, directory, name)
        fresh = walks is self._looks and parent.ino in self._listed
        if fresh:
            del self._listed[parent.ino]
            walk.begin()
        following = walk.used(name, limit)
        if not following:
            return walk.in_order
        names = (name, *following) if fresh else following
        with self._core.cache.transaction():
            nodes = [self._child(parent, directory, each) for each in names]
        self._plan([node for node in nodes if node is not None], parent, uid, data=data)
        self._pump()
        return True

    def _child(self, parent: Node, directory: Directory, name: bytes) -> Node | None:
        found = directory.lookup(name)
        if found is None:
            return None
        node = self._core.nodes.get(parent.volume, Fid(parent.volume.id, *found))
        if not node.name:
            node.parent, node.name = parent.ino, name
        return node

    def _plan(self, nodes: Sequence[Node], parent: Node, uid: int, *, data: bool) -> None:
        """Queue what is to be brought, in portions."""
        whole = [node for node in nodes if data and self._wants_data(node)]
        rest = [node for node in nodes if node not in whole]
        if data:
            self._descend([node for node in rest if node.is_directory], uid)
        # What is only suspect is not brought: the first that is asked for takes fifty along (validity.py).
        runts = [node for node in rest if node.status is None and not node.gone]
        if self._is_near(parent.volume):
            self._queue(
                Portion("sweep", self._whole, self._wants_data, whole, uid), self._core.settings.sweep
            )
        else:
            self._queue(Portion("alone", self._contents, self._wants_data, whole, uid), 1)
        self._queue_status(runts, parent.volume, uid)

    def _queue_status(self, runts: Sequence[Node], volume: VolumeState, uid: int) -> None:
        if self._is_near(volume):
            self._queue(
                Portion("sweep", self._sweeps.status, _is_unknown, runts, uid),
                self._core.settings.validate_batch,
            )
        else:
            self._queue(Portion("alone", self._status, _is_unknown, runts, uid), 1)

    def _is_near(self, volume: VolumeState) -> bool:
        return volume.place is not None and volume.place.group.sweeps

    async def _whole(self, nodes: Sequence[Node], uid: int) -> None:
        """Bring contents, and of what is in directories the status: who walks a tree wants it next."""
        await self._sweeps.contents(nodes, uid)
        self._descend([node for node in nodes if node.is_directory], uid)

    def _descend(self, directories: Sequence[Node], uid: int) -> None:
        """Queue the status of what is in these directories; then they are listed with attributes."""
        room = CHILDREN
        runts: list[Node] = []
        suspects: list[Node] = []
        for node in directories:
            directory = self._fetcher.present(node) if node.valid else None
            if directory is None or len(directory) > room:
                continue
            room -= len(directory)
            for child in self._children(node, directory):
                if not child.valid and not child.gone:
                    (runts if child.status is None else suspects).append(child)
        if directories:
            self._queue_status(runts, directories[0].volume, uid)
            asking = Portion("suspect", self._validator.look_ahead, _is_suspect, suspects, uid)
            self._queue(asking, self._core.settings.validate_batch)

    def _children(self, parent: Node, directory: Directory) -> list[Node]:
        """Return what is in a directory. Those in memory are found quickly: often that is all of them."""
        nodes, found, absent = parent.volume.nodes, [], []
        for name, vnode, unique in directory.items():
            if name in DOTS:
                continue
            child = nodes.get((vnode, unique))
            if child is not None:
                found.append(child)
            else:
                absent.append(name)
        if absent:
            with self._core.cache.transaction():
                children = [self._child(parent, directory, name) for name in absent]
            found += [child for child in children if child is not None]
        return found

    def _queue(self, portion: Portion, size: int) -> None:
        for start in range(0, len(portion.nodes), size):
            self._waiting.append(portion._replace(nodes=portion.nodes[start : start + size]))

    def _pump(self) -> None:
        flights = self._core.flights
        while self._waiting and self._flying < AT_ONCE:
            portion = self._waiting.popleft()
            wanted = {(portion.kind, node.ino): node for node in portion.nodes}
            wanted = {
                key: node
                for key, node in wanted.items()
                if portion.wants(node) and not flights.flying(key)  # queued twice, or come otherwise
            }
            if wanted:
                self._flying += len(wanted)
                portion = portion._replace(nodes=list(wanted.values()))
                flights.start_all(list(wanted), functools.partial(self._bring, portion))

    async def _bring(self, portion: Portion) -> None:
        try:
            await portion.bring(portion.nodes, portion.uid)
        finally:
            self._flying -= len(portion.nodes)
            self._pump()

    def _wants_data(self, node: Node) -> bool:
        if node.ours or node.gone or node.conflict or node.content is not None or node.container is not None:
            return False
        if node.is_directory:
            return node.directory is None and not (node.stored and self._core.cache.directories.has(node.ino))
        if node.status is None:
            return True
        small = node.status.length <= self._core.settings.data_ahead_size
        return small and node.valid and node.type is ObjectType.FILE

    async def _status(self, nodes: Iterable[Node], uid: int) -> None:
        for node in nodes:
            await self._validator.status(node, uid)

    async def _contents(self, nodes: Iterable[Node], uid: int) -> None:
        for node in nodes:
            if node.is_directory:
                await self._fetcher.directory(node, uid)
            else:
                await self._fetcher.ahead(node, uid)
