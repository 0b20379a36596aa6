"""Conflicts of a group of servers are repaired: files by contents, directories by edits of each replica."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.rpc2.transfer import BytesSource
from realmfs.server.merge import maximum
from realmfs.vice import calls
from realmfs.vice.cop2 import Cop2Entry, pack_entries
from realmfs.vice.errors import Code
from realmfs.vice.repair import RepairCommand, RepairOp, ReplicaRepair, pack_repair
from realmfs.vice.types import Fid, ObjectType, Status, StoreId
from tests.group import GroupClient, Servers, group, refusal

EVERYBODY = (1, 2, 3)
Clock = trio.abc.Clock
pytestmark = pytest.mark.logs("a conflict")


async def repair(client: GroupClient, fid: Fid, data: bytes, **status: Any) -> StoreId:
    """Send the same repair to all, as a client does; then the second phase."""
    seen = [
        (await client.ask_at(number, calls.GetAttr(fid=fid, inconsistent_ok=True))).status
        for number in EVERYBODY
    ]
    wanted = dataclasses.replace(seen[0], vv=maximum(one.vv for one in seen), **status)
    store_id = client.store_id()
    for number in EVERYBODY:
        call = calls.Repair(fid=fid, status=wanted, store_id=store_id)
        await client.ask_at(number, call, source=BytesSource(data))
    for number in EVERYBODY:
        await client.ask_at(number, calls.Cop2(entries=pack_entries([Cop2Entry(store_id, (0, 1, 2))])))
    return store_id


def sections(servers: Servers, **commands: list[RepairCommand]) -> bytes:
    """Return a repair file with the commands for servers s1, s2, s3."""
    return pack_repair(
        ReplicaRepair(servers.volume(number).id, tuple(commands.get(f"s{number}", ())))
        for number in EVERYBODY
    )


async def test_a_file_in_conflict_gets_new_contents(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        await ann.write(fid, b"first", (1,))
        await ann.write(fid, b"second", (2, 3))
        assert await refusal(ann.resolve(3, fid)) == Code.EINCONS
        await repair(ann, fid, b"both", length=4, mode=0o600, date=1_800_000_123)
        servers.assert_equal()
        assert [servers.data(number, fid) for number in EVERYBODY] == [b"both"] * 3
        assert (await ann.status_at(2, fid)).mode == 0o600


async def test_a_repair_that_reached_one_server_wins(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"", EVERYBODY)
        await ann.write(fid, b"first", (1,))
        await ann.write(fid, b"second", (2, 3))
        assert await refusal(ann.resolve(3, fid)) == Code.EINCONS
        status: Status = (await ann.ask_at(2, calls.GetAttr(fid=fid, inconsistent_ok=True))).status
        status = dataclasses.replace(status, length=4)
        call = calls.Repair(fid=fid, status=status, store_id=ann.store_id())
        await ann.ask_at(2, call, source=BytesSource(b"both"))
        await ann.resolve(1, fid)
        servers.assert_equal()
        assert servers.data(3, fid) == b"both"


async def test_a_directory_is_repaired_by_edits_of_each_replica(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Two files of one name: both stay, one of them under another name."""
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        one = await ann.new_file(b"name", b"1", (1,))
        two = await ann.new_file(b"name", b"22", (2, 3))
        home = await ann.new_directory(b"home", (3,))
        await ann.new_file(b"below", b"333", (3,), home)
        assert await refusal(ann.resolve(2, ann.root)) == Code.EINCONS
        create, mkdir, move = RepairOp.CREATE_FILE, RepairOp.CREATE_DIRECTORY, RepairOp.MOVE
        fix = sections(
            servers,
            s1=[
                RepairCommand(move, b"name", b"other", (ann.volume, 1, 1, 1, 1)),
                RepairCommand(create, b"name", parameters=(*two, 0, 0)),
                RepairCommand(mkdir, b"home", parameters=(*home, 0, 0)),
            ],
            s2=[
                RepairCommand(create, b"other", parameters=(*one, 0, 0)),
                RepairCommand(mkdir, b"home", parameters=(*home, 0, 0)),
            ],
            s3=[RepairCommand(create, b"other", parameters=(*one, 0, 0))],
        )
        await repair(ann, ann.root, fix)
        assert servers.conflicts(1) == [(1, 1)], "the mark stays until the replicas have been compared"
        await ann.resolve(1, ann.root)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(2) == [b"home", b"name", b"other"]
        assert [servers.data(number, one) for number in EVERYBODY] == [b"1"] * 3
        assert [servers.data(number, two) for number in EVERYBODY] == [b"22"] * 3
        assert servers.names(1, home) == [b"below"]


async def test_a_directory_repaired_wrongly_stays_in_conflict(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        await ann.new_file(b"name", b"1", (1,))
        await ann.new_file(b"name", b"2", (2, 3))
        assert await refusal(ann.resolve(2, ann.root)) == Code.EINCONS
        await repair(ann, ann.root, sections(servers, s1=[RepairCommand(RepairOp.REMOVE, b"name")]))
        assert await refusal(ann.resolve(1, ann.root)) == Code.EINCONS
        commands = [RepairCommand(RepairOp.REMOVE, b"name")]
        await repair(ann, ann.root, sections(servers, s2=commands, s3=commands))
        await ann.resolve(1, ann.root)
        servers.assert_equal()
        assert servers.names(3) == []


async def test_a_tree_is_removed_and_attributes_are_set(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        home = await ann.new_directory(b"home", EVERYBODY)
        await ann.new_file(b"below", b"data", EVERYBODY, home)
        deep = await ann.new_directory(b"deep", EVERYBODY, home)
        await ann.new_file(b"file", b"data", EVERYBODY, deep)
        link = await ann.new_file(b"link", b"data", EVERYBODY)
        await ann.new_file(b"name", b"1", (1,))
        await ann.new_file(b"name", b"2", (2, 3))
        assert await refusal(ann.resolve(2, ann.root)) == Code.EINCONS
        commands = [
            RepairCommand(RepairOp.REMOVE, b"name"),
            RepairCommand(RepairOp.REMOVE_DIRECTORY, b"home"),
            RepairCommand(RepairOp.CREATE_LINK, b"second", parameters=(*link, 0, 0)),
            RepairCommand(RepairOp.SET_MODE, parameters=(0o700, 0, 0, 0, 0)),
            RepairCommand(RepairOp.SET_MTIME, parameters=(1_800_000_000, 0, 0, 0, 0)),
            RepairCommand(RepairOp.SET_ACL, b"System:AnyUser", parameters=(9, 0, 0, 0, 0)),
        ]
        await repair(ann, ann.root, sections(servers, s1=commands, s2=commands, s3=commands))
        await ann.resolve(2, ann.root)
        await servers.settled()
        servers.assert_equal()
        assert servers.names(2) == [b"link", b"second"]
        assert (await ann.status_at(1, ann.root)).any_rights == 9


async def test_commands_that_cannot_be_executed_change_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with group(tmp_path) as (servers, nursery):
        ann = await servers.client(nursery)
        one = await ann.new_file(b"name", b"1", (1,))
        await ann.new_file(b"name", b"2", (2, 3))
        assert await refusal(ann.resolve(2, ann.root)) == Code.EINCONS
        before = servers.contents(1)
        fid = await ann.fid_from(1, ObjectType.FILE)
        for command, code in [
            (RepairCommand(RepairOp.REMOVE, b"nothing"), Code.ENOENT),
            (RepairCommand(RepairOp.CREATE_FILE, b"name", parameters=(*fid, 0, 0)), Code.EEXIST),
            (RepairCommand(RepairOp.CREATE_FILE, b"again", parameters=(*one, 0, 0)), Code.EINVAL),
            (RepairCommand(RepairOp.SET_OWNER, parameters=(1, 0, 0, 0, 0)), Code.EACCES),
            (RepairCommand(RepairOp.SET_ACL, b"nobody", parameters=(1, 0, 0, 0, 0)), Code.ENOENT),
        ]:
            good = RepairCommand(RepairOp.REMOVE, b"name")
            assert await refusal(repair(ann, ann.root, sections(servers, s1=[command, good]))) == code
            assert servers.contents(1) == before
        assert await refusal(repair(ann, ann.root, b"nonsense")) == Code.EINVAL
