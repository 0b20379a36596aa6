"""Many objects in one sweep: what all servers confirm, at the price of one call each and one for all."""

import pytest

from realmfs.realms.sweep import Found
from realmfs.realms.types import ANYUSER
from realmfs.vice.calls import FetchPartial, GetAttr, Resolve, ValidateAttrs
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid
from tests.t3_realms.vicepeer import VOLUME, VicePeer, vector
from tests.t3_realms.world import HOSTS, World

FILES = [Fid(VOLUME, 100 + 2 * number, 7) for number in range(20)]


async def swept(world: World, limit: int | None = None, fids: list[Fid] | None = None) -> dict[Fid, Found]:
    """Put twenty files at all servers unless they are there; sweep them once everybody has been met."""
    for number, fid in enumerate(FILES):
        for peer in world.peers:
            if fid not in peer.objects:
                world.put(fid, vector(1, 1, 1, store=number), b"%d" % number, slots=(peer.slot,))
    group = await world.group()
    await group.get_attr(Fid(VOLUME, 1, 1), ANYUSER)
    world.each(lambda peer: peer.calls.clear())
    return await group.sweep(fids or FILES, ANYUSER, limit)


def asked(world: World, kind: type) -> list[int]:
    return sorted(len(peer.asked(kind)) for peer in world.peers)


async def test_a_status_costs_a_call_at_one_server(servers: World) -> None:
    found = await swept(servers)
    assert list(found) == FILES
    assert all(each.attributes.promised and each.data is None for each in found.values())
    assert asked(servers, GetAttr) == [0, 0, len(FILES)]
    assert asked(servers, ValidateAttrs) == [0, 1, 1]


async def test_contents_come_with_their_status(servers: World) -> None:
    found = await swept(servers, limit=100)
    assert [found[fid].data for fid in FILES] == [b"%d" % number for number in range(len(FILES))]
    assert [found[fid].attributes.status.length for fid in FILES] == [1] * 10 + [2] * 10
    assert asked(servers, FetchPartial) == [0, 0, len(FILES)]


async def test_what_is_too_large_is_left_out(servers: World) -> None:
    servers.put(FILES[3], vector(1, 1, 1), b"x" * 50_000)
    found = await swept(servers, limit=1000)
    assert set(FILES) - set(found) == {FILES[3]}


@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("slot", [0, 1, 2])
async def test_what_a_server_has_otherwise_is_left_out(servers: World, place: int, slot: int) -> None:
    servers.put(FILES[place], vector(2, 2, 2, store=99), b"other", slots=(slot,))
    found = await swept(servers, limit=100)
    assert set(FILES) - set(found) == {FILES[place]}
    assert all(each.attributes.promised for fid, each in found.items() if FILES[0] in found)
    assert not any(peer.asked(Resolve) for peer in servers.peers), "that is for those who want the object"


async def test_nothing_counts_that_not_all_servers_confirm(servers: World) -> None:
    for peer in servers.peers:
        peer.on[ValidateAttrs] = lambda _: Code.EWOULDBLOCK
    assert await swept(servers, limit=100) == {}


async def test_a_promise_broken_meanwhile_is_none(servers: World) -> None:
    def breaking(peer: VicePeer) -> None:
        async def answer(request: ValidateAttrs) -> object:
            await peer.break_promise(FILES[5])
            return peer.do_validate_attrs(request)

        peer.on[ValidateAttrs] = answer

    servers.each(breaking)
    found = await swept(servers, limit=100)
    assert found
    assert not any(each.attributes.promised for each in found.values())


async def test_what_is_gone_everywhere_spoils_nothing(servers: World) -> None:
    missing = Fid(VOLUME, 2000, 1)
    assert list(await swept(servers, fids=[missing, *FILES[:3]])) == FILES[:3]


async def test_a_server_that_is_away_is_not_asked(servers: World) -> None:
    servers.stop_peer(HOSTS[1])
    group = await servers.group()
    await group.get_attr(Fid(VOLUME, 1, 1), ANYUSER)
    assert len(group.slots_up) == 2
    assert list(await swept(servers, limit=100)) == FILES


async def test_far_servers_are_not_swept(servers: World) -> None:
    group = await servers.group()
    known = [group.sweeps]
    await group.get_attr(Fid(VOLUME, 1, 1), ANYUSER)
    known.append(group.sweeps)
    assert known == [False, True], "not before they are met"
    servers.net.latency = 0.05
    for _ in range(32):
        await group.get_attr(Fid(VOLUME, 1, 1), ANYUSER)
    known.append(group.sweeps)
    assert not known[-1]


async def test_near_servers_are_swept_however_busy_they_are(servers: World) -> None:
    group = await servers.group()
    for latency in (0.001, 0.05, 0.05, 0.05, 0.05):  # as calls wait for a processor now and then
        servers.net.latency = latency
        await group.get_attr(Fid(VOLUME, 1, 1), ANYUSER)
    assert group.sweeps
