"""Data and status are of one version: what is shown as new, and written over, is never the old (node.py)."""

import os
from collections.abc import Awaitable, Callable
from errno import ETIMEDOUT
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.cache.containers import Container
from realmfs.cache.errors import CacheFull
from realmfs.control import messages
from realmfs.realms.group import Group
from realmfs.venus.gather import Gatherer
from realmfs.venus.node import Node
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError
from realmfs.vice.types import Fid, ObjectType, Status, StoreId, VersionVector
from tests.t2b_server.test_group_client import HOME
from tests.t2b_server.test_group_client import world as group_world
from tests.t5_venus.test_conflicts import ROWS, collide, until_up, write
from tests.t5_venus.test_group_conflicts import FILE, PATH, S1, S2, S3, equal, look_at_all, settle, split
from tests.t5_venus.world import ME, REALM, Client, World, refused, until, world

ROOT = f"/{REALM}"
Clock = trio.abc.Clock


def node_of(client: Client, ino: int) -> Node:
    return client.venus.core.nodes.by_number(ino)


async def test_a_container_left_open_does_not_outlive_its_version(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Of a change given up, then of a version that others replaced: what would be written over is theirs."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        node = await collide(w, ROWS["both store"], a, b)
        core, uid = a.venus.core, ME.uid
        assert (await a.venus.fetcher.whole(node, uid)).read(0, 9) == b"ours"
        await a.venus.settler.keep_server(ME, node)
        assert await a.read(f"{ROOT}/f") == b"theirs!"
        await a.venus.fetcher.whole(core.nodes.get(node.volume, node.fid), uid)
        await b.write(f"{ROOT}/f", b"latest")
        await b.drained()
        opened = await a.venus.open(ME, (await a.look(f"{ROOT}/f")).ino, os.O_RDWR)
        assert await a.venus.read(opened.handle, 0, 9) == b"latest"
        await a.venus.release(opened.handle)


async def test_contents_lent_out_are_given_back(tmp_path: Path, autojump_clock: Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        ino = await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        node = node_of(a, ino)
        async with a.venus.fetcher.contents(node, ME.uid) as content:
            await b.write(f"{ROOT}/f", b"newer")
            await b.drained()
            assert await a.read(f"{ROOT}/f") == b"newer"
            assert content.read(0, 9) == b"old"
        assert node.content is None
        assert not node.open
        assert node.replaced
        assert await a.read(f"{ROOT}/f") == b"newer"


@pytest.mark.logs("a conflict$")
async def test_a_second_repair_does_not_bring_back_what_the_first_one_kept(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with split(tmp_path, *FILE) as (made, a, b):
        for here, there in ((b"through 1", b"through 2"), (b"second, 1", b"second, 2")):
            if here != b"through 1":
                for one, other in ((a.host, "10.0.0.2"), (a.host, "10.0.0.3"), (b.host, S1)):
                    made.net.partition(*sorted((one, other)))
                made.net.partition(S1, "10.0.0.2")
                made.net.partition(S1, "10.0.0.3")
                await trio.sleep(120)
                await a.write(f"{HOME}/f", here)
                await b.write(f"{HOME}/f", there)
                await a.drained(600)
                await b.drained(600)
                made.net.heal()
                for client in (a, b):
                    client.realms.network_changed()
                await until(lambda: all(s.available for c in (a, b) for s in c.realms.servers()))
                await trio.sleep(120)
            await look_at_all(a)
            await settle(a, tmp_path, messages.Settle(path=PATH, keep="server", server=S1))
            await equal(made)
            assert await a.read(f"{HOME}/f") == here
            assert await b.read(f"{HOME}/f") == here


def gatherer_of(client: Client) -> Gatherer:
    return client.venus.hoard._means.gatherer


async def open_and_outdated(w: World) -> tuple[Client, Client, int, int]:
    """Let one client have a file open that another has changed; return inode number and handle."""
    a, b = await w.client(), await w.client()
    await a.write(f"{ROOT}/f", b"old")
    await a.drained()
    assert await b.read(f"{ROOT}/f") == b"old"
    ino = (await b.look(f"{ROOT}/f")).ino
    opened = await b.venus.open(ME, ino, os.O_RDONLY)
    await a.write(f"{ROOT}/f", b"new")
    await a.drained()
    return a, b, ino, opened.handle


async def test_what_is_brought_for_a_hoard_does_not_rename_contents_that_are_open(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with world(tmp_path) as w:
        _, b, ino, handle = await open_and_outdated(w)
        await gatherer_of(b).bring(node_of(b, ino), ME.uid, lambda node: None)
        assert await b.venus.read(handle, 0, 9) == b"old"
        assert await b.read(f"{ROOT}/f") == b"new"
        await b.venus.release(handle)
        assert await b.read(f"{ROOT}/f") == b"new"


async def test_a_version_that_could_not_be_kept_is_not_believed_to_be_here(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        _, b, ino, handle = await open_and_outdated(w)
        await b.venus.release(handle)
        node = node_of(b, ino)
        assert node.status is not None
        old = node.status.vv
        attach = b.cache.objects.attach

        def full(number: int, container: Container | None) -> None:
            if container is not None:
                raise CacheFull("no room")
            attach(number, container)

        with monkeypatch.context() as patch:
            patch.setattr(b.cache.objects, "attach", full)
            with pytest.raises((CodaError, CacheFull)):
                await gatherer_of(b).bring(node, ME.uid, lambda node: None)
        b.offline()
        await until(lambda: not node.volume.reachable)
        with refused(ETIMEDOUT):  # the status is the new one, and nothing is here of that
            await b.read(f"{ROOT}/f")
        assert not node.same_version(old)


async def race(
    w: World, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Client], Awaitable[object]]
) -> Client:
    """Settle `both store` with the servers' version, doing something while they are asked."""
    a, b = await w.client(), await w.client()
    node = await collide(w, ROWS["both store"], a, b)
    asked, go_on = trio.Event(), trio.Event()
    get_attr = Group.get_attr

    async def slow(self: Group, fid: Fid, *arguments: Any, **options: Any) -> Any:
        answer = await get_attr(self, fid, *arguments, **options)
        if not asked.is_set():
            asked.set()
            await go_on.wait()
        return answer

    monkeypatch.setattr(Group, "get_attr", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.venus.settler.keep_server, ME, node)
        await asked.wait()
        await meanwhile(a)
        go_on.set()
    return a


async def test_what_is_written_while_a_conflict_is_settled_meets_the_servers_version(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:

        async def write_ours(a: Client) -> None:
            (node,) = a.venus.core.conflicts.all()
            opened = await a.venus.open(ME, node.ino, os.O_RDWR)
            await a.venus.write(opened.handle, 0, b"once more")
            await a.venus.flush(opened.handle)
            await a.venus.release(opened.handle)

        a = await race(w, monkeypatch, write_ours)
        await trio.sleep(60)
        other = await w.client()
        assert await other.read(f"{ROOT}/f") == b"theirs!"  # it is still ours to decide
        assert len(a.venus.core.conflicts.all()) == 1
        assert await a.read(f"{ROOT}/f/_localcache") == b"once more"


@pytest.mark.parametrize("keep", ["local", "server"])
async def test_a_directory_is_settled_with_its_names(
    tmp_path: Path, autojump_clock: Clock, keep: str
) -> None:
    """The servers' version of a directory is not taken over without the names that it has there."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/old", b"1")
        await a.drained()
        assert await b.ls(f"{ROOT}/d") == ["old"]
        a.offline()
        await a.rename(f"{ROOT}/d", f"{ROOT}/e")
        await write("e/ours", b"2")(a)
        await write("d/theirs", b"3")(b)
        await write("e", b"in the way")(b)
        await b.drained()
        a.online()
        await until_up(a)
        await until(lambda: bool(a.venus.core.conflicts.all()))
        (node,) = a.venus.core.conflicts.all()
        settler = a.venus.settler
        await (settler.keep_local(ME, node) if keep == "local" else settler.keep_server(ME, node))
        await a.drained()
        await trio.sleep(30)
        place = f"{ROOT}/e" if keep == "local" else f"{ROOT}/d"
        assert await a.ls(place) == await b.ls(place) == ["old", "ours", "theirs"]


async def test_a_directory_that_others_changed_too_has_all_their_names(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The store id of our own update is on top of it, and says nothing of theirs."""
    async with group_world(tmp_path) as made:
        a, b = await made.client(), await made.client()
        await a.write(f"{HOME}/old", b"1")
        await a.drained()
        assert await b.ls(HOME) == await a.ls(HOME) == ["old"]
        made.net.partition(a.host)
        await write_at_home(a, "ours")
        await write_at_home(b, "theirs")
        await b.drained()
        made.net.heal()
        a.realms.network_changed()
        await a.drained()
        await trio.sleep(30)
        assert await a.ls(HOME) == await b.ls(HOME) == ["old", "ours", "theirs"]


async def write_at_home(client: Client, name: str) -> None:
    await client.write(f"{HOME}/{name}", b"x")


def status(vv: VersionVector) -> Status:
    return Status(ObjectType.FILE, 1, 4, 1, vv, 0, 0, 0, False, 7, 7, 0o644, (1, 1))


def test_counters_alone_do_not_name_a_version() -> None:
    volume = VolumeState(1, "r", 1, "v")
    file, directory = Node(volume, Fid(1, 2, 3), 5), Node(volume, Fid(1, 1, 1), 6)
    ours = VersionVector((1, 1, 0, 0, 0, 0, 0, 0), StoreId(1, 1))
    for node in (file, directory):
        node.status = status(ours)
        assert node.same_version(ours)
    assert not file.same_version(ours.with_store_id(StoreId(2, 1)))
    assert directory.same_version(ours.with_store_id(StoreId(2, 1)))  # in one place only, as far as we know
    assert file.same_version(ours.raised([2]))


async def test_what_a_server_sends_that_is_behind_is_shown_to_nobody(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows of its bytes, before the end of the first piece, that the others have newer ones."""
    async with group_world(tmp_path) as made:
        a, b = await made.client(), await made.client()
        await b.write(PATH, b"old")
        await b.drained()
        await trio.sleep(30)
        for other in (S1, S2, b.host):
            made.net.partition(*sorted((S3, other)))
        b.realms.network_changed()
        await trio.sleep(60)
        await b.write(PATH, b"new")
        await b.drained()
        node = node_of(a, (await a.look(PATH)).ino)
        core = a.venus.core.group(node.volume).core
        core.prefer(next(replica.slot for replica in core.replicas if replica.server.address[0] == S3))
        opened = await a.venus.open(ME, node.ino, os.O_RDWR)
        assert await a.venus.read(opened.handle, 0, 9) == b"new"
        await a.venus.release(opened.handle)
