"""What the store id of a directory says in a group: which names are in it (Vnodes.id_upon)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from realmfs.server.merge import Merged, merge
from realmfs.server.planning import plan
from realmfs.server.replica import LocalReplica
from realmfs.server.views import ReplicaViews
from realmfs.vice.log import AnyRecord
from realmfs.vice.types import Fid, ObjectType
from tests.group import GroupClient, address, group

EVERYBODY = (1, 2, 3)
Clock = trio.abc.Clock
Change = Callable[[GroupClient, Fid, Fid], AnyRecord]

CHANGES: dict[str, Change] = {
    "a new name": lambda ann, directory, new: ann.mkdir(b"ann", new, directory),
    "an attribute": lambda ann, directory, _: ann.chmod(directory, 0o700),
    "another place": lambda ann, directory, _: ann.rename((ann.root, b"d"), (ann.root, b"e"), directory),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_an_update_upon_what_its_author_did_not_know(
    tmp_path: Path, autojump_clock: Clock, what: str
) -> None:
    """Where others' changes have arrived the directory becomes another than where they have not."""
    async with group(tmp_path) as (servers, nursery):
        ann, bob = await servers.client(nursery), await servers.client(nursery)
        directory = await ann.new_directory(b"d", EVERYBODY)
        record = CHANGES[what](ann, directory, await ann.fid_from(1, ObjectType.DIRECTORY))
        known = await ann.vectors_at(1, [record])
        await bob.new_file(b"bob", b"", (1, 2), directory)
        await ann.update([record], EVERYBODY, cop2=False, known=known)
        first, second, third = [(await ann.status_at(number, directory)).vv for number in EVERYBODY]
        assert first.store_id == second.store_id != third.store_id == record.store_id
        await ann.cop2(EVERYBODY)
        for number in EVERYBODY:
            assert not (await ann.status_at(number, directory)).vv.cop2_pending
        await ann.resolve(1, directory)
        await servers.settled()
        servers.assert_equal()
        assert {b"bob"} <= set(servers.names(3, directory))


async def test_whoever_knows_the_version_finds_the_id_of_the_update(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Also if only the counters were others: then the names are those that the author knew."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        directory = await ann.new_directory(b"d", EVERYBODY)
        record = ann.mkdir(b"ann", await ann.fid_from(1, ObjectType.DIRECTORY), directory)
        known = await ann.vectors_at(1, [record])
        known[directory] = known[directory].raised([4])
        await ann.update([record], EVERYBODY, known=known)
        for number in EVERYBODY:
            assert (await ann.status_at(number, directory)).vv.store_id == record.store_id


async def test_a_directory_that_is_moved_behind_its_replicas_back(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Until it is merged itself, what was in another directory before has an id of its own."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        above, moved = [await ann.new_directory(name, EVERYBODY) for name in (b"above", b"moved")]
        servers.net.partition(address(1), address(3))
        servers.net.partition(address(2), address(3))
        await ann.update([ann.rename((ann.root, b"moved"), (above, b"moved"), moved)], (1, 2))
        nodes = ann.root[1:], above[1:]
        views = []
        for number in EVERYBODY:
            views.append(ReplicaViews(number - 1))
            replica = LocalReplica(servers.running[number].state, servers.volume(number))
            views[-1].add(nodes, (moved[1:],), replica.look(nodes, (moved[1:],)))
        merged = merge(views, set(nodes), 0)
        assert isinstance(merged, Merged)
        (change,) = plan(views[2], merged, views).objects
        assert change.row.node == moved[1:]
        assert change.row.parent == above[1:]
        known = {view.objects[moved[1:]].vv.store_id for view in views}  # type: ignore[union-attr]
        assert len(known) == 2
        assert change.row.vv.store_id not in known
