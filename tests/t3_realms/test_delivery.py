"""Data in good time: slow and stalled servers are helped out by others, and who is at work is left alone."""

import random
from collections.abc import Callable

import pytest
import trio
import trio.lowlevel

from realmfs.realms import fetching
from realmfs.realms.delivery import MID_FILE, Delivery, Runner
from realmfs.realms.round import Patience
from realmfs.realms.server import Answer
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.service import Request, ServerConnection
from realmfs.rpc2.transfer import BytesSource
from realmfs.vice.calls import FetchPartial, GetAttr
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid
from tests.t3_realms.test_fetching import Bytes, fetches
from tests.t3_realms.vicepeer import FILE, VicePeer, vector
from tests.t3_realms.world import HOSTS, World

WAITED = 1.0


def data_requests(world: World) -> list[int]:
    """Per server, how often it was asked for data."""
    return [sum(f.primary_host == 0 for f in fetches(peer)) for peer in world.peers]


async def promised(world: World, size: int) -> bytes:
    """Give every server a file that the client holds promises for, with connections to ask on."""
    group = await world.group()
    data = random.Random(size).randbytes(size)
    world.put(FILE, vector(3, 3, 3), data)
    for slot in range(len(world.peers)):
        group.core.prefer(slot)
        await fetch(world, len(data), Bytes())
    await group.get_attr(FILE, ANYUSER)
    group.core.prefer(0)
    world.each(lambda peer: peer.calls.clear())
    return data


async def fetch(world: World, size: int, into: Bytes) -> float:
    """Fetch all of the file; returns the seconds."""
    start = trio.current_time()
    group = await world.group()
    await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=size, ask_all=False)
    return trio.current_time() - start


def slow(peer: VicePeer, seconds: float) -> None:
    """Have a server take its time for data; BUSY comes only when it is asked again."""

    async def answer(request: FetchPartial, connection: ServerConnection, transfer: Request) -> object:
        await trio.sleep(seconds * (request.fid != Fid.zero()))
        return await peer.do_fetch_partial(request, connection, transfer)

    peer.on[FetchPartial] = answer


@pytest.mark.parametrize("size", [5000, 200_000])
async def test_a_lost_request_is_made_good_by_a_rival(servers: World, size: int) -> None:
    data = await promised(servers, size)
    servers.net.partition(HOSTS[0])
    into = Bytes()
    assert await fetch(servers, size, into) < 0.3
    assert bytes(into.data) == data
    assert sorted(data_requests(servers)) == [0, 0, 1]
    into = Bytes()
    assert await fetch(servers, size, into) < 0.1, "and goes on being the one that is asked"


async def test_who_says_busy_has_no_rival(servers: World) -> None:
    servers.net.latency = 0.001
    size = 5000
    data = await promised(servers, size)
    group = await servers.group()
    group.core.servers[0].answered_in(5.0)  # slow lately: BUSY comes first
    slow(servers.peers[0], 3.0)
    into = Bytes()
    assert await fetch(servers, size, into) >= 3.0
    assert bytes(into.data) == data
    assert data_requests(servers) == [1, 0, 0]


async def test_an_alarm_that_goes_off_when_the_last_runner_has_ended_asks_nobody(servers: World) -> None:
    group = await servers.group()
    asked: list[int] = []

    def body(slot: int, offset: int) -> bytes:
        asked.append(slot)
        return b""

    delivery = Delivery(
        core=group.core,
        user=ANYUSER,
        patience=Patience(5.0),
        opcode=FetchPartial.OPCODE,
        body=body,
        rivals=lambda: [1, 2],
        sink=Bytes(),
        at=0,
        end=None,
        limit=5000,
    )
    ended = Runner(group.core.servers[0], 0, 0, trio.current_time())
    ended.answer = Answer(Code.EIO, b"", sent=True, heard=True, epoch=0, breaks=0)
    delivery.runners.append(ended)
    assert delivery._help(), "what the one brought decides"
    await trio.lowlevel.checkpoint()
    assert asked == []


async def test_a_rival_helps_one_stalled_server_at_a_time(servers: World) -> None:
    size = 100_000
    data = await promised(servers, size)
    servers.net.partition(HOSTS[0])
    servers.net.partition(HOSTS[1])
    group = await servers.group()
    most = 0

    async def one() -> None:
        into = Bytes()
        group.core.prefer(0)
        await fetch(servers, size, into)
        assert bytes(into.data) == data

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, *(server.helps for server in group.core.servers.values()))
            await trio.sleep(0.005)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with trio.open_nursery() as fetching_all:
            for _ in range(5):
                fetching_all.start_soon(one)
        nursery.cancel_scope.cancel()
    assert most == 1


@pytest.mark.parametrize("how", ["cut", "killed"])
async def test_the_reader_does_not_notice_a_death_in_mid_file(
    servers: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(fetching, "PIECE", 400_000)
    servers.net.latency = 0.001
    size = 1_500_000
    data = await promised(servers, size)
    last, longest, died = trio.current_time(), 0.0, False

    def arrived(so_far: int) -> None:
        nonlocal last, longest, died
        now = trio.current_time()
        longest, last = max(longest, now - last), now
        if so_far > 0.3 * size and not died:
            died = True
            kill: Callable[[str], None] = servers.net.partition if how == "cut" else servers.stop_peer
            kill(HOSTS[0])

    last = trio.current_time()
    into = Bytes(on_write=arrived)
    await fetch(servers, size, into)
    assert bytes(into.data) == data
    assert died
    assert MID_FILE <= longest < MID_FILE + 0.2
    await trio.sleep(5)
    assert servers.events.count("down", HOSTS[0]) == 1, "it was looked after"


async def test_only_an_equal_version_goes_on(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", 100_000)
    size = 300_000
    data = await promised(servers, size)
    servers.put(FILE, vector(3, 4, 3), bytes(size), slots=(1,))
    died = False

    def arrived(so_far: int) -> None:
        nonlocal died
        if so_far > 150_000 and not died:
            died = True
            servers.net.partition(HOSTS[0])

    into = Bytes(on_write=arrived)
    group = await servers.group()
    group.core.servers[2].answered_in(1.0)  # so that the one with another version is tried first
    try:
        await fetch(servers, size, into)
    except fetching.VersionChangedError:
        assert into.data == data[: len(into.data)]
    else:
        assert bytes(into.data) == data


async def test_a_slow_loser_with_little_to_come_keeps_its_connection(servers: World) -> None:
    servers.net.latency = 0.001
    size = 5000
    await promised(servers, size)
    group = await servers.group()
    links, offers = len(group.core.servers[0].links), len(servers.peers[0].offers)
    slow(servers.peers[0], 0.12)
    assert await fetch(servers, size, Bytes()) < 0.1
    await trio.sleep(1)
    assert len(group.core.servers[0].links) == links
    assert data_requests(servers)[0] == 1
    assert len(servers.peers[0].offers) == offers


async def test_the_fastest_lately_is_the_primary(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    for slot, seconds in enumerate((0.2, 0.01, 0.3)):
        group.core.servers[slot].answered_in(seconds)
    assert {group.core.fastest((0, 1, 2)) for _ in range(20)} == {1}
    assert {group.core.fastest((0, 2)) for _ in range(20)} == {0}
    await trio.sleep(100)
    assert len({group.core.fastest((0, 1, 2)) for _ in range(50)}) > 1, "old news do not count"


async def test_a_cold_file_still_rests_on_all_versions(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.put(FILE, vector(3, 3, 3), b"old")
    servers.put(FILE, vector(4, 3, 3), b"newest", slots=(0,))
    group.core.prefer(0)
    answer = servers.peers[0].do_fetch_partial

    async def late(request: FetchPartial, connection: ServerConnection, transfer: Request) -> object:
        await trio.sleep(WAITED * (request.fid == FILE))
        return await answer(request, connection, transfer)

    servers.peers[0].on[FetchPartial] = late
    into = Bytes()
    attributes = await group.fetch(FILE, ANYUSER, into)
    assert bytes(into.data) == b"newest"
    assert attributes.status.vv == vector(4, 3, 3)


async def test_a_short_answer_of_a_rival_is_noticed(servers: World) -> None:
    size = 5000
    data = await promised(servers, size)
    servers.net.partition(HOSTS[0])

    async def cut(request: FetchPartial, _: ServerConnection, transfer: Request) -> object:
        await transfer.send(BytesSource(data[:100]))
        return servers.peers[1].do_get_attr(GetAttr(fid=FILE))

    servers.peers[1].on[FetchPartial] = cut
    group = await servers.group()
    group.core.servers[2].answered_in(1.0)
    into = Bytes()
    await fetch(servers, size, into)
    assert bytes(into.data) == data
