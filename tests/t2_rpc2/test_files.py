"""Files inside calls, in both directions, over good networks and bad ones."""

from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.header import Op, split
from realmfs.rpc2.parameters import SftpParameters
from realmfs.rpc2.service import Reply, Request, ServerConnection
from realmfs.rpc2.transfer import BytesSink, BytesSource, FileSink, FileSource
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import (
    CLIENT,
    CODE,
    ECHO,
    FETCH,
    SERVER,
    STATUS_ONLY,
    STORE,
    Desk,
    number,
    pattern,
    world,
)

pytestmark = pytest.mark.usefixtures("autojump_clock")

# Around what rides along (1378 bytes of room), one packet, a batch of 16, a window of 64, and more.
SIZES = [
    0,
    1,
    1000,
    1370,
    1374,
    1375,
    1378,
    1379,
    16 * 1378,
    16 * 1378 + 1,
    64 * 1378,
    64 * 1378 + 1,
    300_000,
]


@pytest.mark.parametrize("size", SIZES)
async def test_fetch(size: int) -> None:
    async with world() as w:
        connection = await w.bind()
        for _ in range(2):
            sink = BytesSink()
            assert await connection.call(FETCH, number(size), sink=sink) == Reply(0, b"sent", size)
            assert sink.data == pattern(size)


@pytest.mark.parametrize("size", SIZES)
async def test_store(size: int) -> None:
    async with world() as w:
        connection = await w.bind()
        for seed in range(2):
            data = pattern(size, seed)
            assert await connection.call(STORE, source=BytesSource(data)) == Reply(0, number(size), size)
            assert w.desk.stored[seed] == data


async def test_small_files_ride_along() -> None:
    async with world() as w:
        connection = await w.bind()
        await connection.call(ECHO)  # takes the parameters along
        before = w.net.counters["sent"]
        for n in range(10):
            await connection.call(STORE, source=BytesSource(pattern(1300)))
            await connection.call(FETCH, number(1300), sink=BytesSink())
            assert w.net.counters["sent"] == before + 4 * (n + 1)


async def test_files_and_calls_in_any_order() -> None:
    async with world() as w:
        connection = await w.bind()
        for n, size in enumerate([5000, 10, 70_000, 0, 3000] * 4):
            data = pattern(size, n)
            await connection.call(STORE, source=BytesSource(data))
            assert w.desk.stored[-1] == data
            await connection.call(ECHO, b"between")
            sink = BytesSink()
            await connection.call(FETCH, number(size + 1), sink=sink)
            assert sink.data == pattern(size + 1)


async def test_no_file_after_all() -> None:
    async with world() as w:
        connection = await w.bind()
        sink = BytesSink()
        assert await connection.call(STATUS_ONLY, sink=sink) == Reply(0, b"no file today", None)
        assert await connection.call(STATUS_ONLY, source=BytesSource(pattern(9000))) == Reply(
            0, b"no file today", None
        )
        assert await connection.call(CODE, number(2), sink=sink) == Reply(2, b"", None)
        assert connection.usable
        await connection.call(FETCH, number(4000), sink=sink)
        assert sink.data == pattern(4000)


async def test_file_on_disk(tmp_path: Path) -> None:
    async with world() as w:
        connection = await w.bind()
        with (tmp_path / "f").open("wb+") as file:
            await connection.call(FETCH, number(50_000), sink=FileSink(file.fileno(), 100))
            file.seek(0)
            assert file.read() == bytes(100) + pattern(50_000)
            await connection.call(STORE, source=FileSource(file.fileno(), 1000, 20_000))
            assert w.desk.stored == [(bytes(100) + pattern(50_000))[1000:21_000]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["fetch", "store"])
async def test_eight_mebibytes_through_a_terrible_network(kind: str, seed: int) -> None:
    net = FakeNetwork(seed=seed, latency=0.001, jitter=0.01, loss=0.2, duplicates=0.2)
    async with world(net) as w:
        connection = await w.bind(patience=60)
        size = 8 << 20
        if kind == "fetch":
            sink = BytesSink()
            assert (await connection.call(FETCH, number(size), sink=sink)).moved == size
            assert sink.data == pattern(size)
        else:
            await connection.call(STORE, source=BytesSource(pattern(size)))
            assert w.desk.stored == [pattern(size)]
        assert w.net.counters["sent"] < 2.5 * size / 1378


@pytest.mark.parametrize("latency", [0.0001, 0.02, 0.15])
async def test_a_clean_network_is_used_well(latency: float) -> None:
    async with world(FakeNetwork(latency=latency)) as w:
        connection = await w.bind()
        size = 64 * 1378 * 20
        start = trio.current_time()
        await connection.call(FETCH, number(size), sink=BytesSink())
        # A window per round trip, and nothing twice.
        assert trio.current_time() - start < 2 * latency * 22.5 + 0.01
        await connection.call(STORE, source=BytesSource(pattern(size)))
        for side in (w.client, w.server):
            assert side.statistics().get("data_resent", 0) == side.statistics().get("retries", 0) == 0
        assert w.client.estimate(SERVER).bandwidth is not None


async def test_acknowledgements_are_few_on_a_fast_network() -> None:
    async with world(FakeNetwork(latency=0.0001)) as w:
        connection = await w.bind()
        await connection.call(FETCH, number(1378 * 1000), sink=BytesSink())
        assert w.client.statistics()["packets_out"] < 1000 / 4


async def test_a_long_transfer_is_not_disturbed_by_retries() -> None:
    async with world(FakeNetwork(latency=0.2)) as w:
        connection = await w.bind()
        await connection.call(FETCH, number(3_000_000), sink=BytesSink())
        assert w.client.statistics().get("retries", 0) <= 2


@pytest.mark.parametrize("kind", ["fetch", "store"])
async def test_a_reply_lost_after_a_long_transfer_is_asked_for_at_once(kind: str) -> None:
    async with world(FakeNetwork(latency=0.02)) as w:
        connection = await w.bind()
        size = 1_000_000  # takes longer than the 100 ms after which the server says BUSY
        (link,) = w.server._core.hub.links.values()
        transmit, lost = link.transmit, list[bytes]()

        def lose_first_reply(packet: bytes) -> None:
            if lost or split(packet)[0].opcode != Op.REPLY:
                transmit(packet)
            else:
                lost.append(packet)

        link.transmit = lose_first_reply  # type: ignore[method-assign]
        start = trio.current_time()
        if kind == "fetch":
            await connection.call(FETCH, number(size), sink=BytesSink())
        else:
            await connection.call(STORE, source=BytesSource(pattern(size)))
        assert w.client.statistics()["busy"] >= 1
        assert w.server.statistics()["replies_repeated"] >= 1
        assert trio.current_time() - start < 1.5


@pytest.mark.parametrize("kind", ["fetch", "store"])
async def test_a_peer_that_vanishes_in_mid_transfer(kind: str) -> None:
    async with world() as w, trio.open_nursery() as nursery:
        connection = await w.bind()

        async def vanish() -> None:
            await trio.sleep(0.05)
            w.net.partition(CLIENT[0])

        nursery.start_soon(vanish)
        start = trio.current_time()
        fetching = {"opcode": FETCH, "body": number(50 << 20), "sink": BytesSink()}
        storing = {"opcode": STORE, "source": BytesSource(pattern(50 << 20))}
        with pytest.raises(RpcError):
            await connection.call(**(fetching if kind == "fetch" else storing))  # type: ignore[arg-type]
        assert not connection.usable
        assert trio.current_time() - start < 50
        await trio.sleep(60)
        assert w.desk.running == 0


class Full:
    """A sink on a full disk."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")


class Shrinking(BytesSource):
    """A source that has fewer bytes than it said."""

    def read(self, offset: int, count: int) -> bytes:
        return super().read(offset, min(count, 2000))


@pytest.mark.parametrize("size", [500, 300_000])
async def test_a_sink_that_fails(size: int) -> None:
    async with world() as w:
        connection = await w.bind()
        with pytest.raises(RpcError) as caught:
            await connection.call(FETCH, number(size), sink=Full(size // 2))
        assert caught.value.code == Rpc2Code.SEFAIL3
        assert isinstance(caught.value.__cause__, OSError)
        assert not connection.usable


async def test_a_source_that_fails() -> None:
    async with world() as w:
        connection = await w.bind()
        with pytest.raises(RpcError) as caught:
            await connection.call(STORE, source=Shrinking(pattern(90_000)))
        assert caught.value.code == Rpc2Code.SEFAIL4
        assert not connection.usable
        assert w.desk.stored == []


@pytest.mark.parametrize("size", [600, 100_000])
async def test_more_than_the_server_wants(size: int) -> None:
    async with world() as w:
        w.desk.limit = 500
        connection = await w.bind()
        await connection.call(ECHO)
        reply = await connection.call(STORE, source=BytesSource(pattern(size)), patience=20)
        assert reply.code == Rpc2Code.SEFAIL3
        assert w.desk.stored == []
        assert not connection.usable


@pytest.mark.parametrize("size", [600, 100_000])
async def test_a_source_that_fails_at_the_server(size: int) -> None:
    class Torn(Desk):
        async def call(self, connection: ServerConnection, request: Request) -> Reply:
            await request.send(Broken(bytes(size)))
            return Reply(0)

    class Broken(BytesSource):
        def read(self, offset: int, count: int) -> bytes:
            raise OSError(5, "I/O error")

    async with world() as w:
        w.server.serve(5, Torn())
        connection = await w.bind(subsystem=5)
        reply = await connection.call(FETCH, sink=BytesSink(), patience=20)
        assert reply.code == Rpc2Code.SEFAIL4


async def test_a_file_too_large_for_the_reply_after_all() -> None:
    class Wordy(Desk):
        async def call(self, connection: ServerConnection, request: Request) -> Reply:
            await request.send(BytesSource(pattern(1000)))
            return Reply(0, bytes(1000))

    async with world() as w:
        w.server.serve(5, Wordy())
        connection = await w.bind(subsystem=5)
        sink = BytesSink()
        w.net.tap = lambda datagram, *_: len(datagram) <= 1472  # an Ethernet frame
        assert await connection.call(FETCH, sink=sink) == Reply(0, bytes(1000), 1000)
        assert sink.data == pattern(1000)


async def test_a_small_file_rides_with_a_reply_in_fragments_while_these_arrive() -> None:
    class Wide(Desk):
        async def call(self, connection: ServerConnection, request: Request) -> Reply:
            await request.send(BytesSource(pattern(4000)))
            return Reply(0, b"")

    async with world() as w:
        w.server.serve(5, Wide())
        connection = await w.bind(subsystem=5)
        sizes: list[int] = []

        def frames(datagram: bytes, *_: object) -> bool:
            sizes.append(len(datagram))
            return len(datagram) <= 1472 or fragments

        w.net.tap = frames
        for fragments in (True, False, True):  # noqa: B007  # the tap looks at it
            sizes.clear()
            sink = BytesSink()
            assert (await connection.call(FETCH, sink=sink)).code == 0
            assert sink.data == pattern(4000)
            if sizes[-1] > 4000:
                assert len(sizes) <= 3, "a request and its reply"
        assert max(sizes) <= 1472, "once lost, no more are tried"


async def test_no_files_without_side_effects() -> None:
    async with world() as w:
        connection = await w.bind(side_effects=False)
        with pytest.raises(RpcError) as caught:
            await connection.call(FETCH, number(5), sink=BytesSink())
        assert caught.value.code == Rpc2Code.SEFAIL1
        assert (await connection.call(FETCH, number(5))).code == Rpc2Code.SEFAIL1


PARAMETERS = st.builds(
    SftpParameters,
    window=st.integers(1, 64),
    send_ahead=st.integers(1, 64),
    ack_point=st.integers(1, 64),
    packet_size=st.sampled_from([240, 500, 1084, 1438, 2800, 4286]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PARAMETERS, PARAMETERS, st.integers(0, 120_000), st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_any_parameters_on_either_side(
    ours: SftpParameters, theirs: SftpParameters, size: int, seed: int, loss: float
) -> None:
    async def main() -> None:
        net = FakeNetwork(seed=seed, latency=0.002, jitter=0.004, loss=loss, duplicates=loss)
        async with world(net, client_sftp=ours, server_sftp=theirs) as w:
            connection = await w.bind(patience=60)
            sink = BytesSink()
            await connection.call(FETCH, number(size), sink=sink)
            assert sink.data == pattern(size)
            await connection.call(STORE, source=BytesSource(pattern(size, seed)))
            assert w.desk.stored == [pattern(size, seed)]

    trio.run(main, clock=MockClock(autojump_threshold=0))
