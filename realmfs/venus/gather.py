"""Bringing many small files and links at once: each from one server, then checked by the whole group.

    gate ──► fetch from one server ──┐
    gate ──► fetch from another ─────┼──► a load of up to fifty ──► ValidateAttrs at all servers ──► taken in
    gate ──► ...                     ┘                                               (one transaction)

Nothing is known of most of them beforehand, so status and contents come in one round, and what turns out
large is fetched again in the usual way (fetch.py), as is everything the group does not confirm: it has newer
versions, or servers disagree. Data waits in memory for its load, `SMALL` bytes of each at most.

Each object is a flight of its own: whoever opens it meanwhile waits for that one, not for the load of others
to fill: a load leaves at the latest when nothing else is on its way, and at once while anybody waits.

The gate lets as many fetches through as keep the servers' connections busy and leave one in four to others;
while somebody waits for anything, few.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from realmfs.cache.errors import CacheFull
from realmfs.realms.types import Attributes
from realmfs.rpc2.transfer import BytesSink
from realmfs.venus.core import Core
from realmfs.venus.fetch import Fetcher
from realmfs.venus.node import Node, Promise
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Status

SMALL = 256 * 1024
"""Bytes of the largest object brought this way."""
LOAD = 50
"""Objects that one call validates."""
LOAD_BYTES = 4 << 20
"""Bytes of contents from which on a load does not wait for more."""
PER_SERVER = 6
"""Fetches under way at once for each server that is up: its connections but two."""
BESIDE_OTHERS = 2
"""Fetches under way while somebody waits for something else."""


class Ticket:
    """A place in the queue of the gate. `hurry`: go in at once, somebody waits for it."""

    __slots__ = ("_called", "urgent")

    def __init__(self) -> None:
        self.urgent = False
        self._called = trio.Event()

    def hurry(self) -> None:
        """Go in before all others, however many are inside."""
        self.urgent = True
        self._called.set()

    def call(self) -> None:
        """Look again whether there is room."""
        self._called.set()

    async def wait(self) -> None:
        """Wait to be called."""
        await self._called.wait()
        self._called = trio.Event()


class Gate:
    """Lets fetches through, `wide` at once, or few while others wait (`crowded`)."""

    def __init__(self, crowded: Callable[[], bool]) -> None:
        self.crowded = crowded
        self.wide = PER_SERVER
        self.inside = 0
        self._queue: dict[Ticket, None] = {}

    @property
    def idle(self) -> bool:
        """Whether nobody is inside or about to be."""
        return not self.inside and not self._queue

    async def enter(self, ticket: Ticket) -> None:
        """Wait for a turn; whoever got in calls `leave`."""
        while self.inside >= self._width() and not ticket.urgent:
            self._queue[ticket] = None
            try:
                await ticket.wait()
            finally:
                del self._queue[ticket]
        self.inside += 1

    def leave(self) -> None:
        """End a turn, and call as many as there is room for."""
        self.inside -= 1
        for waiting in itertools.islice(self._queue, max(0, self._width() - self.inside)):
            waiting.call()

    def _width(self) -> int:
        return min(BESIDE_OTHERS, self.wide) if self.crowded() else self.wide


@dataclass(slots=True, eq=False)
class _Arrival:
    """What came of one object, still to be confirmed."""

    node: Node
    status: Status
    data: bytes
    edition: int
    claim: Callable[[Node], None]
    taken: bool = False
    error: CodaError | OSError | None = None


@dataclass(slots=True, eq=False)
class _Load:
    """What is confirmed together: objects of one volume, for one user."""

    arrivals: list[_Arrival] = field(default_factory=list)
    size: int = 0
    landed: trio.Event = field(default_factory=trio.Event)


class Gatherer:
    """Brings small objects."""

    def __init__(self, core: Core, validator: Validator, fetcher: Fetcher) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher
        self.gate = Gate(lambda: core.flights.wanted > 0)
        self._loads: dict[tuple[int, int], _Load] = {}
        self._turns = itertools.count()

    async def bring(self, node: Node, uid: int, claim: Callable[[Node], None]) -> None:
        """Bring status and contents of a file or link.

        `claim` is called with it when it is taken in, inside that transaction. Raises CodaError; ENOSPC when
        there is no room for it.
        """
        flights, ticket = self._core.flights, Ticket()
        flight = flights.start(("data", node.ino), functools.partial(self._bring, node, uid, claim, ticket))
        if flight.hurry is None:
            flight.hurry = ticket.hurry
        await flights.land(flight)

    async def _bring(self, node: Node, uid: int, claim: Callable[[Node], None], ticket: Ticket) -> None:
        await self._core.enter(node.volume)
        arrival = await self._fetch(node, uid, claim, ticket)
        key = (node.volume.key, uid)
        if arrival is not None:
            load = self._loads.setdefault(key, _Load())
            load.arrivals.append(arrival)
            load.size += len(arrival.data)
            if len(load.arrivals) >= LOAD or load.size >= LOAD_BYTES:
                await self._send(key, node.volume)
        if self.gate.idle or self.gate.crowded():
            for other in list(self._loads):
                await self._send(other, self._core.volumes.by_key(other[0]))
        if arrival is not None:
            await load.landed.wait()
            if arrival.error is not None:
                raise arrival.error
        if arrival is None or not arrival.taken:
            await self._from_group(node, uid, claim, arrival)

    async def _fetch(
        self, node: Node, uid: int, claim: Callable[[Node], None], ticket: Ticket
    ) -> _Arrival | None:
        """Fetch from one server; None if the group must do it."""
        if node.status is not None and not node.stale and node.status.length > SMALL:
            return None
        group = self._core.group(node.volume)
        sources = group.sources()
        self.gate.wide = PER_SERVER * len(sources)
        edition, sink = node.edition, BytesSink(SMALL)
        await self.gate.enter(ticket)
        try:
            replica = sources[next(self._turns) % len(sources)]
            with self._core.call("FetchPartial", f"{node.label} [{node.blocks}]"):
                status = await group.fetch_one(replica, node.fid, uid, sink)
        except (CodaError, OSError):
            return None  # whatever it is, the group says it better
        finally:
            self.gate.leave()
        data = bytes(sink.data)
        return _Arrival(node, status, data, edition, claim) if len(data) == status.length else None

    async def _send(self, key: tuple[int, int], volume: VolumeState) -> None:
        """Have a load confirmed, and take it in."""
        load = self._loads.pop(key, None)
        if load is None:
            return
        try:
            await self._confirm(load, volume, key[1])
        except (CodaError, OSError) as error:
            for arrival in load.arrivals:
                arrival.error = error
        finally:
            load.landed.set()

    async def _confirm(self, load: _Load, volume: VolumeState, uid: int) -> None:
        arrivals = load.arrivals
        samples = [arrival.node.sample() for arrival in arrivals]
        question = [(arrival.node.fid, arrival.status.vv) for arrival in arrivals]
        first = arrivals[0].node
        with self._core.call("ValidateAttrsPlusSHA", f"{first.label}({first.fid}) [{len(arrivals)}]"):
            answers = await self._core.group(volume).validate(question, uid)
        good = [pair for pair in zip(arrivals, samples, strict=True) if answers.get(pair[0].node.fid)]
        try:
            await self._take_in(good, uid)
        except CacheFull:  # not all together; perhaps some of them
            for pair in good:
                try:
                    await self._take_in([pair], uid)
                except CacheFull as error:
                    pair[0].error = error

    async def _take_in(self, good: Sequence[tuple[_Arrival, Promise]], uid: int) -> None:
        """Enter what the servers have confirmed, in one transaction. Raises CacheFull, and has not then."""
        core = self._core
        await core.room(
            size=sum(len(arrival.data) for arrival, _ in good),
            objects=sum(not arrival.node.stored for arrival, _ in good),
        )
        with core.cache.transaction():
            for arrival, sample in good:
                if not arrival.node.gone and self._validator.absorb(
                    arrival.node, uid, Attributes(arrival.status, True), sample, arrival.edition, filling=True
                ):
                    arrival.taken = self._put(arrival)

    def _put(self, arrival: _Arrival) -> bool:
        """Keep what came, if it is of the version that the status now names. Inside a transaction."""
        core, node = self._core, arrival.node
        if not node.same_version(arrival.status.vv):
            return False
        if arrival.status.type is ObjectType.SYMLINK:
            node.link = arrival.data
            core.nodes.save(node)
        else:
            if node.content is not None:
                return False  # somebody has it open
            with core.cache.containers.hold(arrival.data) as content:
                core.cache.objects.attach(node.ino, content)
                core.cache.on_rollback(functools.partial(node.hold, node.container, node.link))
                node.container = content.id
        arrival.claim(node)
        return True

    async def _from_group(
        self, node: Node, uid: int, claim: Callable[[Node], None], arrival: _Arrival | None
    ) -> None:
        """Bring it in the usual way; what came is good after all if the group names that version."""
        if node.status is None or node.stale or not node.valid:
            await self._validator.get_attr(node, uid)
            node = self._core.nodes.get(node.volume, node.fid)
        if node.status is None:
            raise CodaError(Code.EAGAIN, node.label)
        if arrival is not None and await self._is_good(arrival, node):
            return
        with self._core.cache.transaction():
            claim(node)
        if node.status.length <= SMALL or node.type is not ObjectType.FILE:
            await self._fetcher.fill(node, uid)

    async def _is_good(self, arrival: _Arrival, node: Node) -> bool:
        """Keep what came if the group, asked for this object alone, names its version; tell whether."""
        if node is not arrival.node:
            return False
        await self._core.room(size=len(arrival.data), objects=0)
        if node.edition != arrival.edition or node.ours or node.gone or node.container is not None:
            return False
        with self._core.cache.transaction():
            return self._put(arrival)
