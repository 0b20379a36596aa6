"""What of the hoard is here, what is missing, and what bringing it would cost.

A survey goes through all contexts after a status walk and asks nobody. A plan adds what would have to go: the
missing objects in order of priority, against the replaceable ones from the other end (replacement.py).
"""

from collections import Counter
from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass, field

import trio

from realmfs.cache.limits import MARGIN
from realmfs.cache.replacement import MARGINAL, Victim
from realmfs.venus.core import Core
from realmfs.venus.hoardbind import Binder
from realmfs.venus.hoardcontext import Census, Context, Contexts
from realmfs.venus.node import Node

SLICE = 200
MEDIUM_TERM = 75
NOT_BOUND = "*** Not bound ***"
MISSING = "*** Missing/Invalid ***"
OK = "OK"


@dataclass(frozen=True, slots=True)
class Lack:
    """Something hoarded that is not here as it should be. `size` None: nobody knows."""

    path: str
    priority: int
    entry: int
    """Id of the entry that wants it."""
    verdict: str
    why: str
    size: int | None


@dataclass(slots=True)
class Tally:
    """What an entry stands for, and how much of it is here; sizes in bytes."""

    objects: int = 0
    bytes: int = 0
    present: int = 0
    present_bytes: int = 0
    unknown: int = 0
    """Objects of which not even the size is known."""


@dataclass(slots=True)
class Survey:
    """The state of the hoard."""

    tallies: dict[int, Tally] = field(default_factory=dict)
    """By entry. What several entries want counts in each of them,"""
    total: Tally = field(default_factory=Tally)
    """and once here."""
    lacks: list[Lack] = field(default_factory=list)
    census: Census = field(default_factory=Census)

    @property
    def ready(self) -> bool:
        """Whether everything hoarded is here and of the servers' version."""
        return not self.lacks

    def reasons(self, most: int = 5) -> list[tuple[str, int]]:
        """Return the most frequent reasons why something is missing, with how often."""
        return Counter(lack.why for lack in self.lacks).most_common(most)

    @property
    def missing_bytes(self) -> int:
        """Bytes to bring, as far as sizes are known."""
        return sum(lack.size or 0 for lack in self.lacks)


@dataclass(slots=True)
class Plan:
    """What a walk would do; sizes in bytes."""

    survey: Survey
    fetch: list[Lack] = field(default_factory=list)
    evict: list[tuple[str, int]] = field(default_factory=list)
    """Path and size of what would go."""
    short: list[Lack] = field(default_factory=list)
    """What would not fit."""
    free: int = 0
    """Room there is without anything going."""


class Surveyor:
    """Makes surveys and plans."""

    def __init__(self, core: Core, binder: Binder) -> None:
        self._core = core
        self._binder = binder

    async def survey(self, contexts: Contexts, confirmed: Container[int] = frozenset()) -> Survey:
        """Look at every context. `confirmed`: known to be current, though no promise covers them."""
        survey, seen = Survey(), dict[int, set[int]]()
        async for context in _slowly(contexts):
            survey.census.count(context)
            tally = survey.tallies.setdefault(context.entry.id, Tally())
            node = self._binder.node(context)
            if node is None:
                path = self.place(context)
                verdict = NOT_BOUND if context.above is None else MISSING
                survey.lacks.append(
                    Lack(path, context.priority, context.entry.id, verdict, context.trouble, None)
                )
                continue
            for number in (context.number, *context.along):
                entries = seen.setdefault(number, set())
                if context.entry.id not in entries:
                    tallies = (tally,) if entries else (tally, survey.total)
                    self._look(survey, tallies, context, number, number in confirmed)
                    entries.add(context.entry.id)
        return survey

    def _look(
        self, survey: Survey, tallies: Sequence[Tally], context: Context, number: int, confirmed: bool
    ) -> None:
        node = self._core.nodes.by_number(number)
        size = node.status.length if node.status is not None else None
        here = (node.valid or node.ours or confirmed) and self._binder.has_data(node, confirmed=confirmed)
        here = here and not node.conflict
        for tally in tallies:
            tally.objects += 1
            tally.bytes += size or 0
            tally.unknown += size is None
            tally.present += here
            tally.present_bytes += (size or 0) * here
        if here or all(tally is not survey.total for tally in tallies):
            return
        why = context.trouble or _why(node, self._binder.has_data(node))
        survey.lacks.append(
            Lack(self._core.path(node), context.priority, context.entry.id, MISSING, why, size)
        )

    def place(self, context: Context) -> str:
        """Return the path of a context for people, also of one bound to nothing."""
        volume = self._core.volumes.by_key(context.entry.volume)
        root = self._core.nodes.get(volume, volume.root)
        return (self._core.path(root) + "/" + context.path().decode("utf-8", "replace")).rstrip("/")

    async def plan(self, survey: Survey) -> Plan:
        """Say what a walk would bring, and what would go for it."""
        limits, containers = self._core.cache.limits, self._core.cache.containers
        plan = Plan(survey, free=max(0, limits.bytes - containers.used))
        room, margin = limits.bytes - containers.used, limits.bytes // MARGIN
        wanted = sorted(
            (lack for lack in survey.lacks if lack.verdict == MISSING), key=lambda lack: -lack.priority
        )
        victims = self._core.cache.replacement.candidates(busy=self._core.busy)
        next_one = next(victims, None)
        for index, lack in enumerate(wanted):
            if not index % SLICE:
                await trio.lowlevel.checkpoint()
            weight, size = MEDIUM_TERM * lack.priority, lack.size or 0
            usable = 0 if weight >= MARGINAL else margin
            while room - usable < size and next_one is not None and next_one.priority < weight:
                room += next_one.size
                plan.evict.append((self._name(next_one), next_one.size))
                next_one = next(victims, None)
            fits = room - usable >= size
            (plan.fetch if fits else plan.short).append(lack)
            room -= size if fits else 0
        return plan

    def _name(self, victim: Victim) -> str:
        node = self._core.nodes.cached(victim.number)
        return f"inode {victim.number}" if node is None else self._core.path(node)


def _why(node: Node, data: bool) -> str:
    if node.conflict:
        return "in conflict"
    if node.status is None:
        return "nothing is known of it"
    if node.stale or (data and not node.valid):
        return "the servers may have a newer version"
    return "its contents are not here"


async def _slowly(contexts: Contexts) -> AsyncIterator[Context]:
    for index, context in enumerate(contexts.each()):
        if not index % SLICE:
            await trio.lowlevel.checkpoint()
        yield context
