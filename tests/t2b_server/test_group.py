"""A group of three servers: replicas, resolution, catch-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.rpc2.errors import RpcError
from realmfs.server.catchup import PENDING_FOR, TICK
from realmfs.server.members import OtherMember
from realmfs.vice import calls
from realmfs.vice.errors import Code
from realmfs.vice.log import AnyRecord
from realmfs.vice.types import Fid, FidAndVector, ObjectType, Order, Rights, VolumeType
from tests.group import GroupClient, address, group, refusal

EVERYBODY = (1, 2, 3)
Clock = trio.abc.Clock
conflicts = pytest.mark.logs("a conflict")


async def test_a_new_realm_has_three_equal_replicas(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        servers.assert_equal()
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"data", EVERYBODY)
        servers.assert_equal()
        for number in EVERYBODY:
            assert await ann.fetch_at(number, fid) == b"data"
            assert (await ann.status_at(number, fid)).vv.versions[:3] == (1, 1, 1)


async def test_every_server_tells_where_a_volume_lives(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        other = servers.stores[1].place_volume("other", (2, 3))
        servers.running[1].group.catch_up.changed_outside()  # type: ignore[union-attr]  # it is in a group
        await trio.sleep(30)
        await servers.settled()
        for number in EVERYBODY:
            info = (await ann.ask_at(number, calls.GetVolumeInfo(name=b"other"))).info
            assert info.type is VolumeType.REPLICATED
            assert [hex(word) for word in info.servers] == ["0xa000002", "0xa000003"]
            assert [one.volume for one in info.replicas] == [replica.id for replica in other.replicas]
            for replica in other.replicas:
                info = (await ann.ask_at(number, calls.GetVolumeInfo(name=b"%d" % replica.id))).info
                assert info.related[3] == other.group_id
        servers.assert_equal((2, 3), "other")
        assert servers.stores[1].volumes.named("other") is None


async def test_two_servers_never_hand_out_the_same_fid(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fids = [
            (await ann.fid_from(number, kind)).vnode
            for number in EVERYBODY * 5
            for kind in (ObjectType.FILE, ObjectType.DIRECTORY)
        ]
        assert len(set(fids)) == len(fids)


@pytest.mark.parametrize("asked", EVERYBODY)
@pytest.mark.parametrize("at", [(1,), (2, 3), (1, 3)])
async def test_a_server_that_missed_updates_gets_them(
    tmp_path: Path, autojump_clock: Clock, asked: int, at: tuple[int, ...]
) -> None:
    """Creations, stores, removals, renames, links, attributes, whole trees."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        kept = await ann.new_file(b"kept", b"old", EVERYBODY)
        gone = await ann.new_file(b"gone", b"x", EVERYBODY)
        moved = await ann.new_file(b"moved", b"y", EVERYBODY)
        home = await ann.new_directory(b"home", EVERYBODY)
        empty = await ann.new_directory(b"empty", EVERYBODY)

        await ann.write(kept, b"new contents", at)
        await ann.update([ann.remove(b"gone", gone), ann.rmdir(b"empty", empty)], at)
        await ann.update([ann.rename((ann.root, b"moved"), (home, b"here"), moved)], at)
        below = await ann.new_directory(b"below", at, home)
        deep = await ann.new_file(b"deep", b"z" * 5000, at, below)
        await ann.update([ann.link(b"again", kept), ann.chmod(home, 0o700)], at)

        for fid in (ann.root, home, below, kept, deep):
            await ann.resolve(asked, fid)
        await servers.settled()
        servers.assert_equal()
        assert not servers.conflicts(1)
        for number in EVERYBODY:
            assert servers.names(number) == [b"again", b"home", b"kept"]
            assert servers.names(number, home) == [b"below", b"here"]
            assert servers.data(number, deep) == b"z" * 5000
            assert servers.data(number, kept) == b"new contents"


async def test_names_made_on_both_sides_of_a_partition_merge(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        old = await ann.new_file(b"old", b"", EVERYBODY)
        one = await ann.new_file(b"one", b"1", (1,))
        await ann.update([ann.remove(b"old", old)], (1,))
        await ann.new_directory(b"two", (2, 3))
        await ann.new_file(b"three", b"3", (3,))
        await ann.resolve(2, ann.root)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(1) == [b"one", b"three", b"two"]
        assert servers.data(3, one) == b"1"


@pytest.mark.parametrize("asked", [1, 3])
@pytest.mark.parametrize("goes_too", [False, True], ids=["it stays", "it goes, too"])
async def test_what_was_moved_and_removed_is_not_forgotten_with_the_place_it_was_moved_to(
    tmp_path: Path, autojump_clock: Clock, asked: int, goes_too: bool
) -> None:
    """A server that missed both still has it at the old place, which is resolved after the new one."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        old = await ann.new_directory(b"old", EVERYBODY)
        new = await ann.new_directory(b"new", EVERYBODY)
        file = await ann.new_file(b"file", b"x", EVERYBODY, old)
        way = await ann.new_directory(b"way", (1, 2), new)
        await ann.update([ann.rename((old, b"file"), (way, b"file"), file)], (1, 2))
        await ann.update([ann.remove(b"file", file, way)], (1, 2))
        if goes_too:
            await ann.update([ann.rmdir(b"way", way, new)], (1, 2))
        for directory in (new, old, new):  # the last time only for the tombs that were still needed
            await ann.resolve(asked, directory)
        await servers.settled()
        servers.assert_equal()
        assert not servers.conflicts(1)
        for number in EVERYBODY:
            assert servers.names(number, old) == []
            for directory in (old, new, way):
                here = Fid(servers.volume(number).id, *directory[1:])
                assert not servers.stores[number].elements.tombs(here)


@conflicts
async def test_the_same_name_on_both_sides_is_a_conflict(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        await ann.new_file(b"name", b"1", (1,))
        await ann.new_file(b"name", b"2", (2, 3))
        assert await refusal(ann.resolve(2, ann.root)) == Code.EINCONS
        for number in EVERYBODY:
            assert servers.conflicts(number) == [(1, 1)]
            assert await refusal(ann.status_at(number, ann.root)) == Code.EINCONS


@conflicts
async def test_a_file_written_on_both_sides_is_a_conflict(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        await ann.write(fid, b"first", (1,))
        await ann.write(fid, b"second", (2, 3))
        assert await refusal(ann.resolve(3, fid)) == Code.EINCONS
        for number in EVERYBODY:
            assert servers.conflicts(number) == [fid[1:]]
        assert await refusal(ann.resolve(1, fid)) == Code.EINCONS
        assert (servers.data(1, fid), servers.data(2, fid)) == (b"first", b"second")


async def test_equal_contents_on_both_sides_are_no_conflict(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        await ann.write(fid, b"same", (1,))
        await ann.write(fid, b"same", (2, 3))
        await ann.resolve(3, fid)
        servers.assert_equal()
        assert not servers.conflicts(1)


async def test_of_equal_contents_the_latest_store_id_stays(tmp_path: Path, autojump_clock: Clock) -> None:
    """By it a client knows whether what it sent was done, and servers whether its next change fits."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        last = ann.store(fid, 0)
        ann.data[fid] = b""
        await ann.update([last], (1, 3), cop2=False)
        await ann.resolve(2, fid)
        servers.assert_equal()
        assert (await ann.status_at(2, fid)).vv.store_id == last.store_id


@pytest.mark.parametrize("removed", [False, True])
async def test_who_died_before_it_could_answer_is_behind_and_in_no_conflict(
    tmp_path: Path, autojump_clock: Clock, removed: bool
) -> None:
    """It has counted an update that the client did not hear of; the next one went to the others."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        ann.data[fid] = b"first"
        await ann.update([ann.store(fid, 5)], EVERYBODY, cop2=False)
        await ann.cop2((2, 3))
        await servers.stop(1)
        await ann.write(fid, b"second", (2, 3))
        if removed:
            await ann.update([ann.remove(b"name", fid)], (2, 3))
        await servers.start(1, nursery)
        await trio.sleep(60)
        await servers.settled()
        servers.assert_equal()
        assert not servers.conflicts(1)
        assert servers.names(1) == ([] if removed else [b"name"])
        assert removed or servers.data(1, fid) == b"second"


async def test_a_name_less_does_not_make_a_file_forget_its_past(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The tomb of a name is dropped when all are equal; who is behind in the file must still be known."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        await ann.update([ann.link(b"other", fid)], EVERYBODY)
        ann.data[fid] = b"first"
        await ann.update([ann.store(fid, 5)], EVERYBODY, cop2=False)
        await servers.stop(3)
        await ann.write(fid, b"second", (1, 2))
        await ann.update([ann.remove(b"other", fid)], (1, 2))
        await servers.start(3, nursery)
        await trio.sleep(PENDING_FOR + 2 * TICK)
        await servers.settled()
        servers.assert_equal()
        assert not servers.conflicts(3)
        assert servers.names(3) == [b"name"]
        assert servers.data(3, fid) == b"second"


async def test_a_second_phase_that_was_overtaken_is_made_up_for(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The second phase of the next update clears the mark, but counts only that update."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        ann.data[fid] = b"first"
        await ann.update([ann.store(fid, 5)], EVERYBODY, cop2=False)
        await ann.write(fid, b"second", EVERYBODY)
        await trio.sleep(PENDING_FOR + 2 * TICK)
        await servers.settled()
        servers.assert_equal()
        assert servers.data(1, fid) == b"second"


async def test_a_server_that_a_second_phase_does_not_name_gets_the_update(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """It was up all the time: only this client could not reach it."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"first", EVERYBODY)
        await ann.write(fid, b"second", (1, 2))
        await trio.sleep(PENDING_FOR + 2 * TICK)
        await servers.settled()
        servers.assert_equal()
        assert servers.data(3, fid) == b"second"


async def test_the_past_of_a_file_is_forgotten_when_all_have_it(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        here = fid.in_volume(servers.volume(2).id)
        await ann.write(fid, b"first", (2, 3))
        await ann.write(fid, b"second", (2, 3))
        assert len(servers.stores[2].elements.past(here)) == 2
        await ann.resolve(2, fid)
        await ann.write(fid, b"third", EVERYBODY)
        for number in EVERYBODY:
            assert not servers.stores[number].elements.past(fid.in_volume(servers.volume(number).id))


@conflicts
async def test_a_file_removed_here_and_written_there_is_a_conflict(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        await ann.update([ann.remove(b"name", fid)], (1,))
        await ann.write(fid, b"precious", (2, 3))
        await ann.resolve(1, ann.root)
        await servers.settled()
        for number in EVERYBODY:
            assert servers.names(number) == [b"name"]
            assert servers.conflicts(number) == [fid[1:]]
            assert await refusal(ann.status_at(number, fid)) == Code.EINCONS
        assert servers.data(2, fid) == b"precious"


@conflicts
async def test_who_removed_a_file_that_stays_does_not_have_the_version_of_the_directory(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """He counts what his update makes of all its servers, although the second phase has not come."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"first", EVERYBODY)
        before = (await ann.status_at(1, ann.root)).vv
        removal = ann.remove(b"name", fid)
        await ann.update([removal], (1, 2), cop2=False)
        await ann.write(fid, b"second", (3,))
        await ann.resolve(3, ann.root)
        await servers.settled()
        his = before.raised([0, 1]).with_store_id(removal.store_id)
        call = calls.ValidateAttrs(primary=ann.root, piggies=(FidAndVector(ann.root, his),))
        for number in EVERYBODY:
            assert servers.names(number) == [b"name"]
            stands = (await ann.status_at(number, ann.root)).vv
            assert stands.compare(his) is Order.DOMINATES
            assert (await ann.ask_at(number, call)).flags == bytes(1)


@conflicts
async def test_a_directory_removed_here_and_filled_there_is_a_conflict(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        home = await ann.new_directory(b"home", EVERYBODY)
        await ann.update([ann.rmdir(b"home", home)], (1, 2))
        fid = await ann.new_file(b"precious", b"data", (3,), home)
        await ann.resolve(1, ann.root)
        await servers.settled()
        for number in EVERYBODY:
            assert servers.names(number) == [b"home"]
            assert home[1:] in servers.conflicts(number)
        assert servers.data(3, fid) == b"data"


async def test_a_removed_tree_goes_where_it_was_not_touched(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        home = await ann.new_directory(b"home", EVERYBODY)
        below = await ann.new_directory(b"below", EVERYBODY, home)
        fid = await ann.new_file(b"file", b"data", EVERYBODY, below)
        doomed: list[AnyRecord] = [
            ann.remove(b"file", fid, below),
            ann.rmdir(b"below", below, home),
            ann.rmdir(b"home", home),
        ]
        await ann.update(doomed, (1, 2))
        await ann.resolve(3, ann.root)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(3) == []
        assert not servers.stores[1].database.rows("SELECT * FROM tomb")


async def test_a_name_that_came_back_is_not_removed_by_who_missed_it(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """There and back again at one server, beside a change at another that had only seen the way there."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"a", b"data", EVERYBODY)
        await ann.update([ann.rename((ann.root, b"a"), (ann.root, b"b"), fid)], (1, 2))
        await ann.update([ann.rename((ann.root, b"b"), (ann.root, b"a"), fid)], (1,))
        await ann.new_file(b"x", b"", (2,))
        await ann.resolve(2, ann.root)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(3) == [b"a", b"x"]


@conflicts
async def test_two_renames_of_one_file_are_a_conflict(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"a", b"data", EVERYBODY)
        await ann.update([ann.rename((ann.root, b"a"), (ann.root, b"b"), fid)], (1,))
        await ann.update([ann.rename((ann.root, b"a"), (ann.root, b"c"), fid)], (2,))
        assert await refusal(ann.resolve(1, ann.root)) == Code.EINCONS


@conflicts
async def test_directories_moved_into_each_other_are_a_conflict(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        one, two = [await ann.new_directory(name, EVERYBODY) for name in (b"one", b"two")]
        deep = await ann.new_directory(b"deep", EVERYBODY, two)
        await ann.update([ann.rename((ann.root, b"one"), (deep, b"one"), one)], (1,))
        await ann.update([ann.rename((ann.root, b"two"), (one, b"two"), two)], (2, 3))
        assert await refusal(ann.resolve(1, ann.root)) == Code.EINCONS
        assert await refusal(ann.status_at(3, ann.root)) == Code.EINCONS


async def test_what_is_moved_while_a_resolution_looks_is_no_conflict(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at the root first, finds that another directory is tied to it, and looks at that."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        other = await ann.new_directory(b"d", EVERYBODY)
        x = await ann.new_file(b"x", b"", EVERYBODY, other)
        y = await ann.new_file(b"y", b"", EVERYBODY)
        await ann.update([ann.rename((other, b"x"), (ann.root, b"x"), x)], (2, 3))
        look, moves = OtherMember.look, [ann.rename((ann.root, b"y"), (other, b"y"), y)]

        async def slowly(member: OtherMember, *what: Any) -> Any:
            seen = await look(member, *what)
            if member.place.server == 3 and ann.root[1:] in what[0] and moves:
                await ann.update([moves.pop()], (3,))
            return seen

        monkeypatch.setattr(OtherMember, "look", slowly)
        await ann.resolve(1, ann.root)
        assert not moves
        await trio.sleep(60)
        await servers.settled()
        servers.assert_equal()
        assert not servers.conflicts(1)
        assert servers.names(1, other) == [b"y"]


@conflicts
async def test_access_lists_follow_who_changed_them(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        store = servers.stores[1]
        user = store.protection.add_user("ann", b"password")
        store.protection.add_member(store.protection.administrators, user)
        servers.running[1].group.catch_up.changed_outside()  # type: ignore[union-attr]  # it is in a group
        await trio.sleep(10)
        ann = await servers.client(nursery, user)
        home = await ann.new_directory(b"home", EVERYBODY)

        async def set_acl(text: bytes, number: int) -> int:
            status = await ann.status_at(number, home)
            call = calls.SetAcl(fid=home, acl=text, status=status, store_id=ann.store_id())
            return await refusal(ann.ask_at(number, call))

        assert await set_acl(b"1\n0\nSystem:AnyUser\t9\n", 1) == 0
        await ann.new_file(b"x", b"", (2, 3), home)
        await ann.resolve(3, home)
        await servers.settled()
        servers.assert_equal()
        assert (await ann.status_at(2, home)).any_rights == int(Rights.READ | Rights.LOOKUP)
        assert await set_acl(b"1\n0\nSystem:AnyUser\t1\n", 1) == 0
        assert await set_acl(b"1\n0\nSystem:AnyUser\t8\n", 2) == 0
        assert await refusal(ann.resolve(3, home)) == Code.EINCONS


async def test_lost_second_phases_are_made_good(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.fid_from(1)
        ann.data[fid] = b"data"
        await ann.update([ann.create(b"name", fid), ann.store(fid, 4)], EVERYBODY, cop2=False)
        assert (await ann.status_at(2, fid)).vv.versions[:3] == (0, 1, 0)
        await trio.sleep(90)
        await servers.settled()
        servers.assert_equal()
        assert (await ann.status_at(2, fid)).vv.versions[:3] == (1, 1, 1)


async def test_a_server_that_was_down_is_brought_up_by_itself(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        old = await ann.new_file(b"old", b"old", EVERYBODY)
        for number in (1, 3):
            await servers.stop(number)
            up = tuple(one for one in EVERYBODY if one != number)
            await ann.write(old, b"written while %d was down" % number, up)
            await ann.new_file(b"new%d" % number, b"", up)
            await servers.start(number, nursery)
            await servers.settled()
            servers.assert_equal()
        assert servers.names(1) == [b"new1", b"new3", b"old"]


@pytest.mark.parametrize("number", EVERYBODY)
async def test_a_server_that_lost_its_disk_is_filled(
    tmp_path: Path, autojump_clock: Clock, number: int
) -> None:
    async with group(tmp_path) as (servers, nursery):
        servers.stores[1].protection.add_user("ann", b"password")
        ann = await servers.client(nursery)
        home = await ann.new_directory(b"home", EVERYBODY)
        await make_tree(ann, home, depth=3)
        before = servers.contents(number)
        taken = {await ann.fid_from(number) for _ in range(3)}
        await trio.sleep(10)
        await servers.stop(number)
        servers.lose_disk(number)
        others = [address(one) for one in EVERYBODY if one != number]
        for other in others:
            servers.net.partition(address(number), other)
        await servers.start(number, nursery)
        await trio.sleep(20)
        with pytest.raises(RpcError):  # it is there, but knows nothing yet
            await ann.connect(number)
        servers.net.heal()
        await servers.settled()
        servers.assert_equal()
        assert servers.contents(number) == before
        assert servers.stores[number].protection.id_of("ann")
        assert servers.stores[number].token_keys() == servers.stores[2 if number == 1 else 1].token_keys()
        assert await ann.fid_from(number) not in taken


async def make_tree(client: GroupClient, home: Fid, depth: int) -> None:
    """Fill a directory with some files and, unless `depth` is 0, directories of the same kind."""
    for number in range(3):
        await client.new_file(b"file%d" % number, b"data" * number, EVERYBODY, home)
    if depth:
        for number in range(2):
            below = await client.new_directory(b"dir%d" % number, EVERYBODY, home)
            await make_tree(client, below, depth - 1)


async def test_a_partition_among_servers_heals(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        servers.net.partition(address(1), address(2), address(3))
        await trio.sleep(30)
        for number in EVERYBODY:
            await ann.new_file(b"by%d" % number, b"data", (number,))
            await ann.resolve(number, ann.root)  # nobody to resolve with
        servers.net.heal()
        await trio.sleep(30)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(2) == [b"by1", b"by2", b"by3"]


async def test_clients_are_told_what_resolution_changed(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann, bob = await servers.client(nursery), await servers.client(nursery)
        await bob.status_at(3, bob.root)
        stamp = (await bob.ask_at(3, calls.GetVolVS(volume=bob.volume))).stamp
        await ann.new_file(b"name", b"", (1, 2))
        bob.broken.clear()
        await ann.resolve(1, ann.root)
        assert bob.root in bob.broken
        assert (await bob.ask_at(3, calls.GetVolVS(volume=bob.volume))).stamp > stamp
