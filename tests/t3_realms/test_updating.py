"""vice.md §6.4, reintegration.md §2 and §3: updates at all servers, mixed answers, second phases, large
stores."""

from functools import partial
from typing import Any

import pytest
import trio

from realmfs.realms import handles
from realmfs.realms.handles import HandleStore
from realmfs.realms.tokens import News
from realmfs.realms.types import ANYUSER, Reintegrated
from realmfs.rpc2.service import Request, ServerConnection
from realmfs.rpc2.transfer import BytesSource
from realmfs.vice.calls import (
    CloseReintHandle,
    Cop2,
    FetchPartial,
    GetAttr,
    OpenReintHandle,
    QueryReintHandle,
    Reintegrate,
    Resolve,
    SendReintFragment,
    SetAcl,
    SetVolumeStatus,
)
from realmfs.vice.cop2 import PIGGY_ENTRIES
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.tokens import Token
from realmfs.vice.types import Fid, ObjectType, StoreId
from tests.t3_realms.vicepeer import DIRECTORY, FILE, VOLUME, VicePeer, status, vector
from tests.t3_realms.world import HOSTS, World

LOG = b"a packed log of some records"


def answers(peer: VicePeer, *codes: int, index: int = -1) -> None:
    """Let a server answer these codes to Reintegrate, one after the other, and then succeed."""
    left = list(codes)

    async def answer(request: Reintegrate, connection: ServerConnection, transfer: Request) -> Any:
        code, reply = await peer.do_reintegrate(request, connection, transfer)
        if not left:
            return code, reply
        peer.logs.pop()
        return left.pop(0), Reintegrate.Reply(index=index, stale_dirs=(), new_stamp=0, promised=False)

    peer.on[Reintegrate] = answer


async def reintegrated(world: World, **options: Any) -> Reintegrated:
    return await (await world.group()).reintegrate(LOG, ANYUSER, **options)


async def test_everybody_executes_the_same_bytes(servers: World) -> None:
    result = await reintegrated(servers)
    assert result == Reintegrated(Code.SUCCESS, -1, (0, 1, 2), uncertain=False)
    assert all(peer.logs == [LOG] for peer in servers.peers)
    request = servers.peers[0].asked(Reintegrate)[0]
    assert (request.volume, request.log_size, request.max_stale_dirs) == (VOLUME, len(LOG), 50)


async def test_contents_are_fetched_back_by_every_server_meanwhile(servers: World) -> None:
    servers.events.contents[FILE] = b"frozen" * 1000

    def fetching(peer: VicePeer) -> None:
        async def answer(request: Reintegrate, connection: ServerConnection, transfer: Request) -> Any:
            assert await peer.fetch_back(FILE) == (0, b"frozen" * 1000)
            return await peer.do_reintegrate(request, connection, transfer)

        peer.on[Reintegrate] = answer

    servers.each(fetching)
    assert (await reintegrated(servers)).update_set == (0, 1, 2)


async def test_busy_servers_get_the_same_bytes_again_before_anything_else(servers: World) -> None:
    answers(servers.peers[1], Code.EWOULDBLOCK, Code.EWOULDBLOCK, Code.EWOULDBLOCK)
    answers(servers.peers[2], Code.EWOULDBLOCK)
    result = await reintegrated(servers)
    assert result.update_set == (0, 1, 2)
    assert not result.needs_resolve
    assert [len(peer.asked(Reintegrate)) for peer in servers.peers] == [1, 4, 2]
    assert all(peer.logs == [LOG] for peer in servers.peers)
    assert not any(peer.asked(Cop2) or peer.asked(Resolve) for peer in servers.peers)


async def test_a_server_that_stays_busy_is_left_to_resolution(servers: World) -> None:
    answers(servers.peers[2], *[Code.EWOULDBLOCK] * 1000)
    start = trio.current_time()
    result = await reintegrated(servers)
    assert 25 < trio.current_time() - start < 35
    assert result.code is Code.SUCCESS
    assert result.update_set == (0, 1)
    assert result.needs_resolve
    assert not result.uncertain


async def test_nobody_executed_and_some_are_busy(servers: World) -> None:
    servers.each(lambda peer: answers(peer, Code.EWOULDBLOCK))
    start = trio.current_time()
    result = await reintegrated(servers)
    assert result.code is Code.EWOULDBLOCK
    assert not result.uncertain
    assert trio.current_time() - start < 1


async def test_a_refusal_does_not_count_while_others_are_busy(servers: World) -> None:
    answers(servers.peers[1], Code.ENOENT)
    for peer in (servers.peers[0], servers.peers[2]):
        answers(peer, Code.EWOULDBLOCK)
    result = await reintegrated(servers)
    assert (result.code, result.index) == (Code.EWOULDBLOCK, -1)
    assert not result.uncertain


async def test_after_two_clashes_servers_are_asked_in_order(servers: World) -> None:
    for _ in range(2):
        answers(servers.peers[1], Code.EWOULDBLOCK)
        await reintegrated(servers)
    answers(servers.peers[0], Code.EWOULDBLOCK)
    before = [len(peer.asked(Reintegrate)) for peer in servers.peers]
    assert (await reintegrated(servers)).code is Code.EWOULDBLOCK
    after = [len(peer.asked(Reintegrate)) for peer in servers.peers]
    assert [a - b for a, b in zip(after, before, strict=True)] == [1, 0, 0], "the first one decides"
    order: list[int] = []

    def noting(peer: VicePeer) -> None:
        async def answer(request: Reintegrate, connection: ServerConnection, transfer: Request) -> Any:
            order.append(peer.slot)
            await trio.sleep(0.1)
            order.append(peer.slot)
            return await peer.do_reintegrate(request, connection, transfer)

        peer.on[Reintegrate] = answer

    servers.each(noting)
    assert (await reintegrated(servers)).update_set == (0, 1, 2)
    assert order == [0, 0, 1, 1, 2, 2]
    order.clear()
    await reintegrated(servers)
    assert sorted(order[:3]) == [0, 1, 2], "all at once again"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([Code.EINCOMPATIBLE] * 3, Code.EINCOMPATIBLE),
        ([Code.EEXIST] * 3, Code.EEXIST),
        ([Code.EDQUOT] * 3, Code.EDQUOT),
        ([Code.EEXIST, Code.ENOENT, Code.ENOENT], Code.ERETRY),
        ([Code.VLOGSTALE, Code.ENOENT, Code.ENOENT], Code.EALREADY),
    ],
)
async def test_failures(servers: World, codes: list[Code], expected: Code) -> None:
    for peer, code in zip(servers.peers, codes, strict=True):
        answers(peer, code, index=peer.slot + 4)
    result = await reintegrated(servers)
    assert result.code is expected
    assert result.update_set == ()
    assert result.index == (-1 if expected is Code.ERETRY else 4)


async def test_what_is_already_there_is_told_by_an_unsigned_number(servers: World) -> None:
    servers.each(lambda peer: answers(peer, Code.VLOGSTALE, index=-2))
    result = await reintegrated(servers)
    assert (result.code, result.index) == (Code.EALREADY, 0xFFFFFFFE)


async def test_who_had_it_already_is_told_apart_from_who_executed_it_now(servers: World) -> None:
    answers(servers.peers[0], Code.VLOGSTALE, index=9)
    result = await reintegrated(servers)
    assert (result.code, result.update_set, result.known) == (Code.SUCCESS, (1, 2), (0,))


async def test_any_success_counts(servers: World) -> None:
    answers(servers.peers[0], Code.EINCOMPATIBLE, index=3)
    result = await reintegrated(servers)
    assert result.code is Code.SUCCESS
    assert result.update_set == (1, 2)
    assert result.needs_resolve


async def test_a_server_dying_meanwhile_leaves_doubt(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    servers.peers[1].delay[Reintegrate] = 1.0

    async def die() -> None:
        await trio.sleep(0.5)
        servers.net.partition(HOSTS[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        result = await reintegrated(servers)
    assert result.update_set == (0, 2)
    assert result.uncertain
    assert not result.needs_resolve, "it is down; its return makes everything suspect anyway"


async def test_a_server_known_to_be_down_leaves_none(servers: World) -> None:
    group = await servers.group()
    servers.net.partition(HOSTS[1])
    await group.get_attr(FILE, ANYUSER)
    result = await reintegrated(servers)
    assert result.update_set == (0, 2)
    assert not result.uncertain


async def test_without_servers_nothing_was_sent(servers: World) -> None:
    group = await servers.group()
    servers.net.partition("10.0.0.9")
    with pytest.raises(CodaError):
        await group.get_attr(FILE, ANYUSER)
    with pytest.raises(CodaError) as caught:
        await group.reintegrate(LOG, ANYUSER)
    assert caught.value.code is Code.ETIMEDOUT


async def test_stale_directories_of_all_answers(servers: World) -> None:
    for peer, directory in zip(servers.peers, (3, 5, 3), strict=True):
        stale = (Fid(VOLUME, directory, 1),)

        reply = Reintegrate.Reply(index=1, stale_dirs=stale, new_stamp=0, promised=False)
        peer.on[Reintegrate] = partial(_replies, reply)
    result = await reintegrated(servers)
    assert sorted(result.stale_dirs) == [Fid(VOLUME, 3, 1), Fid(VOLUME, 5, 1)]


def _replies(reply: Reintegrate.Reply, _: Reintegrate) -> tuple[Code, Reintegrate.Reply]:
    return Code.SUCCESS, reply


async def test_resolution_waits_for_our_own_update(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.each(lambda peer: peer.delay.__setitem__(Reintegrate, 2.0))
    done: list[str] = []

    async def update() -> None:
        await reintegrated(servers)
        done.append("update")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(update)
        await trio.sleep(0.1)
        await group.resolve(DIRECTORY)
        done.append("resolve")
    assert done == ["update", "resolve"]


# second phases


async def test_second_phases_ride_on_group_wide_calls(servers: World) -> None:
    group = await servers.group()
    for number in range(PIGGY_ENTRIES):
        group.queue_cop2(StoreId(9, number), (0, 1, 2))
    await group.get_attr(FILE, ANYUSER)
    group.queue_cop2(StoreId(9, PIGGY_ENTRIES), (0, 1, 2))
    await reintegrated(servers)
    await trio.sleep(10)
    for peer in servers.peers:
        assert [entry.store_id.uniquifier for entry in peer.cop2] == list(range(PIGGY_ENTRIES + 1))
        assert peer.cop2[0].slots == (0, 1, 2)
        assert not peer.asked(Cop2)


async def test_those_that_get_no_ride_go_by_themselves_soon(servers: World) -> None:
    """Another client that looks before finds replicas that differ, and has each of them resolved."""
    group = await servers.group()
    for number in range(1000):
        group.queue_cop2(StoreId(9, number), (0, 2))
    await trio.sleep(0.5)
    group.queue_cop2(StoreId(9, 1000), (0, 2))
    await trio.sleep(0.5)
    assert not len(group.core.cop2)
    for peer in servers.peers:
        assert [entry.store_id.uniquifier for entry in peer.cop2] == list(range(1001))
        assert all(entry.slots == (0, 2) for entry in peer.cop2)


@pytest.mark.parametrize("count", [1, PIGGY_ENTRIES, PIGGY_ENTRIES + 1, 500])
async def test_no_update_overtakes_the_second_phases_of_earlier_ones(servers: World, count: int) -> None:
    """A server marks an object once, and the first second phase ends the mark (realms/cop2.py)."""
    group = await servers.group()
    servers.each(lambda peer: peer.delay.__setitem__(Cop2, 0.1))
    before: list[int] = []

    def count_before(peer: VicePeer) -> None:
        def answer(request: Reintegrate, connection: ServerConnection, transfer: Request) -> Any:
            before.append(len(peer.cop2))
            return peer.do_reintegrate(request, connection, transfer)

        peer.on[Reintegrate] = answer

    servers.each(count_before)
    for number in range(count):
        group.queue_cop2(StoreId(9, number), (0, 1, 2))
    await reintegrated(servers)
    assert before == [count] * 3


async def test_one_of_a_later_update_is_not_taken_for_delivered(servers: World) -> None:
    """A directory may keep its store id through several updates."""
    group = await servers.group()
    servers.each(lambda peer: peer.delay.__setitem__(Cop2, 1.0))
    group.queue_cop2(StoreId(9, 1), (0, 1, 2))
    await trio.sleep(0.5)
    assert all(len(peer.cop2) == 0 and peer.asked(Cop2) for peer in servers.peers)
    group.queue_cop2(StoreId(9, 1), (0, 1, 2))
    await trio.sleep(10)
    assert all(len(peer.cop2) == 2 for peer in servers.peers)


async def test_a_failed_call_keeps_them(servers: World) -> None:
    group = await servers.group()
    group.queue_cop2(StoreId(9, 1), (0, 1, 2))
    servers.each(lambda peer: peer.on.__setitem__(GetAttr, lambda _: Code.VNOVNODE))
    with pytest.raises(CodaError):
        await group.get_attr(FILE, ANYUSER)
    assert len(group.core.cop2) == 1


@pytest.mark.parametrize("call", ["alloc", "resolve", "fetch"])
async def test_they_go_before_a_call_to_a_single_server(servers: World, call: str) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    for number in range(100):
        group.queue_cop2(StoreId(9, number), (0, 1, 2))
    if call == "alloc":
        await group.alloc_fids(ObjectType.FILE, 1, ANYUSER)
    elif call == "resolve":
        await group.resolve(FILE)
    else:
        await group.fetch(
            FILE, ANYUSER, lambda _: _Nowhere(), vv=vector(2, 2, 2), length=8, offset=1, ask_all=False
        )
    for peer in servers.peers:
        assert len(peer.cop2) == 100
        assert len(peer.asked(Cop2)) == 2
        last = max(i for i, request in enumerate(peer.calls) if isinstance(request, Cop2))
        single = [i for i, r in enumerate(peer.calls) if isinstance(r, (Resolve, FetchPartial)) and i > 2]
        assert all(i > last for i in single)


class _Nowhere:
    def write(self, data: bytes) -> None:
        pass


# the other updates


async def test_an_access_list(servers: World) -> None:
    group = await servers.group()
    store_id = StoreId(77, 1)
    old = status(DIRECTORY, vector(1, 1, 1))
    new = await group.set_acl(DIRECTORY, b"1\n0\nadam 127\n", old, store_id, ANYUSER)
    assert new.vv == vector(2, 2, 2).with_store_id(store_id)
    assert not new.callback
    assert servers.peers[0].asked(SetAcl)[0].acl.endswith(b"\n\0")
    await group.flush_cop2()
    assert [(e.store_id, e.slots) for e in servers.peers[1].cop2] == [(store_id, (0, 1, 2))]


async def test_an_access_list_at_a_busy_server_is_repeated_identically(servers: World) -> None:
    group = await servers.group()
    peer = servers.peers[1]
    busy = [Code.EWOULDBLOCK] * 2
    peer.on[SetAcl] = lambda request: busy.pop() if busy else peer.do_set_acl(request)
    await group.set_acl(DIRECTORY, b"x", status(DIRECTORY, vector(1, 1, 1)), StoreId(7, 7), ANYUSER)
    asked = peer.asked(SetAcl)
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    assert not any(p.asked(Resolve) for p in servers.peers)


async def test_an_access_list_on_an_old_version(servers: World) -> None:
    group = await servers.group()
    with pytest.raises(CodaError) as caught:
        await group.set_acl(DIRECTORY, b"x", status(DIRECTORY, vector(0, 1, 1)), StoreId(7, 7), ANYUSER)
    assert caught.value.code is Code.ERETRY
    assert not len(group.core.cop2)


async def test_a_quota(servers: World) -> None:
    group = await servers.group()
    servers.each(
        lambda peer: peer.on.__setitem__(SetVolumeStatus, lambda _: (0, SetVolumeStatus.Reply.zero()))
    )
    await group.set_volume_status(StoreId(7, 8), ANYUSER, max_quota=1000)
    request = servers.peers[2].asked(SetVolumeStatus)[0]
    assert request.status.max_quota == 1000
    assert request.status.min_quota == -1
    assert len(group.core.cop2) == 1


async def test_an_update_is_not_made_as_nobody(servers: World, token: Token) -> None:
    realm = await servers.realm()
    realm.set_token(1001, token)  # which no server accepts
    told: list[tuple[str, int, News]] = []
    servers.realms.tokens.listener = lambda held, news: told.append((held.realm, held.uid, news))
    group = await servers.group()
    with pytest.raises(CodaError) as caught:
        await group.reintegrate(LOG, 1001)
    assert caught.value.code is Code.EPERM
    assert told == [("r.test", 1001, News.REFUSED)]
    assert realm.token(1001) is None
    assert not any(peer.logs for peer in servers.peers)
    realm.set_token(1001, token)
    assert (await group.get_attr(FILE, 1001)).status.length == 8, "reading goes on as nobody"


async def test_a_good_token_is_used(servers: World, token: Token) -> None:
    servers.each(lambda peer: peer.secrets.__setitem__(token.secret, token.clear.handshake_key))
    realm = await servers.realm()
    realm.set_token(1001, token)
    await (await servers.group()).reintegrate(LOG, 1001)
    assert all(any(offer.ident == token.secret for offer in peer.offers) for peer in servers.peers)


# large stores


async def by_handle(world: World, store: HandleStore) -> Reintegrated:
    return await (await world.group()).store_by_handle(store, b"the record")


async def test_a_large_store_goes_to_all(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "FRAGMENT", 30_000)
    data = bytes(range(250)) * 400
    result = await by_handle(servers, HandleStore(FILE, BytesSource(data), ANYUSER))
    assert result == Reintegrated(Code.SUCCESS, -1, (0, 1, 2), uncertain=False)
    for peer in servers.peers:
        assert bytes(peer.containers[1]) == data
        assert peer.logs == [b"the record"]
        assert [f.length for f in peer.asked(SendReintFragment)] == [30_000, 30_000, 30_000, 10_000]


async def test_an_interrupted_store_goes_on(servers: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "FRAGMENT", 20_000)
    data = bytes(range(250)) * 400
    store = HandleStore(FILE, BytesSource(data), ANYUSER)
    await (await servers.group()).get_attr(FILE, ANYUSER)

    def cut(datagram: bytes, sender: tuple[str, int], receiver: tuple[str, int]) -> bool:
        if len(servers.peers[0].containers.get(1, b"")) >= 40_000:
            servers.net.partition("10.0.0.9")
        return True

    servers.net.tap = cut
    result = await by_handle(servers, store)
    assert result.code is Code.ETIMEDOUT
    assert not result.uncertain
    servers.net.tap = None
    servers.net.heal()
    await trio.sleep(10)
    result = await by_handle(servers, store)
    assert result.update_set == (0, 1, 2)
    for peer in servers.peers:
        assert bytes(peer.containers[1]) == data
        assert len(peer.asked(OpenReintHandle)) == 1
        assert len(peer.asked(QueryReintHandle)) == 1


async def test_a_handle_that_died_with_its_server(servers: World) -> None:
    data = b"x" * 1000
    store = HandleStore(FILE, BytesSource(data), ANYUSER)
    servers.peers[1].on[CloseReintHandle] = lambda _: Code.EBADF
    result = await by_handle(servers, store)
    assert result.update_set == (0, 2)
    assert result.needs_resolve
    assert 1 not in store.containers


async def test_large_stores_are_executed_only_where_they_are_whole(servers: World) -> None:
    servers.peers[2].on[SendReintFragment] = lambda _: Code.EDQUOT
    result = await by_handle(servers, HandleStore(FILE, BytesSource(b"x" * 1000), ANYUSER))
    assert result.update_set == (0, 1)
    assert not servers.peers[2].asked(CloseReintHandle)
    servers.each(lambda peer: peer.on.__setitem__(SendReintFragment, lambda _: Code.EDQUOT))
    result = await by_handle(servers, HandleStore(FILE, BytesSource(b"x" * 1000), ANYUSER))
    assert result.code is Code.EDQUOT
    assert not result.uncertain
