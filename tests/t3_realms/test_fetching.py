"""vice.md §5.2, §6.3: contents from a group: the newest, from one server, going on at another."""

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from realmfs.realms import fetching
from realmfs.realms.fetching import PIECE, SOMEBODY_ELSE, VersionChangedError
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.service import Request, ServerConnection
from realmfs.rpc2.transfer import BytesSource, Sink
from realmfs.vice.calls import WHOLE, FetchPartial, GetAttr, Resolve
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, StoreId
from tests.t3_realms.vicepeer import DIRECTORY, FILE, VOLUME, VicePeer, vector
from tests.t3_realms.world import HOSTS, World, world


@dataclass
class Bytes:
    """Where fetched bytes go; each restart cuts off what is void."""

    data: bytearray = field(default_factory=bytearray)
    starts: list[int] = field(default_factory=list)
    on_write: Callable[[int], None] = lambda _: None

    def __call__(self, offset: int) -> Sink:
        self.starts.append(offset)
        del self.data[offset - self.starts[0] :]
        return self

    def write(self, data: bytes) -> None:
        self.data += data
        self.on_write(len(self.data))


def fetches(peer: VicePeer) -> list[FetchPartial]:
    return [request for request in peer.asked(FetchPartial) if request.fid != Fid.zero()]


def sender(world: World) -> int:
    """The slot that was asked for data last."""
    return max(
        (slot for slot, peer in enumerate(world.peers) if any(f.primary_host == 0 for f in fetches(peer))),
        key=lambda slot: max(
            i for i, request in enumerate(world.peers[slot].calls) if isinstance(request, FetchPartial)
        ),
    )


async def test_a_cold_file_costs_one_round(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    calls = [len(peer.calls) for peer in servers.peers]
    into = Bytes()
    attributes = await group.fetch(FILE, ANYUSER, into)
    assert bytes(into.data) == b"contents"
    assert attributes.promised
    assert attributes.status.vv == vector(2, 2, 2)
    assert [len(peer.calls) - before for peer, before in zip(servers.peers, calls, strict=True)] == [1, 1, 1]
    hosts = sorted(fetches(peer)[0].primary_host for peer in servers.peers)
    assert hosts == [0, SOMEBODY_ELSE, SOMEBODY_ELSE]
    assert all(f.count == WHOLE and f.offset == 0 for peer in servers.peers for f in fetches(peer))


async def test_an_empty_file_and_a_directory(servers: World) -> None:
    group = await servers.group()
    empty = Fid(VOLUME, 20, 20)
    servers.put(empty, vector(1, 1, 1))
    into = Bytes()
    assert (await group.fetch(empty, ANYUSER, into)).status.length == 0
    assert (await group.fetch(empty, ANYUSER, into, vv=vector(1, 1, 1), length=0)).status.length == 0
    assert not into.data
    await group.fetch(DIRECTORY, ANYUSER, into, vv=vector(1, 1, 1), length=2048)
    assert bytes(into.data) == b"d" * 2048


async def test_the_newest_version_wins_over_what_came_first(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    newest = group.core.primary_of([0, 1, 2]) ^ 1 if group.core.primary_of([0, 1, 2]) < 2 else 0
    newer = vector(2, 2, 2, store=5).raised([newest])
    servers.put(FILE, newer, b"the newest contents", slots=(newest,))
    into = Bytes()
    attributes = await group.fetch(FILE, ANYUSER, into)
    assert bytes(into.data) == b"the newest contents"
    assert into.starts == [0, 0], "what the older server sent is void"
    assert not attributes.promised
    await trio.sleep(1)
    assert sum(len(peer.asked(Resolve)) for peer in servers.peers) == 1


async def test_large_files_come_in_pieces(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", 1000)
    group = await servers.group()
    data = random.Random(3).randbytes(4500)
    servers.put(FILE, vector(3, 3, 3), data)
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=4500)
    assert bytes(into.data) == data
    assert into.starts == [0, 1000, 2000, 3000, 4000]
    sending = servers.peers[sender(servers)]
    assert [(f.offset, f.count) for f in fetches(sending)] == [
        (0, 1000),
        (1000, 1000),
        (2000, 1000),
        (3000, 1000),
        (4000, 500),
    ]
    assert all(f.vv.versions[:3] == (3, 3, 3) for f in fetches(sending)[1:])
    assert all(len(fetches(peer)) == 1 for peer in servers.peers if peer is not sending)


async def test_a_part(servers: World) -> None:
    group = await servers.group()
    data = random.Random(4).randbytes(5000)
    servers.put(FILE, vector(3, 3, 3), data)
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into, offset=1234, count=100)  # the status is asked for first
    assert bytes(into.data) == data[1234:1334]
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=5000, offset=4990, count=4096)
    assert bytes(into.data) == data[4990:]
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=5000, offset=5000, count=4096)
    assert not into.data


@pytest.mark.parametrize("full_at", [1, 2500])
async def test_our_own_full_disk_is_no_servers_failure(
    servers: World, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    monkeypatch.setattr(fetching, "PIECE", 1000)
    group = await servers.group()
    servers.put(FILE, vector(3, 3, 3), bytes(4500))

    def full(size: int) -> None:
        if size >= full_at:
            raise OSError(errno.ENOSPC, "no room")

    into = Bytes(on_write=full)
    with pytest.raises(CodaError) as caught:
        await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=4500)
    assert caught.value.code is Code.ENOSPC
    assert (
        len([f for peer in servers.peers for f in fetches(peer) if f.primary_host == 0])
        == 1 + full_at // 1000
    )


async def test_a_promise_saves_asking_the_others(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    into = Bytes()
    attributes = await group.fetch(FILE, ANYUSER, into, vv=vector(2, 2, 2), length=8, offset=2, ask_all=False)
    assert bytes(into.data) == b"ntents"
    assert not attributes.promised
    assert sum(len(fetches(peer)) for peer in servers.peers) == 1


async def test_a_server_that_became_slow_is_left_in_the_middle_of_a_stream(servers: World) -> None:
    """The time to look at the choice again may come while its server, and no other, is being asked."""
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    core = group.core

    async def piece() -> int:
        known, before = servers.peers[0].objects[FILE], [len(fetches(peer)) for peer in servers.peers]
        await group.fetch(
            FILE, ANYUSER, Bytes(), vv=known.vv, length=len(known.data), offset=2, count=2, ask_all=False
        )
        asked = [len(fetches(peer)) - n for peer, n in zip(servers.peers, before, strict=True)]
        return asked.index(1)

    core.prefer(1)
    core._primary_until = trio.current_time() + servers.net.latency
    assert await piece() == 1
    core.servers[1].answered_in(2.0)
    assert await piece() != 1


async def test_another_version_than_the_known_one(servers: World) -> None:
    group = await servers.group()
    into = Bytes()
    for offset in (0, 3):
        with pytest.raises(VersionChangedError) as caught:
            await group.fetch(FILE, ANYUSER, into, vv=vector(1, 1, 1), length=8, offset=offset, count=4)
        assert caught.value.attributes.status.vv == vector(2, 2, 2)


async def test_who_goes_on_with_an_old_version_is_told_of_the_newer_one(servers: World) -> None:
    old, new = vector(2, 2, 2), vector(3, 3, 3, store=7)
    servers.put(FILE, new, b"new" * 1000, slots=(1, 2))
    servers.put(FILE, old, b"old" * 1000, slots=(0,))
    group = await servers.group()
    group.core.prefer(0)
    with pytest.raises(VersionChangedError) as caught:
        await group.fetch(FILE, ANYUSER, Bytes(), vv=old, length=3000, offset=1500)
    assert caught.value.attributes.status.vv.versions[:3] == (3, 3, 3)


async def test_a_change_between_two_pieces(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", 1000)
    group = await servers.group()
    servers.put(FILE, vector(3, 3, 3), bytes(3000))

    def change(size: int) -> None:
        if size == 1000:
            servers.put(FILE, vector(4, 4, 4, store=9), b"short now")

    into = Bytes(on_write=change)
    with pytest.raises(VersionChangedError) as caught:
        await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=3000)
    assert caught.value.attributes.status.length == 9


def dies_at(world: World, size: int, how: Callable[[str], None]) -> Bytes:
    """Returns where bytes go; after `size` of them the server that sends them dies, once."""
    killed: list[int] = []

    def kill(arrived: int) -> None:
        if arrived >= size and not killed:
            killed.append(sender(world))
            how(HOSTS[killed[0]])

    return Bytes(on_write=kill)


@pytest.mark.parametrize("known", [False, True])
async def test_the_first_piece_begins_anew_elsewhere(servers: World, known: bool) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    data = random.Random(5).randbytes(200_000)
    servers.put(FILE, vector(3, 3, 3), data)
    into = dies_at(servers, 100_000, servers.net.partition)
    start = trio.current_time()
    if known:
        attributes = await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=len(data))
    else:
        attributes = await group.fetch(FILE, ANYUSER, into)
    assert bytes(into.data) == data
    assert into.starts == [0, 0]
    assert attributes.promised
    assert trio.current_time() - start < 10


async def test_later_pieces_go_on_where_they_stopped(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", 100_000)
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    data = random.Random(6).randbytes(500_000)
    servers.put(FILE, vector(3, 3, 3), data)
    into = dies_at(servers, 250_000, servers.net.partition)
    await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=len(data))
    assert bytes(into.data) == data
    assert into.starts == [0, 100_000, 200_000, 200_000, 300_000, 400_000], "one piece twice"


async def test_a_restarted_server_in_mid_fetch(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PIECE", 50_000)
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    data = random.Random(7).randbytes(200_000)
    servers.put(FILE, vector(3, 3, 3), data)

    def restart(host: str) -> None:
        servers.nursery.start_soon(servers.restart_peer, HOSTS.index(host))

    into = dies_at(servers, 80_000, restart)
    await group.fetch(FILE, ANYUSER, into, vv=vector(3, 3, 3), length=len(data))
    assert bytes(into.data) == data


async def test_a_failed_transfer_is_tried_elsewhere(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    refusals: list[int] = []

    def failing(peer: VicePeer) -> None:
        async def answer(request: FetchPartial, connection: ServerConnection, transfer: Request) -> object:
            if request.primary_host == 0 and not refusals:
                refusals.append(peer.slot)
                return Rpc2Code.SEFAIL1
            return await peer.do_fetch_partial(request, connection, transfer)

        peer.on[FetchPartial] = answer

    servers.each(failing)
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into)
    assert bytes(into.data) == b"contents"
    assert len(refusals) == 1
    assert servers.events.count("down") == 0


async def test_no_server_can_send_it(servers: World) -> None:
    group = await servers.group()

    def failing(request: FetchPartial) -> int:
        return Code.EINVAL if request.fid == Fid.zero() else Rpc2Code.SEFAIL4

    servers.each(lambda peer: peer.on.__setitem__(FetchPartial, failing))
    with pytest.raises(CodaError) as caught:
        await group.fetch(FILE, ANYUSER, Bytes())
    assert caught.value.code is Code.EIO


async def test_too_few_bytes_are_noticed(servers: World) -> None:
    group = await servers.group()
    short: list[int] = []

    def cutting(peer: VicePeer) -> None:
        async def answer(request: FetchPartial, connection: ServerConnection, transfer: Request) -> object:
            if request.primary_host == 0 and request.fid == FILE and not short:
                short.append(peer.slot)
                await transfer.send(BytesSource(b"cont"))
                return peer.do_get_attr(GetAttr(fid=FILE))
            return await peer.do_fetch_partial(request, connection, transfer)

        peer.on[FetchPartial] = answer

    servers.each(cutting)
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into)
    assert bytes(into.data) == b"contents"
    assert short


async def test_a_server_that_sends_too_much_is_stopped(servers: World) -> None:
    group = await servers.group()

    async def flood(request: FetchPartial, _: ServerConnection, transfer: Request) -> object:
        if request.fid == Fid.zero():
            return Code.EINVAL
        await transfer.send(BytesSource(bytes(100_000)))
        return servers.peers[0].do_get_attr(GetAttr(fid=FILE))

    servers.each(lambda peer: peer.on.__setitem__(FetchPartial, flood))
    into = Bytes()
    with pytest.raises(CodaError):
        await group.fetch(FILE, ANYUSER, into, vv=vector(2, 2, 2), length=8, offset=2, count=4)
    assert len(into.data) <= 4


async def test_patience_lasts_while_data_advances(servers: World) -> None:
    group = await servers.group()
    data = bytes(2_000_000)
    servers.put(FILE, vector(3, 3, 3), data)
    await group.get_attr(FILE, ANYUSER)
    servers.net.latency = 0.15
    start = trio.current_time()
    into = Bytes()
    await group.fetch(FILE, ANYUSER, into, patience=3.0)
    assert len(into.data) == len(data)
    assert trio.current_time() - start > 3.0


async def test_waiting_second_phases_are_delivered_before_a_single_server_is_asked(servers: World) -> None:
    group = await servers.group()
    group.queue_cop2(StoreId(9, 1), (0, 1, 2))
    await group.fetch(FILE, ANYUSER, Bytes(), vv=vector(2, 2, 2), length=8, offset=2, ask_all=False)
    for peer in servers.peers:
        assert [entry.store_id for entry in peer.cop2] == [StoreId(9, 1)]


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(0, 5000),
    piece=st.integers(1, 2000),
    offset=st.integers(0, 6000),
    count=st.none() | st.integers(0, 6000),
    known=st.booleans(),
)
def test_any_range_is_what_it_should_be(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    piece: int,
    offset: int,
    count: int | None,
    known: bool,
) -> None:
    data = random.Random(size).randbytes(size)
    into = Bytes()

    async def fetch() -> None:
        async with world(tmp_path_factory.mktemp("world"), hosts=HOSTS[:1]) as servers:
            group = await servers.group()
            servers.put(FILE, vector(3), data, slots=(0,))
            vv, length = (vector(3), size) if known else (None, None)
            await group.fetch(FILE, ANYUSER, into, vv=vv, length=length, offset=offset, count=count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "PIECE", piece)
        trio.run(fetch, clock=MockClock(autojump_threshold=0))
    assert bytes(into.data) == (data[offset:] if count is None else data[offset : offset + count])


def test_a_piece_is_worth_a_round_trip() -> None:
    assert PIECE >= 1 << 20
