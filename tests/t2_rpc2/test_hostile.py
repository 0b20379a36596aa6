"""Bytes from anybody: they never raise, never make state grow, and never disturb those who are bound."""

import random
import tracemalloc
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.call import ClientLink
from realmfs.rpc2.core import Core
from realmfs.rpc2.events import Accepted, Arrived, BindDone
from realmfs.rpc2.filelink import FileLink
from realmfs.rpc2.header import DATA_HEADER, Header, Op, SftpOp, naked, split
from realmfs.rpc2.parameters import SftpParameters
from realmfs.rpc2.serve import ServerLink
from realmfs.rpc2.service import ANONYMOUS, Address
from realmfs.rpc2.transfer import BytesSink, BytesSource
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import CLIENT, ECHO, FETCH, SERVER, STORE, number, pattern, world

pytestmark = pytest.mark.usefixtures("autojump_clock")

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 2)


class Pair:
    """Two cores and the packets between them, by hand. `attack` opens, changes and seals again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.client = Core(rng=random.Random(seed + 1))
        self.server = Core(rng=random.Random(seed + 2), policy=lambda offer: bytes(8))

    def exchange(self) -> None:
        """Carry packets until there are none; serve what arrives."""
        while self.client.hub.outbox or self.server.hub.outbox:
            self.pass_on(self.client, self.server, HERE)
            self.pass_on(self.server, self.client, THERE)

    def pass_on(self, sender: Core, receiver: Core, address: Address) -> None:
        outbox, sender.hub.outbox = sender.hub.outbox, []
        receiver.receive([(datagram, address) for _, batch in outbox for datagram in batch], self.now)
        for event in receiver.take_events():
            if isinstance(event, Accepted):
                event.link.enable(self.now)
            if isinstance(event, Arrived):
                self.serve(event)

    def serve(self, event: Arrived) -> None:
        if event.opcode == STORE:
            event.link.receive_file(BytesSink(), 1 << 20, self.now)
        elif event.opcode == FETCH:
            event.link.send_file(BytesSource(pattern(50_000)), self.now)
        else:
            event.link.reply(0, event.body[:4000], self.now)

    def settle(self) -> None:
        """Lose whatever either side wants to send or tell."""
        for core in (self.client, self.server):
            core.take_events()
            core.hub.outbox.clear()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.client.handle_timers(self.now)
        self.server.handle_timers(self.now)


def bound(seed: int) -> tuple[Pair, ServerLink, BindDone]:
    pair = Pair(seed)
    pair.client.bind(THERE, 1, ANONYMOUS, side_effects=True, give_up=200.0, now=pair.now)
    done = None
    while done is None:
        pair.pass_on(pair.client, pair.server, HERE)
        outbox, pair.server.hub.outbox = pair.server.hub.outbox, []
        pair.client.receive([(d, THERE) for _, batch in outbox for d in batch], pair.now)
        for event in pair.client.take_events():
            if isinstance(event, BindDone):
                done = event
    (link,) = pair.server.hub.links.values()
    assert isinstance(link, ServerLink)
    return pair, link, done


@given(st.lists(st.binary(max_size=400), max_size=20), st.integers(0, 5))
def test_any_bytes_at_both_roles(datagrams: list[bytes], seed: int) -> None:
    pair, link, _ = bound(seed)
    handles = [link.identity.handle.to_bytes(4, "big"), link.identity.remote.to_bytes(4, "big")]
    for datagram in datagrams:
        for front in (b"", *handles, b"\0\0\0\x08", b"\0\0\0\x03"):
            pair.client.receive([(front + datagram, ("10.6.6.6", 6))], pair.now)
            pair.server.receive([(front + datagram, ("10.6.6.6", 6))], pair.now)
    assert len(pair.client.hub.links) == len(pair.server.hub.links) == 1
    assert link.peer == HERE


HEADERS = st.tuples(
    st.sampled_from([3, 8]),
    st.sampled_from([0x80000000, 0, 1, 0x80000001]),
    st.one_of(st.integers(0, 60), st.just(0xFFFFFFFF)),
    st.one_of(st.integers(0, 80), st.integers(0, 2**32 - 1)),
    st.one_of(st.integers(-16, 8), st.just(-2016)),
    st.integers(0, 15),
    st.one_of(st.integers(0, 80), st.integers(0, 2**32 - 1)),
    st.one_of(st.just(0), st.integers(0, 2**31 - 1)),
    st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
    st.sampled_from([0, 2, 4]),
    st.binary(max_size=60),
)


@given(
    st.lists(HEADERS, max_size=15),
    st.sampled_from([None, "fetch", "store", "echo"]),
    st.booleans(),
    st.integers(0, 5),
)
def test_a_bound_peer_may_say_anything(
    headers: list[tuple[Any, ...]], running: str | None, from_client: bool, seed: int
) -> None:
    pair, server_link, done = bound(seed)
    client_link = done.outcome
    assert isinstance(client_link, ClientLink)
    if running is not None:
        source = BytesSource(pattern(40_000)) if running == "store" else None
        sink = BytesSink() if running == "fetch" else None
        opcode = {"store": STORE, "fetch": FETCH, "echo": ECHO}[running]
        client_link.call(opcode, number(9), source, sink, 300.0, pair.now)
        pair.exchange() if from_client else pair.pass_on(pair.client, pair.server, HERE)
    villain: FileLink = client_link if from_client else server_link
    victim, address = (pair.server, HERE) if from_client else (pair.client, THERE)
    for fields in headers:
        version, flags, length, sequence, opcode, se_flags, offset, high, low, call, body = fields
        who = villain.identity
        header = Header(
            version, who.remote, who.handle, flags, length, sequence, opcode, se_flags, offset, 1189,
            high, low, call, 5, 6,
        )  # fmt: skip
        assert villain.sealer is not None
        victim.receive([(villain.sealer.seal(header.pack() + body), address)], pair.now)
        pair.settle()
        pair.tick(0.2)
    for _ in range(30):
        pair.tick(10)
        pair.settle()
    assert len(victim.hub.links) <= 1


@pytest.mark.parametrize("words", [{1: 999}, {4: 61}, {4: 2**32 - 1}])
def test_a_header_that_does_not_fit_its_packet(words: dict[int, int]) -> None:
    pair, link, done = bound(0)
    assert isinstance(done.outcome, ClientLink)
    fields = [3, done.outcome.identity.remote, link.identity.remote, 0, 60, 1, 3, *[0] * 8]
    for at, word in words.items():
        fields[at] = word
    pair.server.receive([(done.outcome.sealer.seal(DATA_HEADER.pack(*fields) + bytes(60)), HERE)], pair.now)  # type: ignore[union-attr]
    assert pair.server.hub.counters["bad"] == 1


@pytest.mark.parametrize("opcode", [SftpOp.START, SftpOp.ACK, SftpOp.DATA])
def test_packets_of_another_call_are_strays(opcode: SftpOp) -> None:
    pair, _, done = bound(0)
    client = done.outcome
    assert isinstance(client, ClientLink)
    client.call(STORE, b"", BytesSource(pattern(9000)), None, 300.0, pair.now)
    pair.pass_on(pair.client, pair.server, HERE)
    for call, strays in ((2, 1), (0, 1)):
        who = client.identity
        words = [3, who.remote, who.handle, 0, 0, 1, opcode, 0, 0, 1189, 0, 0, call, 5, 6]
        assert client.sealer is not None
        pair.server.receive([(client.sealer.seal(DATA_HEADER.pack(*words)), HERE)], pair.now)
        assert pair.server.hub.counters["stray_sftp"] == strays


async def test_memory_stays_flat_under_a_flood() -> None:
    async with world() as w:
        connection = await w.bind()
        flood, rng = w.net.transport(("10.6.6.6", 6)), random.Random(3)
        handle = connection._link.identity.remote.to_bytes(4, "big")

        async def attack(rounds: int) -> None:
            for _ in range(rounds):
                packets = [
                    rng.randbytes(rng.randrange(300)),
                    handle + rng.randbytes(200),
                    b"\0\0\0\x08" + rng.randbytes(300),
                    Header(local=rng.getrandbits(31), opcode=Op.INIT1OPENKIMONO).pack() + bytes(300),
                    Header(local=rng.getrandbits(31), opcode=Op.INIT1SECURE, flags=16).pack()
                    + rng.randbytes(400),
                ]
                flood.send(packets, SERVER)
                flood.send(packets, CLIENT)
                await trio.sleep(0.01)
                flood._queue.clear()

        await attack(200)
        tracemalloc.start()
        await attack(100)
        before, _ = tracemalloc.get_traced_memory()
        await attack(600)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 50_000
        assert (await connection.call(ECHO, b"undisturbed")).body == b"undisturbed"
        assert w.server.statistics()["bad"] > 1000


async def test_transfers_under_a_flood_of_replays() -> None:
    net = FakeNetwork(seed=2, latency=0.001)
    async with world(net) as w:
        connection = await w.bind()
        recorded: list[tuple[bytes, Address]] = []

        def tap(datagram: bytes, sender: Address, receiver: Address) -> bool:
            recorded.append((datagram, receiver))
            old, target = net.random.choice(recorded)
            net._ports[target].deliver(trio.current_time() + 0.5, old, ("10.6.6.6", 6))
            return True

        net.tap = tap
        sink = BytesSink()
        await connection.call(FETCH, number(300_000), sink=sink)
        assert sink.data == pattern(300_000)
        await connection.call(STORE, source=BytesSource(pattern(300_000)))
        assert w.desk.stored == [pattern(300_000)]
        assert w.desk.welcomed[0].peer == CLIENT


async def test_naks_answer_strangers_but_never_naks() -> None:
    async with world() as w:
        stranger = w.net.transport(("10.6.6.6", 6))
        lost = Header(remote=123456, local=777, opcode=ECHO)
        stranger.send([lost.pack()], SERVER)
        ((reply, _),) = await stranger.receive()
        assert reply == naked(777)
        stranger.send([naked(777), naked(777, sftp=True)], SERVER)
        with trio.move_on_after(1) as scope:
            await stranger.receive()
        assert scope.cancelled_caught


async def test_a_plain_nak_does_not_end_a_bound_connection() -> None:
    async with world() as w:
        connection = await w.bind()
        handle = connection._link.identity.handle

        def tap(datagram: bytes, sender: Address, receiver: Address) -> bool:
            if sender == CLIENT:
                w.net._ports[CLIENT].deliver(trio.current_time(), naked(handle), SERVER)
            return True

        w.net.tap = tap
        assert (await connection.call(ECHO, b"x")).body == b"x"


async def test_a_parameter_block_of_a_reference_killer() -> None:
    """Window below send-ahead: `codasrv` dies of it (sftp.md §3); we neither die nor ever say it."""
    async with world(client_sftp=SftpParameters(window=4, send_ahead=8)) as w:
        connection = await w.bind()
        sink = BytesSink()
        seen: list[bytes] = []
        link = connection._link
        original = link.packet

        def spy(*args: object, **more: object) -> bytes:
            packet = original(*args, **more)  # type: ignore[arg-type]
            seen.append(packet)
            return packet

        link.packet = spy  # type: ignore[method-assign]
        await connection.call(FETCH, number(100_000), sink=sink)
        assert sink.data == pattern(100_000)
        block = SftpParameters.unpack(split(seen[0])[1][-44:])
        assert block.window >= block.send_ahead >= block.ack_point
