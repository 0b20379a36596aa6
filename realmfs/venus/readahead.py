"""Bringing ahead what a program that walks through a directory will ask for next.

When the questions for entries come in an order (`ahead.Walk`), their status is brought ahead, several at
once; when small files are opened one after the other, their contents as well: a file of which nothing is
known yet is fetched in one round with its status. Nobody asked for these, so there are bounds: on how much
is under way, and on the size; a file that turns out to be large is given up.
"""

import functools
from collections import deque
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from realmfs.venus.ahead import Walk
from realmfs.venus.core import Core
from realmfs.venus.fetch import Fetcher
from realmfs.venus.listing import DOTS
from realmfs.venus.node import Node
from realmfs.venus.validity import Validator
from realmfs.vice.types import Fid, ObjectType


class ReadAhead:
    """Brings status and small files ahead of programs that walk through a directory."""

    def __init__(self, core: Core, validator: Validator, fetcher: Fetcher) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher
        self._looks: WeakKeyDictionary[Node, Walk] = WeakKeyDictionary()
        self._reads: WeakKeyDictionary[Node, Walk] = WeakKeyDictionary()
        self._waiting: deque[tuple[Node, int, bool]] = deque(maxlen=4 * core.settings.status_ahead)
        self._flying = 0
        # What nobody asked for may take an eighth of the cache while it is on its way.
        affordable = core.cache.limits.bytes // 8 // core.settings.data_ahead_size
        self._data_limit = min(core.settings.data_ahead, affordable)

    def looked_up(self, parent: Node, name: bytes, uid: int) -> None:
        """Note that a name was looked up; bring the status of the next ones."""
        reads = self._reads.get(parent)
        if reads is not None and reads.in_order:
            return  # their status comes along with their contents
        self._note(self._looks, parent, name, uid, self._core.settings.status_ahead, data=False)

    def opened(self, node: Node, uid: int) -> None:
        """Note that a file was opened for reading; if it was a small one, bring the next ones whole."""
        parent = self._core.nodes.in_memory(node.parent)
        if parent is None or node.status is None or node.status.length > self._core.settings.data_ahead_size:
            return
        if self._data_limit:
            self._note(self._reads, parent, node.name, uid, self._data_limit, data=True)

    def _note(
        self,
        walks: WeakKeyDictionary[Node, Walk],
        parent: Node,
        name: bytes,
        uid: int,
        limit: int,
        *,
        data: bool,
    ) -> None:
        directory = parent.directory
        if directory is None or name not in directory or not parent.volume.reachable:
            return
        walk = walks.get(parent)
        if walk is None or (not walk.knows(name) and len(directory) > 2 * walk.size):
            # Making a walk costs as much as a listing; one that grows is not made anew for each new name.
            walk = walks[parent] = Walk(name for name in directory.names() if name not in DOTS)
        for following in walk.used(name, limit):
            found = directory.lookup(following)
            if found is None:
                continue
            node = self._core.nodes.get(parent.volume, Fid(parent.volume.id, *found))
            if not node.name:
                node.parent, node.name = parent.ino, following
            self._waiting.append((node, uid, data))
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._flying < self._core.settings.status_ahead:
            node, uid, data = self._waiting.popleft()
            if data and self._wants_data(node):
                self._start(node, uid, self._data)
            elif not node.valid and not node.gone:
                self._start(node, uid, self._status)

    def _start(self, node: Node, uid: int, bring: Callable[[Node, int], Awaitable[None]]) -> None:
        key = ("ahead", node.ino, bring)
        if not self._core.flights.flying(key):  # else it would be counted twice and land once
            self._flying += 1
            self._core.flights.start(key, functools.partial(bring, node, uid))

    def _wants_data(self, node: Node) -> bool:
        if (
            node.is_directory
            or node.container is not None
            or node.ours
            or node.gone
            or node.content is not None
        ):
            return False
        if node.status is None:
            return True
        small = node.status.length <= self._core.settings.data_ahead_size
        return small and node.valid and node.type is ObjectType.FILE

    async def _status(self, node: Node, uid: int) -> None:
        try:
            await self._validator.status(node, uid)
        finally:
            self._landed()

    async def _data(self, node: Node, uid: int) -> None:
        try:
            await self._fetcher.ahead(node, uid)
        finally:
            self._landed()

    def _landed(self) -> None:
        self._flying -= 1
        self._pump()
