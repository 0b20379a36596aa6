"""Whatever happens to servers and packets, what arrives is the file: never bytes of another place or version.

Each case is drawn from its seed: how the file is cut into pieces, which part is wanted, what the network does
to packets, and what befalls which server when so many bytes have come. A case that ends in an error is gone
on with from what has come, as the cache manager does, once the servers are back.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from realmfs.realms import fetching
from realmfs.realms.fetching import VersionChangedError
from realmfs.realms.group import Group
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.service import Request, ServerConnection
from realmfs.rpc2.transfer import BytesSource, Sink
from realmfs.vice.calls import FetchPartial
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Order, VersionVector
from tests.seeds import first_seed
from tests.t3_realms.test_fetching import fetches, sender
from tests.t3_realms.vicepeer import FILE, vector
from tests.t3_realms.world import HOSTS, World, world

CASES = 60
TRIES = 20
MENDED = 10
"""Tries after which the servers send what they say."""
NEW, OLD = vector(3, 3, 3), vector(2, 3, 3)


@dataclass
class Copy:
    """Where the bytes go: what follows a new beginning is void, as in a container."""

    wanted: bytes
    strict: bool
    """Every byte must be right at once, for somebody may read it."""
    start: int
    befall: Callable[[int], None]
    data: bytearray = field(default_factory=bytearray)
    total: int = 0
    faults: list[str] = field(default_factory=list)
    """Kept for the end: what a sink raises is a broken transfer, which is made good."""

    def __call__(self, offset: int) -> Sink:
        if not self.start <= offset <= self.start + len(self.data):
            self.faults.append(f"a gap before {offset}")
        del self.data[offset - self.start :]
        return _At(self, offset)

    def write(self, offset: int, data: bytes) -> None:
        if offset != self.start + len(self.data):
            self.faults.append(f"not in order, or by somebody who was let go: {offset}")
        elif self.strict and data != self.wanted[offset : offset + len(data)]:
            self.faults.append(f"wrong bytes at {offset}")
        self.data += data
        self.total += len(data)
        self.befall(self.total)


@dataclass
class _At:
    copy: Copy
    offset: int

    def write(self, data: bytes) -> None:
        self.copy.write(self.offset, data)
        self.offset += len(data)


@dataclass
class Fate:
    """What befalls servers in one case."""

    world: World
    rng: random.Random
    blows: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    """After so many bytes."""

    def draw(self, size: int) -> None:
        kinds = (self.cut, self.die, self.dawdle, self.fall_short)
        self.blows = [
            (self.rng.randrange(size), self.rng.choice(kinds)) for _ in range(self.rng.randrange(8))
        ]
        self.blows.sort(key=lambda blow: blow[0])
        for _ in range(self.rng.randrange(3)):
            self.rng.choice((self.dawdle, self.fall_short))()

    def befall(self, total: int) -> None:
        while self.blows and self.blows[0][0] <= total:
            self.blows.pop(0)[1]()

    def target(self) -> int:
        """Mostly who sends."""
        asked = [
            slot
            for slot, peer in enumerate(self.world.peers)
            if any(f.primary_host == 0 for f in fetches(peer))
        ]
        return sender(self.world) if asked and self.rng.random() < 0.8 else self.rng.randrange(len(HOSTS))

    def cut(self) -> None:
        """Nothing gets to a server or from it for a while; then what was under way goes on."""
        self.world.net.partition(HOSTS[self.target()])
        self.world.nursery.start_soon(self._later, self.rng.choice((0.3, 0.6, 1.0, 4.0)), self.world.net.heal)

    def die(self) -> None:
        """A server is killed, and started again with no memory of us."""
        slot = self.target()
        if HOSTS[slot] in self.world.stops:
            self.world.stop_peer(HOSTS[slot])
            self.world.nursery.start_soon(self._start, slot, self.rng.choice((0.1, 0.7, 3.0)))

    async def _start(self, slot: int, seconds: float) -> None:
        await trio.sleep(seconds)
        self.world.peers[slot] = await self.world.start_peer(HOSTS[slot], slot, self.world.peers[slot])

    async def _later(self, seconds: float, act: Callable[[], None]) -> None:
        await trio.sleep(seconds)
        act()

    def dawdle(self) -> None:
        """A server takes its time before it sends."""
        self._answers(self.target(), self.rng.choice((0.07, 0.2, 0.7)), 1.0)

    def fall_short(self) -> None:
        """A server says that all went well, but sends less."""
        self._answers(self.target(), 0.0, self.rng.random())

    def mend(self) -> None:
        """Nothing befalls anybody any more."""
        self.blows = []
        for peer in self.world.peers:
            peer.on.pop(FetchPartial, None)

    def _answers(self, slot: int, seconds: float, share: float) -> None:
        self.world.peers[slot].on[FetchPartial] = partial(self._answer, slot, seconds, share)

    async def _answer(
        self, slot: int, seconds: float, share: float, request: FetchPartial, connection: ServerConnection,
        transfer: Request,
    ) -> object:  # fmt: skip
        peer = self.world.peers[slot]
        if request.fid == Fid.zero() or self.rng.random() < 0.5:
            return await peer.do_fetch_partial(request, connection, transfer)
        await trio.sleep(seconds)
        found = peer.objects[request.fid]
        if (
            share == 1.0
            or request.primary_host
            or (request.offset and request.vv.versions != found.vv.versions)
        ):
            return await peer.do_fetch_partial(request, connection, transfer)
        data = found.data[request.offset :][: min(request.count, len(found.data))]
        await transfer.send(BytesSource(data[: int(len(data) * share)]))
        return Code.SUCCESS, FetchPartial.Reply(status=peer._status(request.fid))


async def fetch(
    group: Group, copy: Copy, known: VersionVector | None, size: int, end: int, mend: Callable[[], None]
) -> VersionVector:
    """Fetch up to `end`; go on after failures, but not from what nobody has vouched for.

    Returns of which version it is: where nothing is known, it is the old one if only who has that is there.
    """
    for number in range(TRIES):
        if number == MENDED:
            mend()
        at = copy.start + len(copy.data)
        if at == end and at and known is not None:
            return known
        try:
            found = await group.fetch(
                FILE, ANYUSER, copy, vv=known, length=size if known else None, offset=at,
                count=None if end == size else end - at,
            )  # fmt: skip
            known = found.status.vv
        except VersionChangedError as changed:
            copy.data.clear()
            if known is not None and changed.attributes.status.vv.compare(known) is Order.SUBMITS:
                await trio.sleep(1)  # who has ours is away
                continue
            known, size = changed.attributes.status.vv, changed.attributes.status.length
        except CodaError:
            if at == copy.start == 0 or known is None:
                copy.data.clear()
            await trio.sleep(1)
    raise AssertionError(f"not in {TRIES} tries")


async def case(seed: int, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(fetching, "PIECE", rng.choice((20_000, 200_000, 4 << 20)))
    async with world(room, seed=seed, latency=rng.choice((0.0, 0.001, 0.02))) as made:
        group = await made.group()
        size = rng.choice((100, 60_000, 300_000, 300_000))
        data = older = rng.randbytes(size)
        made.put(FILE, NEW, data)
        strict = rng.random() < 0.6
        if not strict:
            behind = rng.randrange(len(HOSTS))
            older = rng.randbytes(size)
            made.put(FILE, OLD, older, slots=(behind,))
            group.core.prefer(behind)
        await trio.sleep(rng.choice((0.0, 1.0)))
        made.net.loss, made.net.duplicates = rng.choice((0.0, 0.02)), rng.choice((0.0, 0.1))
        made.net.jitter = rng.choice((0.0, 0.03, 0.3))
        fate = Fate(made, rng)
        fate.draw(size)
        start = rng.choice((0, 0, rng.randrange(size)))
        end = rng.choice((size, size, rng.randrange(start, size) + 1))
        known = rng.choice((NEW, NEW, None))
        copy = Copy(data, strict, start, fate.befall)
        version = await fetch(group, copy, known, size, end, fate.mend)
        assert known is None or version.compare(NEW) is Order.EQUAL
        wanted = data if version.compare(NEW) is Order.EQUAL else older
        assert bytes(copy.data) == wanted[start:end]
        await trio.sleep(5)
        assert bytes(copy.data) == wanted[start:end], "somebody wrote afterwards"
        assert copy.faults == []


def test_what_arrives_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = first_seed()
    for seed in range(first, first + CASES):
        room = tmp_path / str(seed)
        room.mkdir()
        try:
            trio.run(case, seed, room, monkeypatch, clock=MockClock(autojump_threshold=0))
        except BaseException:
            print(f"REALMFS_SEED={seed}")
            raise
