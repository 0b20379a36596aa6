"""A session with its n-th datagram lost, repeated or late, for every n: same answers, each call runs once."""

import pytest
import trio

from realmfs.rpc2.transfer import BytesSink, BytesSource
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import ECHO, FETCH, STORE, World, number, pattern, world

pytestmark = pytest.mark.usefixtures("autojump_clock")

PACKETS = 27
"""How many datagrams the session has when nothing happens to it."""


async def session(w: World) -> None:
    """Bind, call, and move large and small files both ways."""
    connection = await w.bind(patience=60)
    assert (await connection.call(ECHO, b"first")).body == b"first"
    for size in (5000, 100):
        sink = BytesSink()
        assert (await connection.call(FETCH, number(size), sink=sink)).moved == size
        assert sink.data == pattern(size)
    for size in (5000, 100):
        data = pattern(size, 9)
        assert (await connection.call(STORE, number(size), source=BytesSource(data))).moved == size
        assert w.desk.stored[-1] == data
    assert (await connection.call(ECHO, b"last")).body == b"last"
    assert len(w.desk.served) == 6
    assert set(w.desk.served.values()) == {1}
    assert len(w.desk.stored) == 2


async def test_the_session_is_as_long_as_this_file_believes() -> None:
    async with world() as w:
        await session(w)
        assert w.net.counters["sent"] == PACKETS


@pytest.mark.parametrize("n", range(1, PACKETS + 1))
@pytest.mark.parametrize("fate", ["lost", "repeated", "late", "lost with the next two"])
async def test_whatever_happens_to_one_datagram(n: int, fate: str) -> None:
    async with world() as w:
        count = 0

        def tap(datagram: bytes, sender: tuple[str, int], receiver: tuple[str, int]) -> bool:
            nonlocal count
            count += 1
            port = w.net._ports[receiver]
            if fate == "lost with the next two" and n <= count < n + 3:
                return False
            if count != n or fate == "lost with the next two":
                return True
            if fate == "repeated":
                for late in (0.001, 0.3, 20.0):
                    port.deliver(trio.current_time() + late, datagram, sender)
            if fate == "late":
                port.deliver(trio.current_time() + 0.7, datagram, sender)
            return fate == "repeated"

        w.net.tap = tap
        start = trio.current_time()
        await session(w)
        assert trio.current_time() - start < 5


@pytest.mark.parametrize("seed", range(10))
async def test_a_bad_network(seed: int) -> None:
    print(f"seed {seed}")
    net = FakeNetwork(seed=seed, latency=0.01, jitter=0.05, loss=0.25, duplicates=0.25)
    async with world(net) as w:
        await session(w)


@pytest.mark.parametrize("seed", range(3))
async def test_many_clients_on_a_bad_network(seed: int) -> None:
    print(f"seed {seed}")
    net = FakeNetwork(seed=seed, latency=0.005, jitter=0.02, loss=0.15, duplicates=0.15)
    async with world(net) as w:
        sizes: list[int] = []

        async def one(n: int) -> None:
            connection = await w.bind(patience=60)
            for _ in range(5):
                size = w.net.random.randrange(20_000)
                sink = BytesSink()
                await connection.call(FETCH, number(size), sink=sink)
                assert sink.data == pattern(size)
                await connection.call(ECHO, number(n))
                sizes.append(size)

        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(one, n)
        assert len(sizes) == 100
        assert w.server.statistics()["connections"] >= 20
