"""Names, attributes and data, from servers and from the cache."""

import errno
import os
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from realmfs.cache.containers import Container
from realmfs.cache.limits import Limits
from realmfs.realms.lookup import Lookup, NoAnswerError
from realmfs.realms.types import Attributes
from realmfs.venus.events import Replaced
from realmfs.venus.face import ROOT_INODE, Caller
from realmfs.venus.making import MakeSymlink
from realmfs.vice.calls import Fetch, FetchPartial, GetAttr, ValidateAttrs
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid
from tests.t5_venus.world import ME, REALM, SERVER, Client, refused, until, world

ROOT = f"/{REALM}"
DATA = (FetchPartial.OPCODE, Fetch.OPCODE)


async def test_what_one_client_writes_another_reads(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/hello", b"Hello, world!\n")
        await a.symlink(f"{ROOT}/d/link", b"hello")
        await a.drained()
        assert await b.ls(ROOT) == ["d"]
        assert await b.ls("/") == [REALM]
        assert await b.ls(f"{ROOT}/d") == ["hello", "link"]
        assert await b.read(f"{ROOT}/d/hello") == b"Hello, world!\n"
        link = await b.look(f"{ROOT}/d/link")
        assert stat.S_ISLNK(link.mode)
        assert await b.venus.readlink(ME, link.ino) == b"hello"
        attr = await b.look(f"{ROOT}/d/hello")
        assert (attr.size, attr.links, stat.S_IFMT(attr.mode)) == (14, 1, stat.S_IFREG)
        assert (await b.look(f"{ROOT}/d")).links == 1


async def test_names_that_are_not_there(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        root = await a.look(ROOT)
        nothing = await a.venus.lookup(ME, root.ino, b"nothing")
        assert nothing.ino == 0
        assert nothing.entry_timeout > 0
        assert (await a.venus.lookup(ME, ROOT_INODE, b"nosuchrealm")).ino == 0
        assert (await a.venus.lookup(ME, ROOT_INODE, b"#x")).ino == 0
        with refused(errno.ENAMETOOLONG):
            await a.venus.lookup(ME, root.ino, b"n" * 256)
        file = await a.write(f"{ROOT}/file", b"")
        with refused(errno.ENOTDIR):
            await a.venus.lookup(ME, file, b"below")
        with refused(errno.ENOENT):
            await a.venus.getattr(ME, 123456)


async def test_machine_names_are_replaced(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client(system_type="vax_bsd", cpu_type="vax")
        await a.write(f"{ROOT}/prog.vax_bsd", b"1")
        assert await a.read(f"{ROOT}/prog.@sys") == b"1"
        with refused(errno.EINVAL):
            await a.venus.create(ME, (await a.look(ROOT)).ino, b"x@cpu", 0o644, os.O_WRONLY)


async def test_restart_revalidates_and_fetches_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        for number in range(120):
            await a.write(f"{ROOT}/d/{number}", b"%d" % number)
        await a.drained()
        for number in range(120):
            await b.read(f"{ROOT}/d/{number}")
        inodes = {e.name: e.ino for e in await b.entries(f"{ROOT}/d")}
        await b.restart()
        w.realm.counted()
        for number in range(120):
            assert await b.read(f"{ROOT}/d/{number}") == b"%d" % number
        counted = w.realm.counted()
        assert sum(counted[opcode] for opcode in DATA) <= 1, counted  # whether the server can FetchPartial
        assert counted[GetAttr.OPCODE] == 0, counted
        assert counted[ValidateAttrs.OPCODE] <= 5, counted
        assert {e.name: e.ino for e in await b.entries(f"{ROOT}/d")} == inodes


async def test_restart_revalidates_a_large_directory_in_batches_to_its_end(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client(validate_batch=10)
        await a.mkdir(f"{ROOT}/d")
        for number in range(100):
            await a.write(f"{ROOT}/d/{number}", b"")
        await a.drained()
        await a.restart()
        w.realm.counted()
        for number in [*range(50, 100), *range(50)]:
            await a.look(f"{ROOT}/d/{number}")
        counted = w.realm.counted()
        assert counted[GetAttr.OPCODE] == 0, counted
        assert counted[ValidateAttrs.OPCODE] <= 12, counted  # ten, and the directories above


async def test_held_promises_cost_no_calls(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"x")
        await a.drained()
        await a.read(f"{ROOT}/f")
        w.realm.counted()
        for _ in range(10):
            await a.read(f"{ROOT}/f")
            await a.ls(ROOT)
        assert not w.realm.counted()


async def test_a_change_elsewhere_is_seen_by_the_next_open(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"old"
        ino = (await b.look(f"{ROOT}/f")).ino
        b.kernel.inodes.clear()
        await a.write(f"{ROOT}/f", b"newer")
        await a.drained()
        assert (ino, True) in b.kernel.inodes
        assert any(name == b"f" for _, name in b.kernel.entries)
        assert await b.read(f"{ROOT}/f") == b"newer"
        assert (ino, False) in b.kernel.inodes, "the kernel keeps the pages of the old contents"
        await a.unlink(f"{ROOT}/f")
        await a.drained()
        assert await b.ls(ROOT) == []


async def test_a_file_changed_elsewhere_while_open_keeps_its_contents(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        attr = await b.look(f"{ROOT}/f")
        opened = await b.venus.open(ME, attr.ino, os.O_RDONLY)
        await a.write(f"{ROOT}/f", b"newer")
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"newer"
        assert (await b.look(f"{ROOT}/f")).ino != attr.ino
        assert await b.venus.read(opened.handle, 0, 100) == b"old"
        assert (await b.venus.getattr(ME, attr.ino)).size == 3
        await b.venus.release(opened.handle)
        assert await b.read(f"{ROOT}/f") == b"newer"


async def test_keep_cache_only_while_the_version_stays(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        keeps = []
        for change in (False, False, True, False):
            if change:
                await a.write(f"{ROOT}/f", b"new")
                await a.drained()
            opened = await b.venus.open(ME, (await b.look(f"{ROOT}/f")).ino, os.O_RDONLY)
            keeps.append(opened.keep_cache)
            await b.venus.release(opened.handle)
        assert keeps == [False, True, False, True]


async def test_one_fetch_however_many_wait(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        contents = os.urandom(200_000)
        await a.write(f"{ROOT}/f", contents)
        await a.drained()
        await b.look(f"{ROOT}/f")
        w.realm.counted()
        results: list[bytes] = []

        async def read() -> None:
            results.append(await b.read(f"{ROOT}/f"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read)
        assert results == [contents] * 20
        counted = w.realm.counted()
        assert sum(counted[opcode] for opcode in DATA) == 1, counted


async def test_readers_are_served_while_the_file_comes(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        contents = os.urandom(6 << 20)
        await a.write(f"{ROOT}/big", contents)
        await a.drained(600)
        opened = await b.venus.open(ME, (await b.look(f"{ROOT}/big")).ino, os.O_RDONLY)
        assert await b.venus.read(opened.handle, 0, 1000) == contents[:1000]
        node = b.venus.files.file(opened.handle).node
        assert node.content is not None
        assert not node.content.whole, "the first bytes were there only when all were"
        assert await b.venus.read(opened.handle, (6 << 20) - 10, 1000) == contents[-10:]
        await b.venus.release(opened.handle)
        assert await b.read(f"{ROOT}/big") == contents


async def test_an_interrupted_fetch_goes_on_where_it_stopped(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        contents = os.urandom(6 << 20)
        await a.write(f"{ROOT}/big", contents)
        await a.drained(600)
        opened = await b.venus.open(ME, (await b.look(f"{ROOT}/big")).ino, os.O_RDONLY)
        for at in range(0, 4 << 20, 1 << 19):  # in order: the fetch would turn to who jumps
            await b.venus.read(opened.handle, at, (1 << 19) + 15)
        b.offline()
        with refused(errno.ETIMEDOUT):
            await b.venus.read(opened.handle, (6 << 20) - 10, 10)
        node = b.venus.files.file(opened.handle).node
        assert node.content is not None
        assert node.content.present.total >= 4 << 20
        assert await b.venus.read(opened.handle, 0, 10) == contents[:10]
        b.online()
        await trio.sleep(20)
        before = node.content.present.total
        assert await b.venus.read(opened.handle, (6 << 20) - 10, 10) == contents[-10:]
        assert before >= 4 << 20
        await b.venus.release(opened.handle)
        assert await b.read(f"{ROOT}/big") == contents


async def test_of_a_first_piece_that_breaks_nothing_is_kept(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which version it was of would have been told at its end: what follows could be of another one."""
    async with world(tmp_path, latency=0.02) as w:
        a, b = await w.client(), await w.client()
        contents = os.urandom(200_000)
        await a.write(f"{ROOT}/big", contents)
        await a.drained(600)
        node = b.venus.core.nodes.by_number((await b.look(f"{ROOT}/big")).ino)
        write, came = Container.write, trio.Event()

        def noting(content: Container, offset: int, data: bytes | memoryview) -> None:
            write(content, offset, data)
            if content is node.content and content.present.total > 20_000 and not came.is_set():
                assert not content.has(0, 10)
                came.set()
                b.offline()

        monkeypatch.setattr(Container, "write", noting)
        with refused(errno.ETIMEDOUT):
            await b.venus.open(ME, node.ino, os.O_RDONLY)
        assert came.is_set()
        assert node.container is None
        b.online()
        await trio.sleep(20)
        assert await b.read(f"{ROOT}/big") == contents


async def test_names_of_a_large_directory_cost_few_calls(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        for number in range(1500):
            await a.symlink(f"{ROOT}/d/{number}", b"x")
        await a.drained(600)
        w.realm.counted()
        entries = await b.entries(f"{ROOT}/d")
        assert len(entries) == 1500
        assert len({entry.ino for entry in entries}) == 1500
        assert [entry.position for entry in entries] == list(range(1, 1501))
        assert w.realm.counted().total() < 20


async def test_status_comes_ahead_of_who_asks_in_order(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.05) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        for number in range(200):
            await a.symlink(f"{ROOT}/d/{number}", b"x")
        await a.drained(600)
        parent = (await b.look(f"{ROOT}/d")).ino
        entries = await b.entries(f"{ROOT}/d")
        start = trio.current_time()
        for entry in entries:
            assert (await b.venus.lookup(ME, parent, entry.name)).ino == entry.ino
        assert trio.current_time() - start < 200 * 0.1 / 5, "one round trip after the other"


async def test_small_files_come_ahead_of_who_reads_in_order(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.05) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        for number in range(120):
            await a.write(f"{ROOT}/d/{number:03}", b"%d" % number)
        await a.drained(600)
        await b.ls(f"{ROOT}/d")
        start = trio.current_time()
        for number in range(120):
            assert await b.read(f"{ROOT}/d/{number:03}") == b"%d" % number
        assert trio.current_time() - start < 120 * 0.2 / 4, "one round trip after the other"


@pytest.mark.parametrize("reads", [False, True], ids=["status", "contents"])
async def test_what_comes_ahead_from_a_near_server_comes_in_sweeps(
    tmp_path: Path, autojump_clock: trio.abc.Clock, reads: bool
) -> None:
    """One call for each object, one transaction for many, each promised: looking again costs nothing."""
    async with world(tmp_path, latency=0.0005) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        for number in range(150):
            await a.write(f"{ROOT}/d/{number:03}", b"%d" % number)
        await a.drained(600)
        await b.ls(ROOT)
        names = await b.ls(f"{ROOT}/d")
        await trio.sleep(1)
        w.realm.counted()
        commits = b.cache._database.commits
        for name in names:
            if reads:
                assert await b.read(f"{ROOT}/d/{name}") == b"%d" % int(name)
            else:
                await b.look(f"{ROOT}/d/{name}")
        counted = w.realm.counted()
        assert counted[FetchPartial.OPCODE if reads else GetAttr.OPCODE] >= 110, counted
        # Who reads after he has listed is taken for one who only looks, at first.
        assert counted[FetchPartial.OPCODE] + counted[GetAttr.OPCODE] <= (150 + 40 if reads else 150), counted
        assert b.cache._database.commits - commits <= 40
        for name in names:
            assert await b.read(f"{ROOT}/d/{name}") == b"%d" % int(name)
        assert w.realm.counted()[FetchPartial.OPCODE] == (0 if reads else 150)
        await b.restart()
        w.realm.counted()
        for name in names:
            assert await b.read(f"{ROOT}/d/{name}") == b"%d" % int(name)
        assert w.realm.counted()[FetchPartial.OPCODE] <= 1, "whether the server knows the call"


async def test_what_was_swept_up_is_replaced_by_what_is_newer(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """A client that reads while another writes sees each version whole, the empty one too."""
    async with world(tmp_path, latency=0.0005) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        names = [f"{ROOT}/d/{number:02}" for number in range(30)]
        for round_, version in enumerate((b"", b"first", b"", b"second, longer", b"x")):
            for name in names:
                await a.write(name, version)
            await a.drained()
            await trio.sleep(1)
            for name in names if round_ % 2 else names[:4]:  # after four the others come unasked
                assert await b.read(name) == version
                assert (await b.look(name)).size == len(version)


async def test_a_tree_comes_ahead_of_who_walks_it(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path, latency=0.0005) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/t")
        for number in range(20):
            await a.mkdir(f"{ROOT}/t/d{number:02}")
            for file in range(10):
                await a.symlink(f"{ROOT}/t/d{number:02}/f{file}", b"x")
        await a.drained(600)
        await b.ls(ROOT)
        w.realm.counted()
        commits = b.cache._database.commits
        for name in await b.ls(f"{ROOT}/t"):
            await b.look(f"{ROOT}/t/{name}")
        for number in range(20):
            for name in await b.ls(f"{ROOT}/t/d{number:02}"):
                await b.look(f"{ROOT}/t/d{number:02}/{name}")
        counted = w.realm.counted()
        assert counted[FetchPartial.OPCODE] + counted[GetAttr.OPCODE] <= 20 + 20 + 200 + 5, counted
        assert b.cache._database.commits - commits <= 100


async def test_directories_far_ahead_are_listed_with_attributes(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.0005) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/t")
        for number in range(16):
            await a.mkdir(f"{ROOT}/t/d{number:02}")
            for file in range(40):
                await a.symlink(f"{ROOT}/t/d{number:02}/f{file}", b"x")
        await a.drained(600)
        await b.ls(ROOT)
        names = await b.ls(f"{ROOT}/t")
        for name in names[:6]:
            await b.ls(f"{ROOT}/t/{name}")
        await trio.sleep(1)
        w.realm.counted()
        for name in names[6:]:
            for child in await b.ls(f"{ROOT}/t/{name}"):
                await b.look(f"{ROOT}/t/{name}/{child}")
        assert not w.realm.counted()[GetAttr.OPCODE], "the status of all is here"


async def test_programs_that_read_everything_fetch_nothing(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    name = await trio.Path(f"/proc/{os.getpid()}/comm").read_text()
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"x")
        await a.drained()
        b = await w.client(quiet_programs=frozenset({name.strip()}))
        indexer = Caller(1000, 1000, os.getpid())
        attr = await b.look(f"{ROOT}/f")
        with refused(errno.EAGAIN):
            await b.venus.open(indexer, attr.ino, os.O_RDONLY)
        assert await b.read(f"{ROOT}/f") == b"x"
        assert await b.read(f"{ROOT}/f", indexer) == b"x"


async def test_rights_decide(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    read_only = 1 | 8
    async with world(tmp_path, anyuser=read_only) as w:
        a = await w.client()
        root = await a.look(ROOT)
        assert await a.ls(ROOT) == []
        with refused(errno.EACCES):
            await a.mkdir(f"{ROOT}/d")
        with refused(errno.EACCES):
            await a.write(f"{ROOT}/f", b"")
        assert await a.venus.access(ME, root.ino, os.R_OK | os.X_OK)
        assert not await a.venus.access(ME, root.ino, os.W_OK)
        assert a.pending == 0


async def test_the_list_of_realms_is_read_only(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        with refused(errno.EROFS):
            await a.mkdir("/new.realm")
        with refused(errno.EROFS):
            await a.venus.rmdir(ME, ROOT_INODE, REALM.encode())
        assert await a.ls("/") == []
        await a.look(ROOT)
        assert await a.ls("/") == [REALM]


async def test_a_dead_realm_does_not_slow_the_others(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        await w.add_realm("dead.test", "10.0.0.66", up=False)
        a = await w.client()
        await a.write(f"{ROOT}/f", b"x")
        errors: list[int] = []

        async def dead() -> None:
            with refused(errno.ETIMEDOUT):
                await a.look("/dead.test/f")
            errors.append(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dead)
            await trio.sleep(0.1)
            start = trio.current_time()
            assert await a.read(f"{ROOT}/f") == b"x"
            await a.write(f"{ROOT}/g", b"y")
            await a.drained()
            assert trio.current_time() - start < 1.0
            start = trio.current_time()
        assert errors
        assert trio.current_time() - start <= 10.5


async def test_a_realm_that_nobody_can_tell_of_is_no_name(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without name servers a mistyped realm must not look like one whose servers are away."""
    async with world(tmp_path) as w:
        await w.add_realm("dead.test", "10.0.0.66", up=False)
        a = await w.client()

        async def silence(*_: object) -> None:
            raise NoAnswerError("no answer")

        with refused(errno.ETIMEDOUT):
            await a.look("/dead.test/f")
        monkeypatch.setattr(Lookup, "find", silence)
        assert (await a.venus.lookup(ME, ROOT_INODE, b"unknown.test")).ino == 0
        with refused(errno.ETIMEDOUT):
            await a.look("/dead.test/f")


async def test_nothing_cached_and_nobody_there(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"x")
        await a.write(f"{ROOT}/g", b"y")
        await a.drained()
        await b.read(f"{ROOT}/f")
        b.offline()
        with refused(errno.ETIMEDOUT):
            await b.read(f"{ROOT}/g")
        start = trio.current_time()
        with refused(errno.ETIMEDOUT):
            await b.read(f"{ROOT}/g")
        assert trio.current_time() - start < 0.5, "known to be away, and asked all the same"
        assert await b.read(f"{ROOT}/f") == b"x"
        assert await b.ls(ROOT) == ["f", "g"]


async def test_starts_without_network(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"x")
        await a.drained()
        await b.read(f"{ROOT}/d/f")
        await trio.sleep(1)  # readers are served while data arrives; then it is kept
        await b.kill()
        b.offline()
        await b.start()
        assert await b.ls("/") == [REALM]
        assert await b.read(f"{ROOT}/d/f") == b"x"
        await b.write(f"{ROOT}/d/g", b"made off line")
        b.online()
        await b.drained()
        assert await a.read(f"{ROOT}/d/g") == b"made off line"


async def test_old_contents_make_room(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    small = Limits(bytes=1 << 20, objects=500, log_records=1000, reserve=0)
    async with world(tmp_path) as w:
        a = await w.client()
        b = await w.client(limits=small)
        for number in range(10):
            await a.write(f"{ROOT}/{number}", bytes([number]) * 200_000)
        await a.write(f"{ROOT}/huge", bytes(2 << 20))
        await a.drained(600)
        for number in range(10):
            assert await b.read(f"{ROOT}/{number}") == bytes([number]) * 200_000
        assert b.cache.containers.used <= 1 << 20
        with refused(errno.ENOSPC):
            await b.read(f"{ROOT}/huge")
        assert await b.read(f"{ROOT}/3") == bytes([3]) * 200_000
        with refused(errno.ENOSPC):
            await b.write(f"{ROOT}/mine", bytes(2 << 20))


async def test_what_makes_room_is_told_though_nobody_remembers_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    small = Limits(bytes=1 << 20, objects=20, log_records=1000, reserve=0)
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client(limits=small)
        for above in ("old", "new"):
            await a.mkdir(f"{ROOT}/{above}")
            for number in range(14):
                await a.write(f"{ROOT}/{above}/{above}{number}", bytes([number]) * 80_000)
        await a.drained(600)
        for number in range(14):
            await b.read(f"{ROOT}/old/old{number}")
        old = (await b.look(f"{ROOT}/old")).ino
        await trio.sleep(1)  # readers are served while data arrives; then it is kept
        await b.restart()  # knows from its database alone what it has
        before = _here(b, old)
        assert not any(b.venus.core.nodes.in_memory(number) for number in b.cache.objects.children(old))
        with b.venus.events.watch() as watcher:
            for number in range(14):
                await b.read(f"{ROOT}/new/new{number}")
            told = [event for event in watcher.waiting() if isinstance(event, Replaced)]
        after = _here(b, old)
        assert before[0] - after[0] <= {event.object for event in told}, "names"
        assert before[1] - after[1] <= {event.object for event in told if "data" in event.what}, "contents"
        assert len(before[0] - after[0]) > 5
        assert {event.blocks for event in told} <= {0, 79}


def _here(client: Client, directory: int) -> tuple[set[str], set[str]]:
    """Return the names of files in a client's cache, and of those whose contents are there."""
    objects = client.cache.objects
    rows = [row for number in objects.children(directory) if (row := objects.load(number))]
    names = {row.name.decode(): row.container is not None for row in rows}
    return set(names), {name for name, here in names.items() if here}


async def test_mount_links_are_covered(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        await w.add_realm("other.test", "10.0.0.7")
        w.realm.store.create_volume("sub", anyuser=127)
        a = await w.client()
        root = await a.look(ROOT)
        for name, text in (
            (b"m", b"#sub."),
            (b"gone", b"#nowhere."),
            (b"foreign", b"#@other.test."),
            (b"fid", b"@7f000001.1.1@r.test."),
        ):
            above = a.venus.core.nodes.by_number(root.ino)
            await MakeSymlink(a.venus.tools, ME, above, name, text, mode=0o644).run()
        mounted = await a.look(f"{ROOT}/m")
        assert stat.S_ISDIR(mounted.mode)
        await a.write(f"{ROOT}/m/inside", b"x")
        assert await a.ls(f"{ROOT}/m") == ["inside"]
        assert (await a.venus.lookup(ME, mounted.ino, b"..")).ino == root.ino
        assert stat.S_ISLNK((await a.look(f"{ROOT}/gone")).mode)
        assert stat.S_ISLNK((await a.look(f"{ROOT}/fid")).mode)
        below = a.venus.core.nodes.by_number(mounted.ino)
        await MakeSymlink(a.venus.tools, ME, below, b"self", b"#sub.", mode=0o644).run()
        for loop in ("m/self", "foreign"):
            with refused(errno.ELOOP):
                await a.look(f"{ROOT}/{loop}")
        await a.write(f"{ROOT}/outside", b"y")
        with refused(errno.EXDEV):
            await a.rename(f"{ROOT}/outside", f"{ROOT}/m/outside")
        with refused(errno.EXDEV):
            await a.link(f"{ROOT}/outside", f"{ROOT}/m/outside")
        with refused(errno.EXDEV):
            await a.rename(f"{ROOT}/m", f"{ROOT}/n")
        with refused(errno.EACCES):
            await a.rmdir(f"{ROOT}/m")
        assert await a.venus.getxattr(ME, mounted.ino, b"user.coda.mount") == f"/{REALM}/m".encode()


async def test_a_conflict_of_the_servers_is_shown_with_their_versions(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"x")
        await a.drained()
        attr = await b.look(f"{ROOT}/f")
        node = b.venus.core.nodes.by_number(attr.ino)
        group = b.venus.core.group(node.volume)
        ask = group.get_attr

        async def disagree(fid: Fid, user: int, **options: float) -> Attributes:
            if fid == node.fid:
                raise CodaError(Code.EINCONS)
            return await ask(fid, user, **options)

        monkeypatch.setattr(group, "get_attr", disagree)
        await a.write(f"{ROOT}/f", b"y")
        await a.drained()
        shown = await b.look(f"{ROOT}/f")
        assert stat.S_IFMT(shown.mode) == stat.S_IFDIR
        assert shown.ino != attr.ino
        assert (await b.look(f"{ROOT}/f")).attr_timeout == 0
        assert await b.venus.getxattr(ME, shown.ino, b"user.coda.state") == b"conflict"
        assert await b.venus.getxattr(ME, shown.ino, b"user.coda.conflict") == b"server"
        assert await b.ls(f"{ROOT}/f") == [SERVER]
        assert await b.read(f"{ROOT}/f/{SERVER}") == b"y"
        with refused(errno.EISDIR):
            await b.venus.open(ME, shown.ino, os.O_RDONLY)
        with refused(errno.EUCLEAN):
            await b.unlink(f"{ROOT}/f")
        with refused(errno.EUCLEAN):
            await b.rename(f"{ROOT}/f", f"{ROOT}/g")
        text = await b.venus.readlink(ME, attr.ino)  # who still holds the object sees what it was
        assert text == b"@%08x.%08x.%08x@%s." % (*node.fid, REALM.encode())
        await b.restart()
        b.offline()
        assert stat.S_IFMT((await b.look(f"{ROOT}/f")).mode) == stat.S_IFDIR
        assert await b.ls(ROOT) == ["f"]
        b.online()
        await until(lambda: all(volume.reachable for volume in b.venus.core.volumes))
        monkeypatch.undo()
        assert await b.read(f"{ROOT}/f") == b"y"


async def test_extended_attributes(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"xyz")
        await a.drained()
        ino = (await b.look(f"{ROOT}/f")).ino

        async def get(name: str) -> str:
            return (await b.venus.getxattr(ME, ino, f"user.coda.{name}".encode())).decode()

        assert await get("realm") == REALM
        assert await get("volume") == "/"
        assert await get("state") == "absent"
        assert await get("cached") == "status"
        await b.read(f"{ROOT}/f")
        assert (await get("state"), await get("cached"), await get("pending")) == ("cached", "full", "0")
        assert SERVER in await get("servers")
        assert await get("rights") == "rlidwka"
        root = (await b.look(ROOT)).ino
        assert b"System:AnyUser rlidwka" in await b.venus.getxattr(ME, root, b"user.coda.acl")
        b.offline()
        await b.write(f"{ROOT}/f", b"changed")
        assert (await get("state"), await get("pending"), await get("dirty")) == ("dirty", "1", "yes")
        assert await b.venus.listxattr(ME, ino) == ()
        with refused(errno.EOPNOTSUPP):
            await b.venus.getxattr(ME, ino, b"user.other")


async def test_what_is_cached_is_served_while_servers_are_silent(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Nobody has noticed yet that the network is gone; each request must end in time, with the data."""
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.mkdir(f"{ROOT}/d/e")
        await a.write(f"{ROOT}/d/e/f", b"x")
        await a.drained()
        await a.read(f"{ROOT}/d/e/f")
        for volume in a.venus.core.volumes:
            volume.lost += 1
        a.offline()
        start = trio.current_time()
        assert await a.read(f"{ROOT}/d/e/f") == b"x"
        assert trio.current_time() - start < 20


async def test_a_link_brought_ahead_as_a_file(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Before its status comes nobody knows what it is; whoever reads the link meanwhile gets its text."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.symlink(f"{ROOT}/link", b"the text")
        await a.drained()
        top = b.venus.core.nodes.by_number((await b.look(ROOT)).ino)
        found = (await b.venus.fetcher.directory(top, ME.uid)).lookup(b"link")
        assert found is not None
        node = b.venus.core.nodes.get(top.volume, Fid(top.volume.id, *found))
        assert node.status is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.venus.fetcher.ahead, node, ME.uid)
            await trio.testing.wait_all_tasks_blocked()
            assert await b.venus.fetcher.link(node, ME.uid) == b"the text"
        assert (node.content, node.container) == (None, None)
        w.realm.counted()
        assert await b.venus.readlink(ME, node.ino) == b"the text"
        assert not w.realm.counted()
