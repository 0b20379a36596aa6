"""Who has to go when the cache is full.

The priority of an object is 25·s + 75·h: h its hoard priority (0..1000), s its recency (0..1000): 0 if it
was never referred to, else 1000 − rank, where the rank grows with the references to other objects since its
last one and reaches 999 after four times the cache's number of objects (the formula that client.md §6 calls
intended).

Within one hoard priority the order by priority is the order by tick, which an index gives. There are few
different hoard priorities, so the lowest of all come from merging one stream for each: no search goes past
the victims and the busy ones among them. A stream reads a page of rows at a time, from behind the last one
on, so no query stays open and whoever goes through many of them may pause in between.

Much is not replaced in one go: a transaction takes `BATCH` victims at most (some 20 ms), and tells if it must
be asked again. Whoever waits for the room pauses in between, so that 100 000 objects stop nobody.

Never replaced: dirty, local and conflicting objects (they are not in the index), what is open or pinned
(`busy`, from venus), mount points, runts, directories with cached children: trees shrink from the leaves.
Contents go alone where bytes are wanted; their status stays.
"""

import heapq
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from realmfs.cache.containers import Containers
from realmfs.cache.database import Database
from realmfs.cache.errors import CacheFull
from realmfs.cache.limits import MARGIN, Limits
from realmfs.cache.objects import Objects

MAXIMUM: Final = 100_000
"""The highest priority; a request with it may replace anything that can be replaced."""
STANDARD: Final = 62_500
"""Priority of requests by users."""
MARGINAL: Final = 25_000
"""Requests from this priority on may use the margin."""
_SHORT_TERM: Final = 25
_MEDIUM_TERM: Final = 75
_SPREAD: Final = 4  # times the number of objects: references until an object counts as never referred to
BATCH: Final = 256
"""Most victims of one transaction."""
_PAGES: Final = (8, 64, 512)  # rows that a stream reads at once: few are wanted as a rule, sometimes many


_FROM = (
    "SELECT o.tick, o.number, coalesce(c.bytes, 0), o.name FROM object AS o INDEXED BY {index}"
    " LEFT JOIN container AS c ON c.id = o.container"
    " WHERE o.hoard = ?1 AND (o.tick, o.number) > (?2, ?3) AND o.flags & 7 = 0"
    " AND coalesce(c.writing, 0) = 0 AND {also} ORDER BY o.tick, o.number LIMIT ?4"
)
_DATA: Final = _FROM.format(index="object_idle_data", also="o.container IS NOT NULL")
_FILES: Final = _FROM.format(index="object_idle_data", also="o.container IS NOT NULL AND c.data IS NULL")
"""Contents that give room back to the disk: what goes from the database only makes room in that."""
_LEAVES: Final = _FROM.format(
    index="object_idle",
    also="o.mount = 0 AND o.status IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM object AS k WHERE k.parent = o.number)",
)
"""Whole objects that may go; mount points, runts and directories with cached children may not."""


class Victim(NamedTuple):
    """What may be replaced."""

    priority: int
    number: int
    size: int
    """Bytes of its contents that are here."""
    name: bytes
    """The last name it was seen under."""


@dataclass(slots=True)
class Evicted:
    """Inode numbers of what went: contents only, or whole objects (which have no row any more)."""

    data: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    more: bool = False
    """There is not room enough yet: ask again, after a pause."""
    victims: dict[int, Victim] = field(default_factory=dict)
    """What there is to tell of each."""


class Replacement:
    """Makes room, within the limits."""

    def __init__(self, database: Database, limits: Limits, objects: Objects, containers: Containers) -> None:
        self._database = database
        self._limits = limits
        self._objects = objects
        self._containers = containers

    def priority(self, hoard: int, tick: int) -> int:
        """Return the priority of an object by its hoard priority and the tick of its last reference."""
        recency = 0
        if tick:
            spread = max(0, self._objects.tick - tick)
            recency = 1000 - min(999, spread * 1000 // (_SPREAD * self._limits.objects))
        return _SHORT_TERM * recency + _MEDIUM_TERM * hoard

    def make_room(
        self, *, size: int = 0, objects: int = 0, priority: int = STANDARD, busy: Container[int] = frozenset()
    ) -> Evicted:
        """See to it that `size` bytes and `objects` rows fit, replacing what has lower priority.

        At most `BATCH` victims go; `more` tells that the room is not there yet. CacheFull if there is not
        enough that could go; then nothing has been replaced by this call. Joins the open transaction if
        there is one.
        """
        if self.fits(size=size, objects=objects, priority=priority):
            if self._objects.ticks_to_flush:
                with self._database.transaction():
                    self._objects.flush_ticks()
            return Evicted()
        with self._database.transaction():
            self._objects.flush_ticks()
            excess = self._excess(size, objects, priority)
            plan = self._plan(excess, _below(priority), busy)
            if plan.short:
                raise CacheFull(f"the cache is full: {plan.short}")
            return self._carry_out(plan)

    def trim(self, busy: Container[int] = frozenset(), disk: int = 0) -> Evicted:
        """Free the margins again, as far as that is possible; `more` tells to go on after a pause.

        For a daemon, every 30 s, and after the limits were lowered; it also writes the recency. `disk` is how
        many bytes the disk lacks: for them goes only what would make room for a file that is opened.
        """
        with self._database.transaction():
            self._objects.flush_ticks()
            if disk > 0:
                return self._carry_out(self._plan((disk, 0), _below(STANDARD), busy, data=_FILES))
            return self._carry_out(self._plan(self._excess(0, 0, 0), MAXIMUM + 1, busy))

    def change_limits(self, limits: Limits) -> None:
        """Obey other limits from now on; `trim` brings the cache within them."""
        self._limits = limits

    def candidates(self, below: int = MAXIMUM, busy: Container[int] = frozenset()) -> Iterator[Victim]:
        """Yield whose contents would go, the first to go first, up to priority `below`.

        Pause as you like in between.
        """
        with self._database.transaction():
            self._objects.flush_ticks()
        return self._victims(_DATA, below, busy)

    def fits(self, *, size: int = 0, objects: int = 0, priority: int = STANDARD) -> bool:
        """Would the request fit as things are?"""
        return max(self._excess(size, objects, priority)) <= 0

    def _excess(self, size: int, objects: int, priority: int) -> tuple[int, int]:
        """Return how many bytes and objects would be over the limit.

        That of small priorities ends at the margin.
        """
        limit_bytes, limit_objects = self._limits.bytes, self._limits.objects
        if priority < MARGINAL:
            limit_bytes -= limit_bytes // MARGIN
            limit_objects -= limit_objects // MARGIN
        return self._containers.used + size - limit_bytes, self._objects.count + objects - limit_objects

    # -- choosing ----------------------------------------------------------------------------------------

    def _plan(self, excess: tuple[int, int], below: int, busy: Container[int], data: str = _DATA) -> "_Plan":
        """Choose what to replace to get rid of an excess of (bytes, objects), at most `BATCH` victims."""
        plan = _Plan()
        size, count = excess
        if count > 0:
            for victim in self._victims(_LEAVES, below, busy):
                plan.objects.append(victim.number)
                plan.victims[victim.number] = victim
                size -= victim.size
                if len(plan.objects) in (count, BATCH):
                    plan.more = len(plan.objects) < count
                    break
            else:
                plan.short = f"{count - len(plan.objects)} objects too many are in use"
        if size > 0 and not plan.more:
            chosen = set(plan.objects)
            for victim in self._victims(data, below, busy):
                if victim.number in chosen:
                    continue
                plan.data.append(victim.number)
                plan.victims[victim.number] = victim
                size -= victim.size
                if size <= 0 or len(plan.data) == BATCH:
                    plan.more = size > 0
                    break
            else:
                plan.short = f"{size} bytes too many are in use"
        return plan

    def _victims(self, query: str, below: int, busy: Container[int]) -> Iterator[Victim]:
        """Yield what may be replaced, from the lowest priority up to `below`."""
        streams = [self._stream(query, hoard) for hoard in self._hoard_priorities()]
        for victim in heapq.merge(*streams, key=lambda one: one.priority):
            if victim.priority >= below:
                return
            if victim.number not in busy:
                yield victim

    def _stream(self, query: str, hoard: int) -> Iterator[Victim]:
        """Yield the victims of one hoard priority, page by page."""
        tick, number, page = -1, 0, 0
        while True:
            limit = _PAGES[min(page, len(_PAGES) - 1)]
            rows = self._database.rows(query, (hoard, tick, number, limit))
            for tick, number, size, name in rows:
                yield Victim(self.priority(hoard, tick), number, size, name)
            if len(rows) < limit:
                return
            page += 1

    def _hoard_priorities(self) -> Iterator[int]:
        """Yield the different hoard priorities there are, jumping through the index from one to the next."""
        query = "SELECT min(hoard) FROM object INDEXED BY object_idle WHERE hoard > ? AND flags & 7 = 0"
        hoard = self._database.value(query, (-1,))
        while hoard is not None:
            yield hoard
            hoard = self._database.value(query, (hoard,))

    # -- doing -------------------------------------------------------------------------------------------

    def _carry_out(self, plan: "_Plan") -> Evicted:
        for number in plan.objects:
            self._objects.drop(number)
        for number in plan.data:
            self._objects.attach(number, None)
        return Evicted(plan.data, plan.objects, plan.more, plan.victims)


@dataclass(slots=True)
class _Plan:
    data: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    victims: dict[int, Victim] = field(default_factory=dict)
    more: bool = False  # these are as many as go at once, and not enough
    short: str = ""  # why all there is is not enough; '' = it is


def _below(priority: int) -> int:
    """Return the priority from which on nothing goes for a request of `priority`."""
    return MAXIMUM + 1 if priority >= MAXIMUM else priority
