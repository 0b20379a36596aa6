"""Every operation: what it does here, what the servers have afterwards, and what it is refused for."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from realmfs.cache.limits import Limits
from realmfs.venus.face import Caller, Changes
from realmfs.vice.detours import is_fatal
from realmfs.vice.log import AnyRecord, unpack_log
from tests.t5_venus.world import ME, REALM, Client, refused, world

ROOT = f"/{REALM}"


async def tree(client: Client, path: str = ROOT) -> dict[str, object]:
    """Return everything below a directory: contents, link texts, directories as dicts."""
    found: dict[str, object] = {}
    for name in await client.ls(path):
        attr = await client.look(f"{path}/{name}")
        if stat.S_ISDIR(attr.mode):
            found[name] = await tree(client, f"{path}/{name}")
        elif stat.S_ISLNK(attr.mode):
            found[name] = await client.venus.readlink(ME, attr.ino)
        else:
            found[name] = (await client.read(f"{path}/{name}"), attr.links, attr.mode & 0o777)
    return found


async def everything(a: Client) -> None:
    """Do each kind of change at least once."""
    await a.mkdir(f"{ROOT}/d")
    await a.mkdir(f"{ROOT}/d/e")
    await a.mkdir(f"{ROOT}/empty")
    await a.write(f"{ROOT}/d/f", b"first")
    await a.write(f"{ROOT}/d/f", b"second")
    await a.link(f"{ROOT}/d/f", f"{ROOT}/d/g")
    await a.symlink(f"{ROOT}/d/s", b"../somewhere")
    await a.write(f"{ROOT}/gone", b"x")
    await a.unlink(f"{ROOT}/gone")
    await a.rmdir(f"{ROOT}/empty")
    await a.write(f"{ROOT}/old", b"moved")
    await a.rename(f"{ROOT}/old", f"{ROOT}/d/new")
    await a.write(f"{ROOT}/target", b"overwritten")
    await a.write(f"{ROOT}/source", b"over")
    await a.rename(f"{ROOT}/source", f"{ROOT}/target")
    await a.rename(f"{ROOT}/d/e", f"{ROOT}/e2")
    await a.write(f"{ROOT}/e2/deep", b"!")
    await a.change(f"{ROOT}/d/new", mode=0o600)
    await a.change(f"{ROOT}/d/new", size=3)
    await a.change(f"{ROOT}/target", mtime_ns=1_600_000_000 * 10**9)


WANTED = {
    "d": {
        "f": (b"second", 2, 0o644),
        "g": (b"second", 2, 0o644),
        "s": b"../somewhere",
        "new": (b"mov", 1, 0o600),
    },
    "target": (b"over", 1, 0o644),
    "e2": {"deep": (b"!", 1, 0o644)},
}


@pytest.mark.parametrize("own_servers", [True, False])
async def test_everything_online(tmp_path: Path, autojump_clock: trio.abc.Clock, own_servers: bool) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=own_servers), await w.client()
        await everything(a)
        assert await tree(a) == WANTED
        await a.drained()
        assert await tree(b) == WANTED
        assert await tree(a) == WANTED
        assert (await b.look(f"{ROOT}/target")).mtime_ns == 1_600_000_000 * 10**9


@pytest.mark.parametrize("own_servers", [True, False])
async def test_everything_offline_then_a_crash_then_online(
    tmp_path: Path, autojump_clock: trio.abc.Clock, own_servers: bool
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=own_servers), await w.client()
        await a.ls(ROOT)
        a.offline()
        await everything(a)
        inodes = {name: (await a.look(f"{ROOT}/{name}")).ino for name in ("d", "d/f", "e2", "e2/deep")}
        assert await tree(a) == WANTED
        await a.restart()
        assert await tree(a) == WANTED
        a.online()
        await a.drained()
        assert await tree(b) == WANTED
        assert await tree(a) == WANTED
        assert {name: (await a.look(f"{ROOT}/{name}")).ino for name in inodes} == inodes
        await a.restart()
        w.realm.counted()
        assert await tree(a) == WANTED
        assert w.realm.counted().total() < 10, "the versions here are not those of the servers"


async def test_servers_get_no_record_that_kills_them(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """vice/detours.py: every name is of a length that some record must not have."""
    made, removed, moved = b"m" * 18, b"r" * 42, b"d" * 58
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=False), await w.client()
        await a.ls(ROOT)
        a.offline()
        await a.write(f"{ROOT}/{made.decode()}", b"made")
        await a.write(f"{ROOT}/f", b"f")
        await a.symlink(f"{ROOT}/{'s' * 82}", b"target")
        await a.link(f"{ROOT}/f", f"{ROOT}/{removed.decode()}")
        await a.mkdir(f"{ROOT}/{moved.decode()}")
        await a.mkdir(f"{ROOT}/{'e' * 18}")
        assert len(await a.ls(ROOT)) == 6
        assert not any(is_fatal(record) for record in waiting(a))
        a.online()
        await a.drained()
        assert await b.ls(ROOT) == await a.ls(ROOT)
        assert await b.read(f"{ROOT}/{made.decode()}") == b"made"
        a.offline()
        await a.unlink(f"{ROOT}/{removed.decode()}")
        await a.rmdir(f"{ROOT}/{moved.decode()}")
        await a.rename(f"{ROOT}/{made.decode()}", f"{ROOT}/{'e' * 18}/{'n' * 6}")
        assert len(waiting(a)) == 6
        assert not any(is_fatal(record) for record in waiting(a))
        a.online()
        await a.drained()
        assert await b.ls(ROOT) == await a.ls(ROOT) == sorted(["f", "e" * 18, "s" * 82])
        assert await b.ls(f"{ROOT}/{'e' * 18}") == ["n" * 6]


def waiting(client: Client) -> list[AnyRecord]:
    """Return the log of the client's first volume with one."""
    (key,) = client.cache.log.volumes()
    return [unpack_log(entry.record)[0] for entry in client.cache.log.entries(key)]


async def test_what_was_made_and_removed_offline_is_never_sent(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        a.offline()
        for number in range(10):
            await a.write(f"{ROOT}/{number}", b"1")
            await a.write(f"{ROOT}/{number}", b"2")
            await a.change(f"{ROOT}/{number}", mode=0o600)
            await a.unlink(f"{ROOT}/{number}")
        await a.mkdir(f"{ROOT}/d")
        await a.rename(f"{ROOT}/d", f"{ROOT}/e")
        await a.rmdir(f"{ROOT}/e")
        assert a.pending == 0
        assert a.cache.containers.used == 0
        await a.write(f"{ROOT}/f", b"1")
        for number in range(10):
            await a.write(f"{ROOT}/f", b"%d" % number)
        assert a.pending == 2


def name_cases() -> list[tuple[str, Callable[[Client], object], int]]:
    """Return what must be refused where d/ is not empty, e/ is, f is a file, l a link, h1 and h2 one file."""
    long = "n" * 256
    return [
        ("mkdir there", lambda c: c.mkdir(f"{ROOT}/d"), errno.EEXIST),
        ("mkdir dot", lambda c: c.mkdir(f"{ROOT}/."), errno.EEXIST),
        ("mkdir long", lambda c: c.mkdir(f"{ROOT}/{long}"), errno.ENAMETOOLONG),
        ("mkdir reserved", lambda c: c.mkdir(f"{ROOT}/@12345678.12345678.12345678@x"), errno.EINVAL),
        ("mkdir below a file", lambda c: c.mkdir(f"{ROOT}/f/x"), errno.ENOTDIR),
        ("symlink there", lambda c: c.symlink(f"{ROOT}/f", b"x"), errno.EEXIST),
        ("symlink long text", lambda c: c.symlink(f"{ROOT}/x", b"x" * 1024), errno.ENAMETOOLONG),
        ("symlink no text", lambda c: c.symlink(f"{ROOT}/x", b""), errno.ENOENT),
        ("link there", lambda c: c.link(f"{ROOT}/f", f"{ROOT}/l"), errno.EEXIST),
        ("link elsewhere", lambda c: c.link(f"{ROOT}/f", f"{ROOT}/d/x"), errno.EXDEV),
        ("link a directory", lambda c: c.link(f"{ROOT}/d", f"{ROOT}/x"), errno.EPERM),
        ("link a symlink", lambda c: c.link(f"{ROOT}/l", f"{ROOT}/x"), errno.EXDEV),
        ("unlink nothing", lambda c: c.unlink(f"{ROOT}/x"), errno.ENOENT),
        ("unlink a directory", lambda c: c.unlink(f"{ROOT}/d"), errno.EISDIR),
        ("rmdir a file", lambda c: c.rmdir(f"{ROOT}/f"), errno.ENOTDIR),
        ("rmdir not empty", lambda c: c.rmdir(f"{ROOT}/d"), errno.ENOTEMPTY),
        ("rmdir dots", lambda c: c.rmdir(f"{ROOT}/d/.."), errno.EINVAL),
        ("rename nothing", lambda c: c.rename(f"{ROOT}/x", f"{ROOT}/y"), errno.ENOENT),
        ("rename into itself", lambda c: c.rename(f"{ROOT}/d", f"{ROOT}/d/y"), errno.EINVAL),
        ("rename deep into itself", lambda c: c.rename(f"{ROOT}/d", f"{ROOT}/d/sub/y"), errno.EINVAL),
        ("rename onto not empty", lambda c: c.rename(f"{ROOT}/e", f"{ROOT}/d"), errno.ENOTEMPTY),
        ("rename dir onto file", lambda c: c.rename(f"{ROOT}/e", f"{ROOT}/f"), errno.ENOTDIR),
        ("rename file onto dir", lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/e"), errno.EISDIR),
        ("rename no replace", lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/l", 1), errno.EEXIST),
        ("rename exchange", lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/l", 2), errno.EINVAL),
        ("rename hard link away", lambda c: c.rename(f"{ROOT}/h1", f"{ROOT}/d/h1"), errno.EXDEV),
        ("rename to reserved", lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/a@sys"), errno.EINVAL),
        ("rename to a realm", lambda c: c.rename(f"{ROOT}/f", "/f"), errno.EXDEV),
        ("truncate a directory", lambda c: c.change(f"{ROOT}/d", size=0), errno.EISDIR),
        ("truncate huge", lambda c: c.change(f"{ROOT}/f", size=2**31), errno.EFBIG),
        ("chmod a symlink", lambda c: c.change(f"{ROOT}/l", mode=0o600), errno.EOPNOTSUPP),
        ("chown", lambda c: c.change(f"{ROOT}/f", uid=4711), errno.EPERM),
        ("chmod set-user-id", lambda c: c.change(f"{ROOT}/f", mode=0o4755), errno.EPERM),
    ]


@pytest.mark.parametrize("online", [True, False])
async def test_what_is_refused_changes_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock, online: bool
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.mkdir(f"{ROOT}/d/sub")
        await a.mkdir(f"{ROOT}/e")
        await a.write(f"{ROOT}/f", b"x")
        await a.symlink(f"{ROOT}/l", b"x")
        await a.write(f"{ROOT}/h1", b"x")
        await a.link(f"{ROOT}/h1", f"{ROOT}/h2")
        await a.drained()
        before = await tree(a)
        if not online:
            a.offline()
        for what, attempt, number in name_cases():
            try:
                with refused(number):
                    await attempt(a)  # type: ignore[misc]  # the cases return coroutines of several types
            except BaseException:
                print("case:", what)
                raise
        assert a.pending == 0
        assert await tree(a) == before


async def test_two_names_of_one_file(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/h1", b"x")
        await a.link(f"{ROOT}/h1", f"{ROOT}/h2")
        await a.rename(f"{ROOT}/h1", f"{ROOT}/h2")
        assert await a.ls(ROOT) == ["h1", "h2"]
        await a.unlink(f"{ROOT}/h1")
        assert (await a.look(f"{ROOT}/h2")).links == 1
        assert await a.read(f"{ROOT}/h2") == b"x"
        await a.drained()
        assert await tree(a) == {"h2": (b"x", 1, 0o644)}


async def test_a_removed_file_lives_while_it_is_open(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        attr = await a.look(f"{ROOT}/f")
        opened = await a.venus.open(ME, attr.ino, os.O_RDWR)
        await a.unlink(f"{ROOT}/f")
        assert await a.venus.read(opened.handle, 0, 100) == b"contents"
        assert await a.venus.write(opened.handle, 8, b"!") == 1
        assert await a.venus.read(opened.handle, 0, 100) == b"contents!"
        assert (await a.venus.getattr(ME, attr.ino)).links == 0
        await a.venus.flush(opened.handle)
        await a.venus.release(opened.handle)
        assert await a.ls(ROOT) == []
        await a.drained()
        assert a.cache.containers.used == 0


async def test_parallel_handles_see_each_other(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"0123456789")
        await a.drained()
        one = (await a.venus.open(ME, ino, os.O_RDWR)).handle
        two = (await a.venus.open(ME, ino, os.O_RDWR)).handle
        await a.venus.write(one, 0, b"AA")
        assert await a.venus.read(two, 0, 4) == b"AA23"
        await a.venus.write(two, 2, b"BB")
        assert await a.venus.read(one, 0, 4) == b"AABB"
        assert (await a.venus.getattr(ME, ino)).size == 10
        await a.venus.setattr(ME, ino, Changes(size=6), one)
        assert await a.venus.read(two, 0, 100) == b"AABB45"
        for handle in (one, two):
            await a.venus.flush(handle)
            await a.venus.release(handle)
        await a.drained()
        assert await a.read(f"{ROOT}/f") == b"AABB45"
        with refused(errno.EBADF):
            await a.venus.read(one, 0, 1)


async def test_a_handle_for_reading_cannot_write(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"x")
        opened = await a.venus.open(ME, ino, os.O_RDONLY)
        with refused(errno.EBADF):
            await a.venus.write(opened.handle, 0, b"y")
        await a.venus.release(opened.handle)
        writer = await a.venus.open(ME, ino, os.O_WRONLY)
        with refused(errno.EFBIG):
            await a.venus.write(writer.handle, 2**31 - 1, b"y")
        await a.venus.release(writer.handle)
        with refused(errno.EISDIR):
            await a.venus.open(ME, (await a.look(ROOT)).ino, os.O_RDONLY)
        await a.change(f"{ROOT}/f", mode=0o444)
        with refused(errno.EACCES):
            await a.venus.open(ME, ino, os.O_WRONLY)


async def test_utimes_before_close_survive_it(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """cp -p and tar set the times of a file that they still have open."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        root = (await a.look(ROOT)).ino
        opened, attr = await a.venus.create(ME, root, b"f", 0o644, os.O_WRONLY)
        await a.venus.write(opened.handle, 0, b"data")
        await a.venus.setattr(ME, attr.ino, Changes(mtime_ns=10**18), opened.handle)
        await a.venus.flush(opened.handle)
        await a.venus.release(opened.handle)
        await a.drained()
        assert (await b.look(f"{ROOT}/f")).mtime_ns == 10**18
        assert await b.read(f"{ROOT}/f") == b"data"


async def test_a_full_log_refuses_and_nothing_is_half_done(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    limits = Limits(bytes=1 << 20, objects=500, log_records=5, reserve=0)
    async with world(tmp_path) as w:
        a = await w.client(limits=limits)
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        a.offline()
        for number in range(5):
            await a.mkdir(f"{ROOT}/{number}")
        before = await a.ls(ROOT)
        reader = await a.venus.open(ME, (await a.look(f"{ROOT}/f")).ino, os.O_RDONLY)
        for size in (0, 4, 1000):
            with refused(errno.ENOSPC):
                await a.change(f"{ROOT}/f", size=size)
            assert (await a.look(f"{ROOT}/f")).size == 8
            assert await a.venus.read(reader.handle, 0, 100) == b"contents"
            assert await a.read(f"{ROOT}/f") == b"contents"
        await a.venus.release(reader.handle)
        with refused(errno.ENOSPC):
            await a.mkdir(f"{ROOT}/x")
        with refused(errno.ENOSPC):
            await a.write(f"{ROOT}/y", b"")
        with refused(errno.ENOSPC):
            await a.rename(f"{ROOT}/0", f"{ROOT}/z")
        with refused(errno.ENOSPC):
            await a.change(f"{ROOT}/0", mode=0o700)
        assert await a.ls(ROOT) == before
        assert (await a.look(f"{ROOT}/0")).mode & 0o777 == 0o755
        await a.restart()
        assert await a.ls(ROOT) == before
        await a.rmdir(f"{ROOT}/0")
        a.online()
        await a.drained()
        assert await a.ls(ROOT) == ["1", "2", "3", "4", "f"]
        assert await a.read(f"{ROOT}/f") == b"contents"


async def test_a_full_log_waits_for_servers_that_take_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    limits = Limits(bytes=1 << 20, objects=500, log_records=5, reserve=0)
    async with world(tmp_path) as w:
        a = await w.client(limits=limits)
        for number in range(40):
            await a.mkdir(f"{ROOT}/{number}")
        for number in range(10):
            await a.write(f"{ROOT}/f{number}", bytes(300_000))
        await a.drained()
        assert len(await a.ls(ROOT)) == 50


async def test_another_user_waits_for_his_turn(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    other = Caller(1001, 1001, 0)
    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        a.offline()
        await a.mkdir(f"{ROOT}/mine")
        root = (await a.look(ROOT)).ino
        with refused(errno.EBUSY):
            await a.venus.mkdir(other, root, b"his", 0o755)
        done = trio.Event()

        async def make() -> None:
            await a.venus.mkdir(other, root, b"his", 0o755)
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            await trio.sleep(0.1)
            a.online()
        assert done.is_set()
        await a.drained()
        assert await a.ls(ROOT) == ["his", "mine"]


async def test_a_full_directory(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        a.offline()
        for number in range(894):
            await a.symlink(f"{ROOT}/{number:03}{'x' * 252}", b"x")
        with refused(errno.EFBIG):
            await a.symlink(f"{ROOT}/999{'x' * 252}", b"x")
        assert a.pending == 894
        assert len(await a.ls(ROOT)) == 894


async def test_changes_by_another_door_are_told_to_the_kernel(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    door = Caller(1000, 1000, 1, kernel=False)
    async with world(tmp_path) as w:
        a = await w.client()
        root = (await a.look(ROOT)).ino
        ino = await a.write(f"{ROOT}/f", b"x")
        a.kernel.entries.clear()
        a.kernel.inodes.clear()
        await a.venus.mkdir(ME, root, b"own", 0o755)
        assert (root, b"own") not in a.kernel.entries
        await a.venus.mkdir(door, root, b"other", 0o755)
        assert (root, b"other") in a.kernel.entries
        await a.write(f"{ROOT}/f", b"new", door)
        assert (ino, False) in a.kernel.inodes


async def test_free_is_what_could_be_written(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Copies of what the servers have are no reason for a program to refuse to write."""
    async with world(tmp_path) as w:
        a = await w.client()
        before = await a.venus.statfs(ME)
        await a.write(f"{ROOT}/f", bytes(100_000))
        await a.drained()
        assert (await a.venus.statfs(ME)).bytes_free == before.bytes_free
        a.offline()
        await a.write(f"{ROOT}/g", bytes(100_000))
        assert 100_000 <= before.bytes_free - (await a.venus.statfs(ME)).bytes_free < 101_000
