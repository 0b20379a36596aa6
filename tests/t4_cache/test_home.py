"""The directory: one daemon, private, with room kept back; full disks, damage, older and newer versions."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from realmfs.cache import (
    Cache,
    CacheDamaged,
    CacheError,
    CacheFull,
    CacheInUse,
    CacheReadOnly,
    CacheTooNew,
    Limits,
)
from realmfs.cache.database import Database, connect
from realmfs.cache.home import Reserve
from realmfs.cache.schema import STEPS
from tests.t4_cache.conftest import Reopen
from tests.t4_cache.world import LIMITS, World

MEGA = 1 << 20


def test_one_daemon_per_directory(world: World) -> None:
    directory = world.cache.directory
    program = (
        "import sys; from pathlib import Path; from realmfs.cache import Cache, CacheInUse, Limits\n"
        "try: Cache(Path(sys.argv[1]), Limits(1, 1, 1, 0))\n"
        "except CacheInUse as error: print(error.pid, error)"
    )
    other = subprocess.run(
        [sys.executable, "-c", program, directory], capture_output=True, text=True, check=True
    )
    assert other.stdout.startswith(f"{os.getpid()} ")
    assert "realmfs unmount" in other.stdout
    with pytest.raises(CacheInUse):
        Cache(directory, LIMITS)
    world.cache.close()
    Cache(directory, LIMITS).close()


def test_the_directory_is_private_and_marked(world: World) -> None:
    directory = world.cache.directory
    assert directory.stat().st_mode & 0o777 == 0o700
    tag = (directory / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_who_we_are_stays(world: World, crash: Reopen) -> None:
    assert len(world.cache.uuid) == 16
    assert crash(world).cache.uuid == world.cache.uuid


# -- the disk reserve -------------------------------------------------------------------------------------


@pytest.mark.logs("its reserve is given up")
def test_the_reserve_takes_room_and_gives_it_up(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", MEGA)
    assert reserve.held
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= MEGA
    reserve.check()
    assert reserve.release()
    assert not reserve.release()
    assert not (tmp_path / "reserve").exists()
    with pytest.raises(CacheFull):
        reserve.check()
    assert reserve.restore()
    again = Reserve(tmp_path / "reserve", MEGA)
    assert again.held


@pytest.mark.logs("its reserve is given up|cannot look after the reserve")
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
def test_a_reserve_that_cannot_be_had_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    reserve = Reserve(tmp_path / "reserve", MEGA)
    assert reserve.release()

    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    reserve.watch()
    assert not reserve.held


@pytest.mark.logs("its reserve is given up")
def test_the_reserve_follows_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(tmp_path / "reserve", MEGA)
    free = MEGA // 4 - 1
    monkeypatch.setattr(Reserve, "disk_free", lambda self: free)
    reserve.watch()
    assert not reserve.held
    reserve.watch()
    assert not reserve.held
    assert f"{tmp_path} has 0 MiB free" in reserve.missing()
    free = 2 * MEGA
    reserve.watch()
    assert reserve.held


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.mark.logs("its reserve is given up")
def test_on_a_full_disk_data_fails_first_and_the_log_goes_on(little_disk: Path) -> None:
    with Cache(little_disk / "c", Limits(64 * MEGA, 10_000, 10_000, reserve=MEGA), boot_id="1") as cache:
        world = World.make(cache)
        with cache.containers.create() as filler, pytest.raises(OSError, match=r"No space|full"):
            fill(filler.write)
        before = cache.log.count
        with contextlib.suppress(CacheFull):  # the first one may be refused; then nothing of it is left
            world.created()
            before += 1
        assert cache.log.count == before
        for _ in range(100):
            world.created()
        assert cache.log.count == before + 100


def fill(write: object) -> None:
    assert callable(write)
    for index in range(100):
        write(index * 65536, bytes(65536))


@pytest.mark.logs("its reserve is given up")
def test_a_commit_that_meets_a_full_disk(little_disk: Path) -> None:
    """Nothing of the refused transaction is left, and the next ones use the reserve."""
    with Cache(little_disk / "c", Limits(64 * MEGA, 10_000, 10_000, reserve=MEGA), boot_id="1") as cache:
        world = World.make(cache)
        other = little_disk / "someone else's"
        with other.open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
        before = cache.log.count, cache.objects.count
        with contextlib.suppress(CacheFull):
            world.created()
            before = before[0] + 1, before[1] + 1
        assert (cache.log.count, cache.objects.count) == before
        for _ in range(20):
            world.created()
        assert cache.log.count == before[0] + 20
        assert not cache._reserve.held


def test_nothing_helps_on_a_full_disk_without_reserve(little_disk: Path) -> None:
    with Cache(little_disk / "c", Limits(64 * MEGA, 10_000, 100_000, reserve=0), boot_id="1") as cache:
        world = World.make(cache)
        count = 0
        with contextlib.suppress(CacheFull):
            while count < 10_000:
                world.created()
                count += 1
        assert 0 < count < 10_000
        assert (cache.log.count, cache.objects.count) == (count, count + 1)
        with cache.containers.create() as container, pytest.raises(OSError, match="No space"):
            fill(container.write)


# -- damage -----------------------------------------------------------------------------------------------


def damaged(world: World, crash: Reopen, start: int, count: int) -> World:
    """Overwrite pages of the database file, as a bad disk would."""

    def prepare(directory: Path) -> None:
        path = directory / "cache.db"
        connection = connect(path)  # moves the write-ahead log into the file
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * min(count, size - start))

    return crash(world, prepare=prepare)


@pytest.mark.logs("is damaged")
def test_a_damaged_table_makes_the_cache_read_only(world: World, crash: Reopen) -> None:
    for index in range(300):
        world.fetched(b"%d" % index)
    last = world.cache._database.value("SELECT page_count FROM pragma_page_count")
    after = damaged(
        world, crash, (last - 12) * 4096, 4 * 4096
    )  # the tables grew last, the schema lies before
    cache = after.cache
    assert cache.damage is not None
    assert cache.damage.readable
    assert str(cache.directory / "cache.db") in str(cache.damage)
    assert cache.realms.find("example.org") is not None
    with pytest.raises(CacheReadOnly):
        after.created()
    assert not cache.findings.clean


@pytest.mark.logs("is damaged")
@pytest.mark.parametrize(("start", "count"), [(0, 100), (0, 4096), (4096, 1 << 30)])
async def test_a_cache_that_cannot_be_read_is_empty_and_read_only(
    world: World, crash: Reopen, start: int, count: int
) -> None:
    world.created()
    after = damaged(world, crash, start, count)
    cache = after.cache
    assert cache.damage is not None
    assert not cache.damage.readable
    assert cache.realms.all() == []
    assert cache.objects.count == 0
    with pytest.raises(CacheReadOnly):
        World.make(cache)
    await cache.aclose()
    assert (cache.directory / "cache.db").read_bytes()[start : start + 10] == b"\xa5" * 10, "kept for rescue"


@pytest.mark.logs("is damaged")
async def test_damage_met_while_running(world: World) -> None:
    for index in range(500):
        world.fetched(b"%d" % index)
    await world.cache.aclose()
    path = world.cache.directory / "cache.db"
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xa5" * (path.stat().st_size - 40 * 4096))
    with Cache(world.cache.directory, LIMITS, boot_id="boot 1") as cache:
        if cache.damage is None:
            with pytest.raises(CacheDamaged):
                list(map(cache.objects.load, range(2, 502)))
        assert cache.damage is not None
        with pytest.raises(CacheReadOnly):
            cache.transaction().__enter__()


# -- versions ---------------------------------------------------------------------------------------------

OLD = "CREATE TABLE state (id INTEGER); CREATE TABLE realm (id INTEGER PRIMARY KEY, name TEXT);"
NEWER = (
    "ALTER TABLE realm ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';",
    "CREATE TABLE hoard (path TEXT); INSERT INTO hoard SELECT name FROM realm;",
)


def test_an_older_database_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "db"
    database = Database(path, steps=(OLD,))
    with database.transaction():
        database.write("INSERT INTO realm VALUES (1, 'example.org')")
    database.close()
    for steps in ((OLD, *NEWER), (OLD, *NEWER)):
        database = Database(path, steps=steps)
        assert database.rows("SELECT * FROM realm") == [(1, "example.org", "blue")]
        assert database.rows("SELECT * FROM hoard") == [("example.org",)]
        assert database.value("PRAGMA user_version") == 3
        database.close()


def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    Database(path, steps=(OLD,)).close()
    with pytest.raises(CacheError, match="already exists"):
        Database(path, steps=(OLD, NEWER[0], "CREATE TABLE realm (x)"))
    database = Database(path, steps=(OLD,))
    assert database.value("PRAGMA user_version") == 1
    assert len(database.rows("PRAGMA table_info(realm)")) == 2
    database.close()


async def test_a_newer_database_is_refused_and_left_alone(world: World) -> None:
    await world.cache.aclose()
    path = world.cache.directory / "cache.db"
    connection = connect(path)
    connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CacheTooNew, match="newer realmfs"):
        Cache(world.cache.directory, LIMITS)
    assert path.read_bytes() == before
    with contextlib.closing(connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    Cache(world.cache.directory, LIMITS).close()


@pytest.mark.logs("its reserve is given up for sending what waits")
def test_without_the_last_reserve_no_change_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(bytes=MEGA, objects=100, log_records=100, reserve=MEGA)
    cache = Cache(tmp_path / "cache", limits)
    last = tmp_path / "cache/reserve.last"
    assert last.stat().st_size == limits.last_reserve
    assert cache.last_resort()
    assert not last.exists()
    assert not cache.last_resort(), "there is nothing more to give up"
    append = partial(cache.log.append, 1, b"record", uid=1, identity="", time=0)
    with pytest.raises(CacheFull), cache.transaction():
        append()
    cache.durability.watch()
    assert last.stat().st_size == limits.last_reserve
    cache.close()
