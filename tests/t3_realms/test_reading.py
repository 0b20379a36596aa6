"""vice.md §6.3: what a reader gets out of a group whose servers agree, or do not."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
import trio

from realmfs.realms.core import AT_REST, BUSY_PAUSE, JUST_RETURNED
from realmfs.realms.types import ANYUSER
from realmfs.vice.calls import Cop2, GetAcl, GetAttr, GetVolVS, Resolve, ValidateAttrs, ValidateVols
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, StoreId, VersionFlags
from tests.t3_realms.vicepeer import DIRECTORY, FILE, VOLUME, VicePeer, says, status, vector
from tests.t3_realms.world import CLIENT, HOSTS, World


def resolves(world: World) -> list[Fid]:
    return [request.fid for peer in world.peers for request in peer.asked(Resolve)]


async def test_a_file_that_is_older_somewhere(servers: World) -> None:
    servers.put(FILE, vector(3, 3, 2, store=5), b"newest contents", slots=(0, 1))
    attributes = await (await servers.group()).get_attr(FILE, ANYUSER)
    assert attributes.status.length == len(b"newest contents")
    assert not attributes.promised
    for _ in range(5):
        await trio.sleep(1)
        await (await servers.group()).get_attr(FILE, ANYUSER)
    assert resolves(servers) == [FILE], "in the background, at one server, and not at every look"


async def test_what_another_client_is_changing_is_not_resolved(servers: World) -> None:
    group = await servers.group()
    assert (await group.get_attr(DIRECTORY, ANYUSER)).promised

    async def go_round() -> None:
        for slot in range(len(HOSTS)):
            servers.put(DIRECTORY, vector(2, 2, 2, store=6), slots=(slot,))
            await servers.peers[slot].break_promise(DIRECTORY)
            await trio.sleep(0.3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_round)
        await trio.sleep(0.1)
        attributes = await group.get_attr(DIRECTORY, ANYUSER)
    assert attributes.status.vv.versions[:3] == (2, 2, 2)
    assert attributes.promised
    assert resolves(servers) == []


@pytest.mark.parametrize("breaks", [1, 1000])
async def test_what_stays_different_is_resolved_in_the_end(servers: World, breaks: int) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    servers.put(DIRECTORY, vector(2, 1, 1, store=5), slots=(0,))

    def resolve(_: Resolve) -> Code:
        servers.put(DIRECTORY, vector(2, 2, 2, store=6))
        return Code.SUCCESS

    async def go_on() -> None:
        for _ in range(breaks):
            await servers.peers[0].break_promise(DIRECTORY)
            await trio.sleep(0.1)

    servers.peers[0].on[Resolve] = resolve
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        await trio.sleep(0.05)
        start = trio.current_time()
        attributes = await group.get_attr(DIRECTORY, ANYUSER)
        assert 1 < trio.current_time() - start < 5
        nursery.cancel_scope.cancel()
    assert attributes.status.vv.versions[:3] == (2, 2, 2)
    assert resolves(servers) == [DIRECTORY]


async def test_a_directory_that_differs_is_resolved_first(servers: World) -> None:
    servers.put(DIRECTORY, vector(2, 1, 1, store=5), slots=(0,))
    first = servers.peers[0]

    def resolve(_: Resolve) -> Code:
        servers.put(DIRECTORY, vector(2, 2, 2, store=6))
        return Code.SUCCESS

    first.on[Resolve] = resolve
    attributes = await (await servers.group()).get_attr(DIRECTORY, ANYUSER)
    assert attributes.status.vv == vector(2, 2, 2, store=6)
    assert attributes.promised
    assert resolves(servers) == [DIRECTORY]


async def test_incomparable_files_are_resolved_first(servers: World) -> None:
    servers.put(FILE, vector(3, 2, 2, store=5), slots=(0,))
    servers.put(FILE, vector(2, 3, 2, store=6), slots=(1,))

    def resolve(_: Resolve) -> Code:
        servers.put(FILE, vector(3, 3, 3, store=7))
        return Code.SUCCESS

    servers.peers[0].on[Resolve] = resolve
    assert (await (await servers.group()).get_attr(FILE, ANYUSER)).status.vv == vector(3, 3, 3, store=7)


async def test_who_needs_a_resolution_does_not_wait_for_those_in_the_background(servers: World) -> None:
    """A server locks the volume for each; the reference client leaves thousands behind that need one."""
    group = await servers.group()
    files = [Fid(VOLUME, 2 * number, number) for number in range(10, 210)]
    for fid in files:
        servers.put(fid, vector(2, 2, 2, store=5), slots=(0,))
        servers.put(fid, vector(1, 1, 1), slots=(1, 2))
    servers.put(DIRECTORY, vector(2, 1, 1, store=5), slots=(0,))

    async def resolve(request: Resolve) -> Code:
        await trio.sleep(0.5)
        servers.put(request.fid, vector(3, 3, 3, store=7))
        return Code.SUCCESS

    servers.peers[0].on[Resolve] = resolve
    for fid in files:
        await group.get_attr(fid, ANYUSER)
    start = trio.current_time()
    assert (await group.get_attr(DIRECTORY, ANYUSER)).promised
    assert trio.current_time() - start < 2.5
    context = group.core.context
    assert context.background("something else", trio.lowlevel.checkpoint), "there is room for others"
    await trio.sleep(150)
    assert sorted(resolves(servers)) == sorted([*files, DIRECTORY]), "each of them, once"
    assert (await group.get_attr(files[-1], ANYUSER)).promised


async def test_nobody_is_asked_to_resolve_when_all_are_away(servers: World) -> None:
    group = await servers.group()

    async def resolve(_: Resolve) -> Code:
        await trio.sleep(5)
        return Code.SUCCESS

    servers.peers[0].on[Resolve] = resolve
    files = [Fid(VOLUME, 2 * number, number) for number in range(10, 30)]
    for fid in files:
        servers.put(fid, vector(2, 2, 2, store=5), slots=(0,))
        servers.put(fid, vector(1, 1, 1), slots=(1, 2))
        await group.get_attr(fid, ANYUSER)
    for host in HOSTS:
        servers.stop_peer(host)
    await trio.sleep(300)
    assert len(resolves(servers)) <= 2, "one that was under way, and no more"


async def test_a_conflict_is_a_conflict(servers: World) -> None:
    servers.put(FILE, vector(3, 2, 2, store=5), slots=(0,))
    servers.put(FILE, vector(2, 3, 2, store=6), slots=(1,))

    def resolve(_: Resolve) -> Code:
        servers.each(lambda peer: peer.on.__setitem__(GetAttr, lambda _: Code.EINCONS))
        return Code.EINCONS

    servers.peers[0].on[Resolve] = resolve
    with pytest.raises(CodaError) as caught:
        await (await servers.group()).get_attr(FILE, ANYUSER)
    assert caught.value.code is Code.EINCONS
    assert resolves(servers) == [FILE]


async def test_there_is_an_end_to_resolving(servers: World) -> None:
    servers.put(DIRECTORY, vector(2, 1, 1, store=5), slots=(0,))
    with pytest.raises(CodaError) as caught:
        await (await servers.group()).get_attr(DIRECTORY, ANYUSER)
    assert caught.value.code is Code.EWOULDBLOCK
    assert len(resolves(servers)) == 5


async def test_an_object_missing_somewhere_is_resolved_by_its_directory(servers: World) -> None:
    del servers.peers[2].objects[FILE]

    def resolve(request: Resolve) -> Code:
        if request.fid == FILE:
            return Code.VNOVNODE
        servers.put(FILE, vector(2, 2, 2), b"contents")
        return Code.SUCCESS

    servers.peers[0].on[Resolve] = resolve
    await (await servers.group()).get_attr(FILE, ANYUSER)
    assert resolves(servers) == [FILE, Fid(VOLUME, 1, 1)]


async def test_difference_by_our_own_second_phase(servers: World) -> None:
    """Weakly equal replicas whose COP2 still waits here: it is delivered, and nothing is resolved."""
    group = await servers.group()
    for slot in range(3):
        servers.put(DIRECTORY, vector(1, 1, 1, store=8).raised([slot]), slots=(slot,))

    def cop2(peer: VicePeer) -> None:
        def deliver(_: Cop2) -> Code:
            servers.put(DIRECTORY, vector(2, 2, 2, store=8))
            return Code.SUCCESS

        peer.on[Cop2] = deliver

    servers.each(cop2)
    for number in range(30):
        group.queue_cop2(StoreId(9, number), (0, 1, 2))
    assert (await group.get_attr(DIRECTORY, ANYUSER)).status.vv == vector(2, 2, 2, store=8)
    assert resolves(servers) == []


async def test_a_promise_needs_every_server(servers: World) -> None:
    group = await servers.group()
    peer = servers.peers[1]

    def no_promise(_: GetAttr) -> object:
        without = replace(status(FILE, vector(2, 2, 2), 8), callback=False)
        return Code.SUCCESS, GetAttr.Reply(status=without, sha=b"")

    peer.on[GetAttr] = no_promise
    assert not (await group.get_attr(FILE, ANYUSER)).promised


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([Code.VNOVNODE] * 3, Code.ENOENT),
        ([Code.VNOVOL] * 3, Code.ENXIO),
        ([Code.EACCES] * 3, Code.EACCES),
        ([Code.VNOVNODE, Code.VNOVNODE, Code.VOFFLINE], Code.ENOENT),
        ([Code.EASYRESOLVE] * 3, Code.EINVAL),
        ([4711] * 3, Code.EINVAL),
    ],
)
async def test_codes_of_all(servers: World, codes: list[int], expected: Code) -> None:
    for peer, code in zip(servers.peers, codes, strict=True):
        peer.on[GetAttr] = partial(says, code)
    with pytest.raises(CodaError) as caught:
        await (await servers.group()).get_attr(FILE, ANYUSER)
    assert caught.value.code is expected


async def test_a_locked_volume_is_waited_for(servers: World) -> None:
    group = await servers.group()
    servers.each(lambda peer: peer.on.__setitem__(GetAttr, lambda _: Code.VBUSY))

    async def unlock() -> None:
        await trio.sleep(3)
        servers.each(lambda peer: peer.on.clear())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(unlock)
        start = trio.current_time()
        await group.get_attr(FILE, ANYUSER)
    assert 3 <= trio.current_time() - start < 6
    servers.each(lambda peer: peer.on.__setitem__(GetAttr, lambda _: Code.VBUSY))
    start = trio.current_time()
    with pytest.raises(CodaError) as caught:
        await group.get_attr(FILE, ANYUSER, patience=2)
    assert caught.value.code is Code.EWOULDBLOCK
    assert trio.current_time() - start <= 2.01


async def test_senseless_replies(servers: World) -> None:
    group = await servers.group()
    peer = servers.peers[0]
    peer.on[GetAttr] = lambda request: peer.do_get_attr(GetAttr(fid=DIRECTORY))  # a directory, for a file
    attributes = await group.get_attr(FILE, ANYUSER)
    assert attributes.status.type is ObjectType.FILE
    assert not attributes.promised


async def test_an_inconsistent_flag_in_one_reply(servers: World) -> None:
    servers.put(FILE, vector(2, 2, 2, flags=VersionFlags.INCON), slots=(1,))
    with pytest.raises(CodaError):
        await (await servers.group()).get_attr(FILE, ANYUSER)
    assert FILE in resolves(servers)


async def test_validation(servers: World) -> None:
    group = await servers.group()
    others = [Fid(VOLUME, 2 * i, i) for i in range(10, 14)]
    for fid in others:
        servers.put(fid, vector(1, 1, 1))
    servers.put(others[1], vector(1, 2, 1), slots=(1,))
    del servers.peers[0].objects[others[2]]
    asked = [(fid, vector(1, 1, 1)) for fid in reversed(others)] + [(FILE, vector(2, 2, 2))]
    valid = await group.validate(asked, ANYUSER)
    assert valid == {FILE: True, others[0]: True, others[1]: False, others[2]: False, others[3]: True}
    request = servers.peers[1].asked(ValidateAttrs)[0]
    assert request.primary == FILE
    assert [piggy.fid for piggy in request.piggies] == others, "ascending, without the first"


async def test_validation_whose_first_object_is_gone(servers: World) -> None:
    group = await servers.group()
    gone = Fid(VOLUME, 2, 1)
    valid = await group.validate([(gone, vector(1)), (FILE, vector(2, 2, 2))], ANYUSER)
    assert valid == {gone: False, FILE: True}


async def test_validation_of_an_old_version_and_a_break_meanwhile(servers: World) -> None:
    group = await servers.group()
    assert await group.validate([(FILE, vector(1, 1, 1))], ANYUSER) == {FILE: False}
    servers.each(lambda peer: peer.delay.__setitem__(ValidateAttrs, 0.1))

    async def breaks() -> None:
        await trio.sleep(0.05)
        await servers.peers[0].break_promise(DIRECTORY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(breaks)
        assert await group.validate([(FILE, vector(2, 2, 2))], ANYUSER) == {FILE: False}
    assert await group.validate([], ANYUSER) == {}


async def test_validation_without_servers(servers: World) -> None:
    group = await servers.group()
    servers.net.partition("10.0.0.9")
    with pytest.raises(CodaError) as caught:
        await group.validate([(FILE, vector(2, 2, 2))], ANYUSER)
    assert caught.value.code is Code.ETIMEDOUT


async def test_access_lists(servers: World) -> None:
    answer = await (await servers.group()).get_acl(DIRECTORY, ANYUSER)
    assert answer.text == b"1\n0\nadam 127\n"
    assert all(peer.asked(GetAcl) for peer in servers.peers)


async def test_stamps_keep_their_slots(servers: World) -> None:
    group = await servers.group()
    stamps = await group.volume_stamps(ANYUSER)
    assert stamps.stamps == (100, 101, 102)
    assert stamps.promised
    servers.peers[1].on[GetVolVS] = lambda _: (Code.SUCCESS, GetVolVS.Reply(stamp=0, promised=True))
    assert not (await group.volume_stamps(ANYUSER)).promised
    servers.net.partition(HOSTS[0])
    stamps = await group.volume_stamps(ANYUSER)
    assert stamps.stamps[0] == 0
    assert stamps.stamps[2] == 102


async def test_volumes_are_validated_by_all(servers: World) -> None:
    group = await servers.group()
    volumes = [(VOLUME, (100, 101, 102)), (VOLUME + 1, (7, 8, 9)), (VOLUME + 2, (1, 2, 3))]
    assert await group.validate_volumes(volumes, ANYUSER) == [1, 1, 1]
    request = servers.peers[0].asked(ValidateVols)[0]
    assert request.stamps == b"".join(s.to_bytes(4, "big") for _, stamps in volumes for s in stamps)
    servers.peers[2].on[ValidateVols] = lambda _: (
        Code.SUCCESS,
        ValidateVols.Reply(flags=bytes([1, 0, 255])),
    )
    assert await group.validate_volumes(volumes, ANYUSER) == [1, 0, -1]


async def test_volume_status(servers: World) -> None:
    state = await (await servers.group()).volume_status(ANYUSER)
    assert state.status.max_quota == 5000
    assert state.motd == b"hello"


async def test_fids_come_from_one_server_and_another_if_that_fails(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    granted = await group.alloc_fids(ObjectType.FILE, 1000, ANYUSER)
    assert granted.count == 32
    assert all(fid.vnode % 2 == 0 for fid in granted.fids(VOLUME))
    servers.net.partition(HOSTS[0])
    servers.net.partition(HOSTS[1])
    assert (await group.alloc_fids(ObjectType.DIRECTORY, 1, ANYUSER)).count == 1


async def test_fids_nobody_can_use(servers: World) -> None:
    group = await servers.group()
    from realmfs.vice.calls import AllocFids
    from realmfs.vice.types import FidRange

    servers.each(
        lambda peer: peer.on.__setitem__(
            AllocFids, lambda _: (Code.SUCCESS, AllocFids.Reply(range=FidRange(3, 3, 6, 5)))
        )
    )
    with pytest.raises(CodaError):
        await group.alloc_fids(ObjectType.FILE, 5, ANYUSER)


async def test_who_holds_a_version_is_asked_of_each_and_resolves_nothing(servers: World) -> None:
    servers.put(FILE, vector(3, 2, 2, store=5), slots=(0,))
    servers.put(FILE, vector(2, 3, 2, store=6), slots=(1,))
    group = await servers.group()
    assert await group.holders(FILE, StoreId(9, 5), ANYUSER) == (0,)
    assert await group.holders(FILE, StoreId(9, 6), ANYUSER) == (1,)
    assert await group.holders(FILE, StoreId(9, 7), ANYUSER) == ()
    assert await group.holders(Fid(VOLUME, 90, 90), StoreId(9, 5), ANYUSER) == (), "it is not there"
    assert resolves(servers) == []


async def test_a_server_that_does_not_say_what_it_holds_is_waited_for(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.peers[1].delay[GetAttr] = 60.0
    with pytest.raises(CodaError) as caught:
        await group.holders(FILE, StoreId(9, 5), ANYUSER)
    assert caught.value.code is Code.EWOULDBLOCK
    servers.net.partition(CLIENT)
    with pytest.raises(CodaError) as caught:
        await group.holders(FILE, StoreId(9, 5), ANYUSER)
    assert caught.value.code is Code.ETIMEDOUT


def second_phase_awaited(world: World, fid: Fid, *counts: tuple[int, int, int]) -> None:
    """Leave servers as they are between the two phases of somebody's update."""
    for slot, versions in enumerate(counts):
        world.put(fid, vector(*versions, store=5), b"d" * 2048, slots=(slot,))


@pytest.mark.parametrize("fid", [FILE, DIRECTORY])
async def test_the_second_phase_of_another_client_is_left_to_him(servers: World, fid: Fid) -> None:
    group = await servers.group()
    await group.get_attr(fid, ANYUSER)
    second_phase_awaited(servers, fid, (4, 2, 2), (2, 4, 2), (2, 2, 4))
    start = trio.current_time()
    attributes = await group.get_attr(fid, ANYUSER)
    assert attributes.status.vv.store_id == StoreId(9, 5)
    assert not attributes.promised
    assert trio.current_time() - start < 0.1, "the contents are the same: nobody waits"
    await trio.sleep(5)
    servers.put(fid, vector(4, 4, 4, store=5), b"d" * 2048)
    await trio.sleep(60)
    assert (await group.get_attr(fid, ANYUSER)).promised
    assert resolves(servers) == []


async def test_an_access_list_comes_with_the_version_of_all_servers(servers: World) -> None:
    """Set with that of one of them, the replicas would be in conflict."""
    group = await servers.group()
    second_phase_awaited(servers, DIRECTORY, (2, 1, 1), (1, 2, 1), (1, 1, 2))
    with suppress(CodaError):
        await group.get_acl(DIRECTORY, ANYUSER)
    assert DIRECTORY in resolves(servers)


async def test_a_second_phase_that_is_still_on_its_way_to_some_is_awaited(servers: World) -> None:
    group = await servers.group()
    second_phase_awaited(servers, FILE, (4, 4, 4), (2, 4, 2), (4, 4, 4))
    assert not (await group.get_attr(FILE, ANYUSER)).promised
    await trio.sleep(1)
    servers.put(FILE, vector(4, 4, 4, store=5), b"d" * 2048)
    await trio.sleep(60)
    assert resolves(servers) == []


async def test_a_second_phase_that_stays_out_is_made_good(servers: World) -> None:
    group = await servers.group()
    second_phase_awaited(servers, DIRECTORY, (2, 1, 1), (1, 2, 1), (1, 1, 2))
    await group.get_attr(DIRECTORY, ANYUSER)
    await trio.sleep(10)
    assert resolves(servers) == [DIRECTORY]


async def test_replicas_that_wait_for_a_second_phase_are_given_a_moment(servers: World) -> None:
    """Whoever looks for the first time was not told that somebody is at work there."""
    pending = VersionFlags.COP2PENDING
    for slot, (versions, store) in enumerate((((3, 1, 1), 7), ((1, 3, 1), 8), ((1, 1, 3), 9))):
        servers.put(DIRECTORY, vector(*versions, store=store).with_flags(pending), b"d" * 2048, slots=(slot,))

    async def finish() -> None:
        await trio.sleep(0.5)
        servers.put(DIRECTORY, vector(3, 3, 3, store=9), b"d" * 2048)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        assert (await (await servers.group()).get_attr(DIRECTORY, ANYUSER)).promised
    assert resolves(servers) == []


async def test_replicas_in_which_nothing_moves_are_resolved_after_that_moment(servers: World) -> None:
    pending = VersionFlags.COP2PENDING
    for slot, (versions, store) in enumerate((((3, 1, 1), 7), ((1, 3, 1), 8), ((1, 1, 3), 9))):
        servers.put(DIRECTORY, vector(*versions, store=store).with_flags(pending), b"d" * 2048, slots=(slot,))

    def resolve(_: Resolve) -> Code:
        servers.put(DIRECTORY, vector(4, 4, 4, store=10), b"d" * 2048)
        return Code.SUCCESS

    servers.peers[0].on[Resolve] = resolve
    start = trio.current_time()
    assert (await (await servers.group()).get_attr(DIRECTORY, ANYUSER)).promised
    assert AT_REST <= trio.current_time() - start < AT_REST + 1
    assert resolves(servers) == [DIRECTORY]


async def test_a_resolution_that_is_refused_is_asked_for_again_after_a_pause(servers: World) -> None:
    servers.put(DIRECTORY, vector(2, 1, 1, store=5), b"d" * 2048, slots=(0,))
    first = servers.peers[0]

    def resolve(_: Resolve) -> Code:
        if len(first.asked(Resolve)) < 8:
            return Code.EWOULDBLOCK
        servers.put(DIRECTORY, vector(2, 2, 2, store=6), b"d" * 2048)
        return Code.SUCCESS

    first.on[Resolve] = resolve
    start = trio.current_time()
    assert (await (await servers.group()).get_attr(DIRECTORY, ANYUSER)).promised
    assert trio.current_time() - start >= 7 * BUSY_PAUSE
    first.calls.clear()
    first.on[Resolve] = partial(says, Code.EWOULDBLOCK)
    servers.put(DIRECTORY, vector(3, 2, 2, store=7), b"d" * 2048, slots=(0,))
    with pytest.raises(CodaError) as caught:
        await (await servers.group()).get_attr(DIRECTORY, ANYUSER, patience=4.0)
    assert caught.value.code is Code.EWOULDBLOCK
    assert len(resolves(servers)) <= 4.0 / BUSY_PAUSE + 1


async def test_who_was_started_last_coordinates_a_resolution(servers: World) -> None:
    """The others still have connections to those that were restarted, which lead nowhere."""
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    for slot in (1, 2):
        servers.net.partition(HOSTS[slot])
    await group.get_attr(FILE, ANYUSER)
    assert group.slots_up == (0,)
    servers.net.heal()
    for slot in (2, 1):
        await group.core.servers[slot].try_again()
        await trio.sleep(0.01)
    for asked in ([0, 1, 0], [0, 2, 0]):
        await group.resolve(DIRECTORY)
        assert [len(peer.asked(Resolve)) for peer in servers.peers] == asked
    await trio.sleep(JUST_RETURNED)
    await group.resolve(DIRECTORY)
    assert [len(peer.asked(Resolve)) for peer in servers.peers] == [1, 2, 0]
