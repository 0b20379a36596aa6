"""What happens in between: while one request waits, another one changes what it rests on."""

import errno
import itertools
import os
import sqlite3
from collections.abc import Sequence
from contextlib import nullcontext
from errno import EEXIST, EIO, EISDIR, ENOSPC, EROFS
from pathlib import Path

import pytest
import trio
import trio.testing

from realmfs.cache.errors import CacheFull, Damage
from realmfs.realms.group import Group
from realmfs.realms.types import ANYUSER, Reintegrated
from realmfs.venus.custody import Custody
from realmfs.venus.face import ROOT_INODE, Caller, Changes
from realmfs.venus.fetch import _Whole
from realmfs.venus.node import Node
from realmfs.venus.sender import FATAL
from realmfs.vice.calls import SendReintFragment
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import unpack_log
from realmfs.vice.types import FidRange, ObjectType, StoreId
from tests.t5_venus.world import ME, REALM, Client, refused, until, world

ROOT = f"/{REALM}"
OTHER = Caller(1001, 1001, 0)


def hold_back(client: Client) -> None:
    """Send nothing of the log until `let_go`."""
    client.venus.core.logged = lambda volume: None


def let_go(client: Client) -> None:
    client.venus.core.logged = client.venus.reintegrator.wake
    client.venus.reintegrator.wake_all()


async def test_an_interrupted_large_store_does_not_go_on_with_other_contents(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(big_store=100_000), await w.client()
        await a.write(f"{ROOT}/big", b"1" * (9 << 20))
        await until(lambda: w.realm.calls[SendReintFragment.OPCODE] >= 2)
        a.offline()
        await trio.sleep(60)
        await a.write(f"{ROOT}/big", b"2" * (9 << 20))
        a.online()
        await a.drained(600)
        assert set(await b.read(f"{ROOT}/big")) == set(b"2")


async def test_writing_to_what_was_replaced_elsewhere_is_refused(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        ino = (await b.look(f"{ROOT}/f")).ino
        opened = await b.venus.open(ME, ino, os.O_RDWR)
        assert await b.venus.read(opened.handle, 0, 100) == b"old"
        await a.write(f"{ROOT}/f", b"newer")
        await a.drained()
        assert (await b.look(f"{ROOT}/f")).ino != ino
        with refused(EIO):
            await b.venus.write(opened.handle, 0, b"mine")
        with refused(EIO):
            await b.venus.setattr(ME, ino, Changes(size=1), opened.handle)
        with refused(EIO):
            await b.venus.setattr(ME, ino, Changes(mode=0o600), opened.handle)
        assert await b.venus.read(opened.handle, 0, 100) == b"old"
        await b.venus.release(opened.handle)
        assert await b.read(f"{ROOT}/f") == b"newer"


async def test_who_waited_for_room_does_not_fetch_over_what_was_written_meanwhile(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        ino = (await b.look(f"{ROOT}/f")).ino
        room, waiting, there_is_room = b.venus.core.room, trio.Event(), trio.Event()

        async def full(*, size: int = 0, objects: int = 0, records: int = 0) -> None:
            waiting.set()
            await there_is_room.wait()
            await room(size=size, objects=objects, records=records)

        async def read() -> None:
            opened = await b.venus.open(OTHER, ino, os.O_RDONLY)
            await b.venus.release(opened.handle)

        async with trio.open_nursery() as nursery:
            monkeypatch.setattr(b.venus.core, "room", full)
            nursery.start_soon(read)
            await waiting.wait()
            monkeypatch.setattr(b.venus.core, "room", room)
            opened = await b.venus.open(ME, ino, os.O_WRONLY | os.O_TRUNC)
            await b.venus.write(opened.handle, 0, b"written here")
            there_is_room.set()
        await b.venus.flush(opened.handle)
        await b.venus.release(opened.handle)
        assert await b.read(f"{ROOT}/f") == b"written here"
        await b.drained()
        assert await a.read(f"{ROOT}/f") == b"written here"


async def test_data_not_yet_here_can_be_had_of_what_was_renamed_or_given_another_mode(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.write(f"{ROOT}/g", b"others")
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/in", b"")
        await a.symlink(f"{ROOT}/s", b"target")
        await a.drained()
        await b.ls(ROOT)
        hold_back(b)
        await b.change(f"{ROOT}/f", mode=0o755)
        await b.change(f"{ROOT}/d", mode=0o700)
        await b.rename(f"{ROOT}/g", f"{ROOT}/h")
        await b.rename(f"{ROOT}/s", f"{ROOT}/t")
        assert await b.read(f"{ROOT}/f") == b"contents"
        assert await b.read(f"{ROOT}/h") == b"others"
        assert await b.ls(f"{ROOT}/d") == ["in"]
        assert await b.venus.readlink(ME, (await b.look(f"{ROOT}/t")).ino) == b"target"
        assert (await b.look(f"{ROOT}/f")).mode & 0o777 == 0o755
        await b.restart()
        assert await b.read(f"{ROOT}/f") == b"contents"
        let_go(b)
        await b.drained()
        assert (await a.look(f"{ROOT}/f")).mode & 0o777 == 0o755
        assert await a.ls(ROOT) == ["d", "f", "h", "t"]


@pytest.mark.logs("cannot bring the cache back")
async def test_a_full_disk_does_not_end_the_daemon(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()

        def full(*_: object) -> None:
            raise CacheFull("no space on the disk")

        monkeypatch.setattr(a.cache.replacement, "trim", full)
        await trio.sleep(100)
        assert await a.ls(ROOT) == []


async def test_a_further_name_is_forgotten_when_another_client_removes_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"")
        root, ino = (await a.look(ROOT)).ino, (await a.look(f"{ROOT}/f")).ino
        await a.venus.link(ME, ino, root, b"further")  # the kernel looks for it before; nobody does after
        await a.drained()
        await trio.sleep(1)
        a.kernel.entries.clear()
        await b.unlink(f"{ROOT}/further")
        await b.drained()
        await until(lambda: (root, b"further") in a.kernel.entries, 10)


async def test_an_object_wanted_twice_ahead_leaves_the_count_right(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"small")
        await a.drained()
        await b.ls(ROOT)
        root = b.venus.core.nodes.by_number((await b.look(ROOT)).ino)
        directory = b.venus.fetcher.present(root)
        assert directory is not None
        vnode, unique = directory.lookup(b"f") or (0, 0)
        node = b.venus.core.nodes.get(root.volume, root.fid._replace(vnode=vnode, unique=unique))
        ahead = b.venus.readahead
        for data in (False, True):
            ahead._plan([node, node], root, ME.uid, data=data)
        ahead._pump()
        assert ahead._flying
        await trio.sleep(10)
        assert not ahead._flying


@pytest.mark.parametrize("what", ["directory", "file"])
async def test_what_another_user_may_not_have_is_fetched_all_the_same(
    tmp_path: Path, autojump_clock: trio.abc.Clock, what: str
) -> None:
    """Who waits for the fetch of somebody who is refused tries for himself."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"for some")
        await a.drained()
        ino = (await b.look(f"{ROOT}/d" if what == "directory" else f"{ROOT}/d/f")).ino
        core = b.venus.core
        node = core.nodes.by_number(ino)
        with core.cache.transaction():
            core.nodes.drop_data(node)

        async def refuse() -> None:
            await trio.sleep(1)
            raise CodaError(Code.EACCES)

        core.flights.start(("data", ino), refuse, ME.uid + 1)
        if what == "directory":
            assert b"f" in await b.venus.fetcher.directory(node, ME.uid)
        else:
            assert (await b.venus.fetcher.whole(node, ME.uid)).read(0, 100) == b"for some"


async def test_closing_needs_no_room_where_nothing_was_written(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"contents")
        reader = await a.venus.open(ME, ino, os.O_RDONLY)
        writer = await a.venus.open(ME, ino, os.O_WRONLY)
        await a.venus.write(writer.handle, 0, b"C")

        async def full(**_: int) -> None:
            raise CacheFull("not even a record fits")

        monkeypatch.setattr(a.venus.core, "room", full)
        await a.venus.flush(reader.handle)
        await a.venus.release(reader.handle)
        with refused(ENOSPC):
            await a.venus.flush(writer.handle)
        with refused(ENOSPC):
            await a.venus.release(writer.handle)
        assert not a.venus.core.nodes.by_number(ino).open


async def test_a_reader_who_closes_does_not_log_what_another_writes(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"")
        await a.drained()
        writer = await a.venus.open(ME, ino, os.O_WRONLY)
        await a.venus.write(writer.handle, 0, b"half")
        assert await a.read(f"{ROOT}/f", OTHER) == b"half"
        assert not a.pending
        reader = await a.venus.open(OTHER, ino, os.O_RDONLY)
        await a.venus.fsync(reader.handle, data_only=False)
        assert [entry.uid for entry in a.cache.log.entries(a.cache.log.volumes()[0])] == [ME.uid]
        await a.venus.release(reader.handle)
        await a.venus.release(writer.handle)


async def test_changes_of_two_users_are_not_sent_as_those_of_one(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    users: list[int] = []
    send = Group.reintegrate

    async def noted(self: Group, records: bytes, user: int, **how: bool) -> Reintegrated:
        users.append(user)
        return await send(self, records, user, **how)

    monkeypatch.setattr(Group, "reintegrate", noted)
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"")
        await a.drained()
        users.clear()
        hold_back(a)
        opened = await a.venus.open(OTHER, (await a.look(f"{ROOT}/f")).ino, os.O_WRONLY)
        await a.venus.write(opened.handle, 0, b"by the other")
        await a.mkdir(f"{ROOT}/mine")
        await a.venus.flush(opened.handle)
        await a.venus.release(opened.handle)
        let_go(a)
        await a.drained()
        assert users == [ANYUSER, ANYUSER], "two batches, both by users without a token"
        assert await b.read(f"{ROOT}/f") == b"by the other"


@pytest.mark.logs("cannot be logged")
async def test_one_file_that_cannot_be_logged_at_the_end_does_not_keep_the_others_from_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        inos = [await a.write(f"{ROOT}/{name}", b"") for name in "fg"]
        await a.drained()
        hold_back(a)
        for ino in inos:
            opened = await a.venus.open(ME, ino, os.O_WRONLY)
            await a.venus.write(opened.handle, 0, b"written")
        append, refusals = a.cache.log.append, ["once"]

        def full(*args: object, **options: Sequence[int]) -> int:
            if refusals:
                refusals.pop()
                raise CacheFull("no space on the disk")
            return append(*args, **options)  # type: ignore[arg-type]  # passed on as they are

        monkeypatch.setattr(a.cache.log, "append", full)
        a.venus.commit_open_files()
        assert a.pending == 1


@pytest.mark.parametrize("times", [1, 2 * FATAL])
async def test_a_batch_of_unknown_outcome_keeps_its_store_ids_while_servers_are_busy(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    sent: list[StoreId] = []
    send = Group.reintegrate

    async def busy_at_first(self: Group, records: bytes, user: int, **how: bool) -> Reintegrated:
        sent.extend(record.store_id for record in unpack_log(records))
        if len(sent) <= times:
            return Reintegrated(Code.EWOULDBLOCK, -1, (), False)
        return await send(self, records, user, **how)

    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"")
        await a.drained()
        hold_back(a)
        await a.change(f"{ROOT}/f", mode=0o600)
        with a.cache.transaction():  # as it was chosen for sending before a crash
            (frozen,) = a.cache.log.freeze(a.cache.log.entries(a.cache.log.volumes()[0]))
        monkeypatch.setattr(Group, "reintegrate", busy_at_first)
        let_go(a)
        await a.drained(3600)  # it waits longer and longer
        assert sent == [frozen.store_id] * (times + 1)


async def test_what_left_memory_but_not_the_kernel_is_forgotten_when_it_changes(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client(objects_in_memory=4)
        for name in "abcdefgh":
            await a.write(f"{ROOT}/{name}", b"")
        await a.drained()
        ino = (await b.look(f"{ROOT}/a")).ino
        for name in "bcdefgh":
            await b.look(f"{ROOT}/{name}")
        b.venus.fetcher._parsed.clear()
        assert b.venus.core.nodes.in_memory(ino) is None
        assert (await b.venus.getattr(ME, ino)).attr_timeout > 0
        b.kernel.inodes.clear()
        await a.change(f"{ROOT}/a", mode=0o600)
        await until(lambda: (ino, True) in b.kernel.inodes, 10)


async def test_a_removal_that_cannot_be_committed_leaves_the_contents(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        a.offline()

        def full() -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(a.cache._database, "_commit", full)
            with refused(EIO):
                await a.unlink(f"{ROOT}/f")
        assert await a.read(f"{ROOT}/f") == b"contents"


async def test_a_damaged_cache_can_still_be_listed_and_read(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        a.cache._database.damage = Damage(tmp_path, "a page is not what it was", readable=True)
        assert await a.ls(ROOT) == ["f"]
        assert await a.read(f"{ROOT}/f") == b"contents"
        with refused(EROFS):
            await a.unlink(f"{ROOT}/f")


async def test_servers_that_grant_no_fids_are_not_asked_without_end(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[ObjectType] = []

    async def none(self: Group, kind: ObjectType, count: int, user: int) -> FidRange:
        asked.append(kind)
        return FidRange(0, 0, 0, 0)

    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        with monkeypatch.context() as patch:
            patch.setattr(Group, "alloc_fids", none)
            await a.mkdir(f"{ROOT}/d")
            await trio.sleep(60)
            assert len(asked) < 60
        await a.drained()


async def test_a_realm_that_was_not_there_is_looked_for_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        with w.realms_file.open("a") as file:
            file.write("later.test \n")  # said to have no servers, so that no name server is asked
        a = await w.client()
        absent = await a.venus.lookup(ME, ROOT_INODE, b"later.test")
        assert (absent.ino, absent.entry_timeout <= 60) == (0, True)


async def test_what_another_client_made_just_before_is_opened_unless_it_must_be_new(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        root = (await b.look(ROOT)).ino
        assert not (await b.venus.lookup(ME, root, b"f")).ino
        await a.write(f"{ROOT}/f", b"by a")
        await a.drained()
        with refused(EEXIST):
            await b.venus.create(ME, root, b"f", 0o644, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        opened, attr = await b.venus.create(ME, root, b"f", 0o644, os.O_RDWR | os.O_CREAT)
        assert attr.size == 4
        assert await b.venus.read(opened.handle, 0, 100) == b"by a"
        await b.venus.write(opened.handle, 4, b" and b")
        await b.venus.release(opened.handle)
        await b.drained()
        assert await a.read(f"{ROOT}/f") == b"by a and b"
        await a.mkdir(f"{ROOT}/d")
        await a.drained()
        with refused(EISDIR):
            await b.venus.create(ME, root, b"d", 0o644, os.O_RDWR | os.O_CREAT)


def test_no_server_can_fill_the_memory_with_a_directory() -> None:
    with pytest.raises(ValueError, match="more than"):
        _Whole().at(0).write(bytes(1 << 20))


async def test_entries_that_nobody_asks_about_take_no_room_in_memory(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        for number in range(20):
            await a.write(f"{ROOT}/{number}", b"")
        await a.drained()
        entries = await b.entries(ROOT)
        for entry in entries:
            b.venus.remember(entry.ino)  # as for a program that lists, and asks for the attributes of none
        in_memory = b.venus.core.nodes.in_memory
        assert not any(in_memory(entry.ino) for entry in entries)
        attr = await b.look(f"{ROOT}/7")
        b.venus.forget(attr.ino, 1)  # the entry; the lookup that came between stays
        node = in_memory(attr.ino)
        assert node is not None
        assert node.lookups == 1
        b.venus.forget(attr.ino, 1)
        assert not node.lookups
        for entry in entries:
            b.venus.forget(entry.ino, 1)
        assert not b.venus._unmet


async def test_a_second_writer_waits_as_well_until_a_file_may_be_written_in_place(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = trio.Event()
    monkeypatch.setattr("realmfs.cache.contents.COPY_LIMIT", 4)
    monkeypatch.setattr("realmfs.cache.disk.clone", lambda source, target: False)
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"contents"
        monkeypatch.setattr(b.cache.contents, "_sync", synced.wait)
        ino = (await b.look(f"{ROOT}/f")).ino
        written: list[int] = []

        async def write(offset: int) -> None:
            opened = await b.venus.open(ME, ino, os.O_RDWR)
            written.append(await b.venus.write(opened.handle, offset, b"!"))
            await b.venus.release(opened.handle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 0)
            await trio.sleep(1)
            nursery.start_soon(write, 7)
            await trio.sleep(1)
            before = list(written)
            synced.set()
        assert before == [], "power loss would leave new bytes in a file that its row calls clean"
        assert await b.read(f"{ROOT}/f") == b"!ontent!"


async def test_a_file_that_turned_out_longer_while_it_came_is_not_read_short(
    tmp_path: Path, autojump_clock: trio.abc.Clock, nursery: trio.Nursery
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"whole file")
        await a.drained()
        ino = (await b.look(f"{ROOT}/f")).ino
        opened = await b.venus.open(ME, ino, os.O_RDONLY)
        core = b.venus.core
        node = core.nodes.in_memory(ino)
        assert node is not None
        goes_on = trio.Event()
        short = node.content = core.cache.containers.create(0)  # begun when the length was not known
        sink = short.sink()
        core.flights.start(("data", ino), goes_on.wait)
        seen: list[bytes] = []

        async def reader() -> None:
            seen.append(await b.venus.read(opened.handle, 0, 100))

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        sink.write(b"whole file")
        short.settle()
        goes_on.set()
        await until(lambda: bool(seen))
        assert seen == [b"whole file"]
        await b.venus.release(opened.handle)


async def test_the_first_write_into_a_large_file_waits_as_long_as_the_file_is_coming(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """20 s of fetching, with a patience of 10 s."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        size = 4 << 20
        await b.write(f"{ROOT}/large", bytes(size))
        await b.drained()
        ino = (await a.look(f"{ROOT}/large")).ino
        w.net.latency = 0.15
        opened = await a.venus.open(ME, ino, os.O_RDWR)
        started = trio.current_time()
        assert await a.venus.write(opened.handle, size, b"!") == 1
        assert trio.current_time() - started > a.settings.patience
        w.net.latency = 0.001
        await a.venus.release(opened.handle)
        await a.drained()
        assert (await b.look(f"{ROOT}/large")).size == size + 1


async def test_the_first_write_into_a_file_that_does_not_come_ends_with_the_patience(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        size = 4 << 20
        await b.write(f"{ROOT}/large", bytes(size))
        await b.drained()
        ino = (await a.look(f"{ROOT}/large")).ino
        w.net.latency = 0.15
        opened = await a.venus.open(ME, ino, os.O_RDWR)
        a.offline()
        started = trio.current_time()
        with refused(errno.ETIMEDOUT):
            await a.venus.write(opened.handle, size, b"!")
        assert trio.current_time() - started <= 2 * a.settings.patience
        await a.venus.release(opened.handle)
        assert a.pending == 0


async def test_truncating_by_path_is_logged_at_once_beside_a_writer(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"0123456789")
        await a.drained()
        a.offline()
        writer = await a.venus.open(ME, ino, os.O_RDWR)
        await a.venus.write(writer.handle, 0, b"AB")
        assert a.pending == 0
        await a.venus.setattr(ME, ino, Changes(size=4))
        assert a.pending == 1
        await a.venus.write(writer.handle, 4, b"after")
        await a.restart()
        assert await a.read(f"{ROOT}/f") == b"AB23"


@pytest.mark.parametrize(("disturbed", "number"), [(8, 0), (10**6, errno.EAGAIN)])
async def test_a_directory_that_others_disturb_is_tried_for_most_of_the_patience(
    tmp_path: Path,
    autojump_clock: trio.abc.Clock,
    monkeypatch: pytest.MonkeyPatch,
    disturbed: int,
    number: int,
) -> None:
    """Reference servers make directories equal after our own stores, again and again while we send."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await b.mkdir(f"{ROOT}/d")
        await b.write(f"{ROOT}/d/f", b"x")
        await b.drained()
        ino = (await a.look(f"{ROOT}/d")).ino
        fetch, times = a.venus.fetcher._fetch_whole, itertools.count()

        async def changed_meanwhile(node: Node, uid: int) -> None:
            if next(times) >= disturbed:
                await fetch(node, uid)
            else:
                await trio.lowlevel.checkpoint()

        monkeypatch.setattr(a.venus.fetcher, "_fetch_whole", changed_meanwhile)
        started = trio.current_time()
        with refused(number) if number else nullcontext():
            await a.venus.opendir(ME, ino)
        assert trio.current_time() - started < a.settings.patience
        assert next(times) > min(disturbed, 20)


async def test_what_goes_from_the_cache_while_somebody_looks_at_it_is_brought_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """It is there, at the servers: only nothing of it is here."""
    async with world(tmp_path, latency=0.1) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/x", b"1")
        await a.drained()
        ino = (await b.look(f"{ROOT}/d")).ino
        assert await b.ls(f"{ROOT}/d") == ["x"]
        await Custody(b.venus.core).drop(b.venus.core.nodes.by_number((await b.look(f"{ROOT}/d/x")).ino))
        await a.write(f"{ROOT}/d/y", b"2")
        await a.drained()
        await trio.sleep(30)
        found: list[bytes] = []

        async def look() -> None:
            handle = (await b.venus.opendir(ME, ino)).handle
            found.extend(entry.name for entry in await b.venus.readdir(handle, 0))
            await b.venus.releasedir(handle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.sleep(0.15)
            await Custody(b.venus.core).drop(b.venus.core.nodes.by_number(ino))
        assert {b"x", b"y"} <= set(found)
