"""Replicas looked at one by one, and repairs at all of them (conflicts.md §§2, 5.4)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.realms.types import ANYUSER
from realmfs.rpc2.service import Request, ServerConnection
from realmfs.rpc2.transfer import BytesSink, BytesSource
from realmfs.vice import calls as vice
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Status, StoreId, VersionFlags
from tests.t3_realms.vicepeer import FILE, VOLUME, VicePeer, says, status, vector
from tests.t3_realms.world import World, world

INCON = int(VersionFlags.INCON)
NEW = StoreId(77, 1)


def own(fid: Fid) -> Fid:
    """The fid under which the peers keep an object that is asked for by a replica's id."""
    return Fid(VOLUME, *fid[1:])


def marking(peer: VicePeer, script: Callable[..., Any]) -> Callable[..., Any]:
    """Answer EINCONS for what is marked, unless the caller does not mind."""

    def answer(request: Any, connection: ServerConnection, transfer: Request) -> Any:
        fid = own(request.fid)
        found = peer.objects.get(fid)
        if found is None:
            return Code.VNOVNODE
        if found.vv.flags & INCON and not request.inconsistent_ok:
            return Code.EINCONS
        more = (connection, transfer) if isinstance(request, vice.FetchPartial) else ()
        return script(replace(request, fid=fid), *more)

    return answer


def diverged(w: World, *, marked: tuple[int, ...] = (0, 1, 2)) -> None:
    """Let the file be different everywhere, and marked at some."""
    for slot, peer in enumerate(w.peers):
        versions = [2, 2, 2]
        versions[slot] += 1
        w.put(
            FILE,
            vector(*versions, store=slot + 5, flags=INCON if slot in marked else 0),
            b"of %d" % slot,
            (slot,),
        )
        peer.on[vice.GetAttr] = marking(peer, peer.do_get_attr)
        peer.on[vice.FetchPartial] = marking(peer, peer.do_fetch_partial)


async def test_each_replica_tells_of_its_own_copy(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        diverged(w, marked=(0, 2))
        del w.peers[1].objects[FILE]
        found = await group.replica_statuses(FILE, ANYUSER)
        assert {slot: one.vv.versions[:3] for slot, one in found.items()} == {0: (3, 2, 2), 2: (2, 2, 3)}
        assert [one.vv.inconsistent for one in found.values()] == [True, True]
        asked = [peer.asked(vice.GetAttr)[-1].fid.volume for peer in w.peers]
        assert asked == [replica.volume_id for replica in group.core.replicas]


async def test_all_marked_is_a_conflict_and_needs_no_resolution(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        diverged(w)
        with pytest.raises(CodaError) as caught:
            await group.get_attr(FILE, ANYUSER)
        assert caught.value.code is Code.EINCONS
        assert not any(peer.asked(vice.Resolve) for peer in w.peers)


async def test_some_marked_are_resolved_first(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        diverged(w, marked=(1,))

        def mark_all(_: Any) -> Code:
            diverged(w)
            return Code.EINCONS

        w.peers[0].on[vice.Resolve] = mark_all
        with pytest.raises(CodaError) as caught:
            await group.get_attr(FILE, ANYUSER)
        assert caught.value.code is Code.EINCONS
        assert len(w.peers[0].asked(vice.Resolve)) == 1


@pytest.mark.parametrize("slot", [0, 1, 2])
async def test_one_replica_is_read_as_it_is(
    tmp_path: Path, autojump_clock: trio.abc.Clock, slot: int
) -> None:
    async with world(tmp_path) as w:
        volume = await w.volume()
        diverged(w)
        single = await (await w.realm()).volume_by_id(volume.replicas[slot].volume_id)
        fid = Fid(single.id, *FILE[1:])
        sink = BytesSink()
        answer = await single.group.fetch(fid, ANYUSER, lambda offset: sink)
        assert sink.data == b"of %d" % slot
        assert answer.status.vv.inconsistent
        assert not answer.promised, "servers call back about the volume, not about a replica"
        assert not (await single.group.get_attr(fid, ANYUSER)).promised
        assert await single.group.validate([(fid, answer.status.vv)], ANYUSER) == {fid: False}
        others = [peer for peer in w.peers if peer.slot != slot]
        assert not any(peer.asked(vice.FetchPartial)[1:] for peer in others)


class Repairs:
    """What servers are sent to repair; each says what it is told to."""

    def __init__(self, w: World, *codes: Code) -> None:
        self.got: list[tuple[int, vice.Repair, bytes]] = []
        for peer, code in zip(w.peers, codes or (Code.SUCCESS,) * 3, strict=True):
            peer.on[vice.Repair] = partial(self.take, peer, code)

    async def take(
        self, peer: VicePeer, code: Code, request: vice.Repair, _: ServerConnection, transfer: Request
    ) -> Any:
        sink = BytesSink()
        await transfer.receive(sink, 1 << 20)
        self.got.append((peer.slot, request, sink.data))
        return code, vice.Repair.Reply(status=request.status)


def wanted(length: int) -> Status:
    return status(FILE, vector(9, 9, 9), length)


async def test_a_repair_goes_to_all_with_the_maximum_of_all_versions(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        diverged(w)
        repairs = Repairs(w)
        codes = await group.repair(FILE, BytesSource(b"merged"), wanted(6), NEW, ANYUSER)
        assert codes == dict.fromkeys((0, 1, 2), Code.SUCCESS)
        assert [data for _, _, data in repairs.got] == [b"merged"] * 3
        for _, request, _ in repairs.got:
            assert request.fid == FILE
            assert request.status.vv.versions[:3] == (3, 3, 3)
            assert (request.status.vv.store_id, request.status.vv.flags) == ((0, 0), 0)
            assert (request.status.length, request.store_id) == (6, NEW)
        for peer in w.peers:
            assert [entry.store_id for entry in peer.cop2] == [NEW]


async def test_what_each_server_says_is_told(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        diverged(w)
        Repairs(w, Code.SUCCESS, Code.EACCES, Code.SUCCESS)
        codes = await group.repair(FILE, BytesSource(b"x"), wanted(1), NEW, ANYUSER)
        assert codes == {0: Code.SUCCESS, 1: Code.EACCES, 2: Code.SUCCESS}
        (entry,) = w.peers[0].cop2
        assert entry.slots == (0, 2)


async def test_nothing_is_sent_unless_all_are_marked(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        diverged(w, marked=(0, 1))
        repairs = Repairs(w)
        with pytest.raises(CodaError) as caught:
            await group.repair(FILE, BytesSource(b"x"), wanted(1), NEW, ANYUSER)
        assert caught.value.code is Code.EINVAL
        assert repairs.got == []


async def test_marks_are_taken_away_by_replica(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        group = await w.group()
        for peer in w.peers:
            peer.on[vice.SetVV] = partial(says, Code.SUCCESS)
        await group.clear_conflict(
            FILE, {0: vector(3, 3, 3, flags=INCON), 2: vector(3, 3, 3, flags=9)}, ANYUSER
        )
        told = {
            peer.slot: [(one.fid.volume, one.vv.flags) for one in peer.asked(vice.SetVV)] for peer in w.peers
        }
        ids = [replica.volume_id for replica in group.core.replicas]
        assert told == {0: [(ids[0], 0)], 1: [], 2: [(ids[2], 8)]}
