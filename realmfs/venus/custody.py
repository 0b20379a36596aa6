"""The cache in a person's hands: what is in it, how full it is, dropping things, another size."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import trio

from realmfs.cache.limits import Limits
from realmfs.cache.objects import KEEP, ObjectRow
from realmfs.cache.replacement import BATCH, Evicted, Victim
from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.venus.resolve import may_be_mount_link
from realmfs.vice.errors import CodaError, Code

SLICE = 200


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was dropped, and how many objects were not: changed here, or open."""

    objects: int
    bytes: int
    kept: int


@dataclass(frozen=True, slots=True)
class Fullness:
    """How full the cache is of hoarded objects."""

    objects: int
    bytes: int


class Custody:
    """What people may do to the cache."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def numbers(self, volume: int | None = None, after: int = 0) -> AsyncGenerator[int, None]:
        """Yield the numbers of cached objects behind `after` in order, of one volume (its key) or all."""
        objects = self._core.cache.objects
        while rows := objects.hoard_after(after, SLICE * 5):
            first, after = after, rows[-1][0]
            own = (number for number, _ in rows)
            for number in own if volume is None else objects.of_volume_within(volume, first, after):
                yield number
            await trio.lowlevel.checkpoint()

    def type_of(self, node: Node) -> str:
        """Name the type of an object; a mount link is one of its own."""
        if may_be_mount_link(node):
            return "mount"
        return {"DIRECTORY": "directory", "SYMLINK": "link"}.get(node.type.name, "file")

    def priority(self, row: ObjectRow) -> int:
        """Return the priority of replacement."""
        return self._core.cache.replacement.priority(row.hoard, row.tick)

    async def hoarded(self) -> Fullness:
        """Count what has a hoard priority."""
        objects, size, last = 0, 0, 0
        while rows := self._core.cache.objects.hoard_after(last, SLICE * 5):
            for number, hoard in rows:
                if hoard:
                    objects += 1
                    size += self._core.cache.objects.bytes_of(number)
            last = rows[-1][0]
            await trio.lowlevel.checkpoint()
        return Fullness(objects, size)

    async def drop(self, node: Node) -> Dropped:
        """Drop an object with all that is cached below it. Raises CodaError EMFILE if any of it is in use."""
        numbers = list(self._subtree(node.ino))
        if any(self._in_use(number) for number in numbers):
            text = "something there has been changed here, or is open"
            raise CodaError(Code.EMFILE, text)
        return await self._drop(numbers)

    async def drop_all(self) -> Dropped:
        """Drop everything that is neither changed here nor open."""
        numbers = [number async for number in self.numbers()]
        return await self._drop(list(reversed(numbers)))

    def _subtree(self, number: int) -> Iterator[int]:
        """Yield the cached objects below one, the innermost first, then itself."""
        for child in self._core.cache.objects.children(number):
            if child != number:
                yield from self._subtree(child)
        yield number

    def _in_use(self, number: int) -> bool:
        row = self._core.cache.objects.load(number)
        if row is None:
            return False
        node = self._core.nodes.in_memory(number)
        open_ = node is not None and (node.open or node.content is not None)
        return bool(row.flags & KEEP) or open_

    async def _drop(self, numbers: list[int]) -> Dropped:
        objects = size = kept = 0
        for start in range(0, len(numbers), BATCH):
            gone = Evicted()
            with self._core.cache.transaction():
                for number in numbers[start : start + BATCH]:
                    if self._in_use(number):
                        kept += 1
                    elif (row := self._core.cache.objects.load(number)) is not None:
                        held = self._core.cache.objects.bytes_of(number)
                        self._core.cache.objects.drop(number)
                        gone.objects.append(number)
                        gone.victims[number] = Victim(0, number, held, row.name)
                        size += held
            self._core.evicted(gone)
            objects += len(gone.objects)
            await trio.lowlevel.checkpoint()
        return Dropped(objects, size, kept)

    async def resize(self, size: int) -> None:
        """Give the cache another size, with the customary number of objects; too much goes at once."""
        old = self._core.cache.limits
        new = Limits.for_size(size, old.reserve)
        log_records = max(new.log_records, self._core.cache.log.count)
        self._core.cache.change_limits(Limits(new.bytes, new.objects, log_records, old.reserve))
        await self._core.trim()
