"""Large stores brought to servers ahead of their record; what servers may die of; who is tried first."""

import pytest

from realmfs.realms import handles
from realmfs.realms.handles import HandleStore
from realmfs.realms.types import ANYUSER
from realmfs.realms.updating import ORDERED_FROM
from realmfs.rpc2.transfer import BytesSource
from realmfs.vice.calls import CloseReintHandle, OpenReintHandle, Reintegrate, SendReintFragment
from realmfs.vice.errors import Code
from tests.t3_realms.vicepeer import FILE, VicePeer
from tests.t3_realms.world import HOSTS, World

LOG = b"a packed log of some records"
DATA = bytes(range(250)) * 400


async def test_contents_come_first_and_the_record_later(
    servers: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "FRAGMENT", 30_000)
    group = await servers.group()
    store = HandleStore(FILE, BytesSource(DATA), ANYUSER)
    told: list[int] = []
    store.progress = told.append
    assert (await group.fill_handles(store)).code is Code.SUCCESS
    assert sum(told) == 3 * len(DATA)
    assert store.sent == len(DATA)
    assert not any(peer.asked(CloseReintHandle) for peer in servers.peers)
    result = await group.store_by_handle(store, LOG)
    assert (result.code, result.update_set) == (Code.SUCCESS, (0, 1, 2))
    assert all(len(peer.asked(SendReintFragment)) == 4 for peer in servers.peers), "nothing went twice"


async def test_another_process_goes_on_with_the_handles(
    servers: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handles, "FRAGMENT", 30_000)
    group = await servers.group()
    first = HandleStore(FILE, BytesSource(DATA), ANYUSER)
    notes: list[bytes] = []
    first.changed = lambda: notes.append(first.dump())
    await group.fill_handles(first)
    second = HandleStore(FILE, BytesSource(DATA), ANYUSER)
    second.load(notes[-1])
    assert (await group.store_by_handle(second, LOG)).update_set == (0, 1, 2)
    assert all(len(peer.asked(OpenReintHandle)) == 1 for peer in servers.peers)
    assert all(len(peer.asked(SendReintFragment)) == 4 for peer in servers.peers)


@pytest.mark.parametrize("note", [None, b"", b"[]", b"{", b'{"x": [1]}', b'{"0": [1, 2]}', b'{"0": 5}'])
def test_a_senseless_note_is_none(note: bytes | None) -> None:
    store = HandleStore(FILE, BytesSource(DATA), ANYUSER)
    store.load(note)
    assert store.containers == {}


async def test_contents_missing_at_a_server_that_is_up_are_not_enough(servers: World) -> None:
    group = await servers.group()
    store = HandleStore(FILE, BytesSource(DATA), ANYUSER)
    servers.peers[1].on[SendReintFragment] = lambda _: Code.EWOULDBLOCK
    assert (await group.fill_handles(store)).code is not Code.SUCCESS
    del servers.peers[1].on[SendReintFragment]
    assert (await group.fill_handles(store)).code is Code.SUCCESS


async def test_a_refused_upload_tells_why(servers: World) -> None:
    group = await servers.group()

    def refuse(peer: VicePeer) -> None:
        peer.on[OpenReintHandle] = lambda _: Code.EACCES

    servers.each(refuse)
    result = await group.fill_handles(HandleStore(FILE, BytesSource(DATA), ANYUSER))
    assert (result.code, result.uncertain) == (Code.EACCES, False)


async def test_a_closed_handle_names_no_record(servers: World) -> None:
    """Its reply has no index where that of a log has one (reintegration.md §3)."""
    group = await servers.group()

    def done(peer: VicePeer) -> None:
        peer.on[CloseReintHandle] = lambda _: Code.VLOGSTALE

    servers.each(done)
    result = await group.store_by_handle(HandleStore(FILE, BytesSource(DATA), ANYUSER), LOG)
    assert (result.code, result.index, result.known) == (Code.EALREADY, -1, (0, 1, 2))


async def test_to_have_the_contents_is_not_to_have_executed_the_record(servers: World) -> None:
    """After clashes servers are asked in order: if the first one is busy, the others are not asked."""
    group = await servers.group()
    group.core.contended = ORDERED_FROM
    servers.peers[0].on[CloseReintHandle] = lambda _: Code.EWOULDBLOCK
    store = HandleStore(FILE, BytesSource(DATA), ANYUSER)
    result = await group.store_by_handle(store, LOG)
    assert (result.code, result.update_set) == (Code.EWOULDBLOCK, ())
    assert not any(peer.asked(CloseReintHandle) for peer in servers.peers[1:])
    del servers.peers[0].on[CloseReintHandle]
    assert (await group.store_by_handle(store, LOG)).update_set == (0, 1, 2)


async def test_what_may_be_fatal_goes_to_one_server_first(servers: World) -> None:
    group = await servers.group()
    result = await group.reintegrate(LOG, ANYUSER, first_alone=True)
    assert result.update_set == (0, 1, 2)

    async def die(_: Reintegrate) -> Code:
        servers.net.partition(HOSTS[0])
        return Code.SUCCESS

    servers.peers[0].on[Reintegrate] = die
    result = await group.reintegrate(LOG, ANYUSER, first_alone=True, patience=60.0)
    assert result.uncertain
    assert [len(peer.asked(Reintegrate)) for peer in servers.peers[1:]] == [1, 1], "the others were spared"


async def test_a_server_counted_as_down_is_tried_once_another_has_come_up(servers: World) -> None:
    group = await servers.group()
    one, two, three = group.servers_up
    for server in (one, two, three):
        server.failed("for this test")
    await one.try_again()
    up = [len(group.slots_up)]
    await group.try_all()
    up.append(len(group.slots_up))
    assert up == [1, 3]
    servers.stop_peer(HOSTS[2])
    three.failed("it is")
    before = three.since
    await group.try_all()
    assert three.since == before, "it went down after the others had come up: nothing is new"
