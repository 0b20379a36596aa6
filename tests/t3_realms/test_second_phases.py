"""Second phases of updates in directories that other clients change, too (realms/cop2.py)."""

import struct

import pytest
import trio

from realmfs.realms.cop2 import MAX_DIRECTORIES, MOST_KEPT, REST_SECONDS, SHARED_SECONDS, KeptLogs
from realmfs.realms.core import Core
from realmfs.realms.types import ANYUSER
from realmfs.vice.calls import Cop2, Reintegrate, Resolve
from realmfs.vice.cop2 import ENTRY_SIZE
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, StoreId
from tests.t3_realms.vicepeer import DIRECTORY, FILE, VOLUME, VicePeer, vector
from tests.t3_realms.world import World


@pytest.fixture(autouse=True)
def not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers here say that they are of realmfs's own kind, which has no such logs."""
    monkeypatch.setattr(Core, "all_ours", False)


def update_sets(peer: VicePeer) -> list[tuple[int, ...]]:
    """The update sets that came in calls of their own, as they came."""
    strings = [call.entries for call in peer.asked(Cop2)]
    return [
        struct.unpack_from(">3i", string, at + 8)
        for string in strings
        for at in range(0, len(string), ENTRY_SIZE)
    ]


async def second_phase(world: World, *directories: Fid) -> list[list[tuple[int, ...]]]:
    """Have one delivered; what each server is told, if it is told apart from other calls."""
    group = await world.group()
    before = [len(update_sets(peer)) for peer in world.peers]
    group.queue_cop2(StoreId(9, 1), (0, 1, 2), directories)
    await group.get_attr(FILE, ANYUSER)
    await trio.sleep(5)
    assert not len(group.core.cop2)
    return [update_sets(peer)[start:] for peer, start in zip(world.peers, before, strict=True)]


async def test_logs_of_a_directory_that_others_change_are_left_alone(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    assert await second_phase(servers, DIRECTORY) == [[], [], []], "it rides"
    await servers.peers[1].break_promise(DIRECTORY)
    assert await second_phase(servers, DIRECTORY) == [[(2, 1, 1)], [(1, 2, 1)], [(1, 1, 2)]]
    assert await second_phase(servers, Fid(VOLUME, 77, 1)) == [[], [], []], "nobody else changes this one"
    await trio.sleep(SHARED_SECONDS)
    assert await second_phase(servers, DIRECTORY) == [[], [], []]


async def test_a_break_while_a_second_phase_waits_is_heeded(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    group.queue_cop2(StoreId(9, 1), (0, 1, 2), (DIRECTORY,))
    await servers.peers[1].break_promise(DIRECTORY)
    await trio.sleep(5)
    assert [update_sets(peer) for peer in servers.peers] == [[(2, 1, 1)], [(1, 2, 1)], [(1, 1, 2)]]


async def test_what_servers_call_stale_others_have_changed(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    reply = Reintegrate.Reply(index=1, stale_dirs=(DIRECTORY,), new_stamp=0, promised=False)
    servers.peers[2].on[Reintegrate] = lambda _: (Code.SUCCESS, reply)
    await group.reintegrate(b"a log", ANYUSER)
    assert await second_phase(servers, DIRECTORY) == [[(2, 1, 1)], [(1, 2, 1)], [(1, 1, 2)]]


async def test_those_who_did_not_execute_an_update_are_not_named(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    await servers.peers[1].break_promise(DIRECTORY)
    group.queue_cop2(StoreId(9, 1), (0, 2), (DIRECTORY,))
    await trio.sleep(5)
    assert [update_sets(peer) for peer in servers.peers] == [[(2, 0, 1)], [(1, 0, 1)], [(1, 0, 2)]]


def test_logs_are_cut_again_before_they_grow_for_ever() -> None:
    kept = KeptLogs()
    busy, resting = REST_SECONDS / 2, REST_SECONDS * 2
    for _ in range(MOST_KEPT):
        assert kept.keeps(DIRECTORY, resting)
        kept.note(DIRECTORY, True)
    assert kept.keeps(DIRECTORY, busy)
    assert not kept.keeps(DIRECTORY, resting)
    kept.note(DIRECTORY, False)
    assert kept.keeps(DIRECTORY, resting)
    assert not kept.keeps(DIRECTORY, SHARED_SECONDS)
    for number in range(2 * MAX_DIRECTORIES):
        kept.note(Fid(1, number, 1), True)
    assert len(kept._times) <= MAX_DIRECTORIES


async def test_the_version_of_a_shared_directory_is_one_on_which_all_agree(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(DIRECTORY, ANYUSER)
    assert await group.settled(DIRECTORY, ANYUSER) is None, "nobody else changes it"
    for slot, versions in enumerate(((2, 1, 1), (1, 2, 1), (1, 1, 2))):
        servers.put(DIRECTORY, vector(*versions, store=5), slots=(slot,))
        await servers.peers[slot].break_promise(DIRECTORY)

    async def finish() -> None:
        await trio.sleep(1)
        servers.put(DIRECTORY, vector(2, 2, 2, store=5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        assert await group.settled(DIRECTORY, ANYUSER) == vector(2, 2, 2, store=5)
    assert not any(peer.asked(Resolve) for peer in servers.peers)
