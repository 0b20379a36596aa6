"""Who has to go when the cache is full.

The priority of an object is 25·s + 75·h: h its hoard priority (0..1000), s its recency (0..1000): 0 if it
was never referred to, else 1000 − rank, where the rank grows with the references to other objects since its
last one and reaches 999 after four times the cache's number of objects (the formula that client.md §6 calls
intended).

Within one hoard priority the order by priority is the order by tick, which an index gives. There are few
different hoard priorities, so the lowest of all come from merging one cursor for each: no search goes past
the victims and the busy ones among them.

Never replaced: dirty, local and conflicting objects (they are not in the index), what is open or pinned
(`busy`, from venus), mount points, runts, directories with cached children: trees shrink from the leaves.
Contents go alone where bytes are wanted; their status stays.
"""

import heapq
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Final

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


@dataclass(slots=True)
class Evicted:
    """Inode numbers of what went: contents only, or whole objects (which have no row any more)."""

    data: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Victim:
    priority: int
    number: int
    size: int  # bytes of its container


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
        """Make `size` bytes and `objects` rows fit, replacing what has lower priority than the request.

        See to it that `size` bytes and `objects` rows fit, replacing what has lower priority than the
        request.

        CacheFull if that is not enough; then nothing has been replaced. Joins the open transaction if there
        is one.
        """
        if self.fits(size=size, objects=objects, priority=priority):
            if self._objects.ticks_to_flush:
                with self._database.transaction():
                    self._objects.flush_ticks()
            return Evicted()
        with self._database.transaction():
            self._objects.flush_ticks()
            excess = self._excess(size, objects, priority)
            plan = self._plan(excess, min(priority, MAXIMUM) + (priority >= MAXIMUM), busy)
            if plan.short:
                raise CacheFull(f"the cache is full: {plan.short}")
            return self._carry_out(plan)

    def trim(self, busy: Container[int] = frozenset()) -> Evicted:
        """Free the margins again, as far as that is possible.

        For a daemon, every 30 s; it also writes the recency.
        """
        with self._database.transaction():
            self._objects.flush_ticks()
            return self._carry_out(self._plan(self._excess(0, 0, 0), MAXIMUM + 1, busy))

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

    def _plan(self, excess: tuple[int, int], below: int, busy: Container[int]) -> "_Plan":
        """Choose what to replace to get rid of an excess of (bytes, objects)."""
        plan = _Plan()
        size, count = excess
        if count > 0:
            for victim in self._victims("object_idle", "", below, busy):
                if not self._leaf(victim.number):
                    continue
                plan.objects.append(victim.number)
                size -= victim.size
                if len(plan.objects) == count:
                    break
            else:
                plan.short = f"{count - len(plan.objects)} objects too many are in use"
        if size > 0:
            chosen = set(plan.objects)
            for victim in self._victims("object_idle_data", "AND container IS NOT NULL", below, busy):
                if victim.number in chosen:
                    continue
                plan.data.append(victim.number)
                size -= victim.size
                if size <= 0:
                    break
            else:
                plan.short = f"{size} bytes too many are in use"
        return plan

    def _victims(self, index: str, also: str, below: int, busy: Container[int]) -> Iterator[_Victim]:
        """Yield what may be replaced, from the lowest priority up to `below`. Change nothing meanwhile."""
        query = (
            f"SELECT o.tick, o.number, coalesce(c.bytes, 0) FROM object AS o INDEXED BY {index}"
            " LEFT JOIN container AS c ON c.id = o.container"
            f" WHERE o.hoard = ? AND o.flags & 7 = 0 {also} AND coalesce(c.writing, 0) = 0 ORDER BY o.tick"
        )

        def of(hoard: int) -> Iterator[_Victim]:
            for tick, number, size in self._database.each(query, (hoard,)):
                yield _Victim(self.priority(hoard, tick), number, size)

        for victim in heapq.merge(
            *[of(hoard) for hoard in self._hoard_priorities()], key=lambda one: one.priority
        ):
            if victim.priority >= below:
                return
            if victim.number not in busy:
                yield victim

    def _hoard_priorities(self) -> Iterator[int]:
        """Yield the different hoard priorities there are, jumping through the index from one to the next."""
        query = "SELECT min(hoard) FROM object INDEXED BY object_idle WHERE hoard > ? AND flags & 7 = 0"
        hoard = self._database.value(query, (-1,))
        while hoard is not None:
            yield hoard
            hoard = self._database.value(query, (hoard,))

    def _leaf(self, number: int) -> bool:
        query = "SELECT mount = 0 AND status IS NOT NULL FROM object WHERE number = ?"
        return bool(self._database.value(query, (number,))) and not self._objects.has_children(number)

    # -- doing -------------------------------------------------------------------------------------------

    def _carry_out(self, plan: "_Plan") -> Evicted:
        for number in plan.objects:
            self._objects.drop(number)
        for number in plan.data:
            self._objects.attach(number, None)
        return Evicted(plan.data, plan.objects)


@dataclass(slots=True)
class _Plan:
    data: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    short: str = ""  # why it is not enough; '' = it is
