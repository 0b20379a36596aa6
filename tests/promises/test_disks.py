"""Disks that are full, fail, or have forgotten (promise 1): nothing lost, or named; the rest works."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.cache import container
from realmfs.cache.log import State
from realmfs.vice.errors import CodaError
from tests.promises.site import ROOT, MortalClient, Site, site
from tests.promises.test_soak import FIRST
from tests.t5_venus.test_changes import tree
from tests.t5_venus.world import LIMITS, ME

Clock = trio.abc.Clock


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("only root can make a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@asynccontextmanager
async def client_on(directory: Path, at: Path) -> AsyncIterator[tuple[Site, MortalClient]]:
    """Run a site and one client whose cache is in `at`."""
    async with site(directory, seed=FIRST) as where:
        client = await where.client()
        await client.kill()
        client.directory = at
        client.limits = replace(LIMITS, reserve=128 << 10)
        await client.start()
        assert await tree(client, ROOT) == {}
        yield where, client


@pytest.mark.logs(".")
async def test_a_full_disk_refuses_and_loses_nothing(
    tmp_path: Path, small_disk: Path, autojump_clock: Clock
) -> None:
    """Writes until nothing goes in any more, a kill, a start on the full disk; with room all is sent."""
    print(f"REALMFS_SEED={FIRST}")
    rng = random.Random(FIRST)
    async with client_on(tmp_path, small_disk) as (where, client):
        client.offline()
        somebodys = small_disk / "somebody's"
        somebodys.write_bytes(bytes(500_000))
        kept: dict[str, Any] = {}
        refusals = 0
        for number in range(400):
            name, data = f"f{number}", rng.randbytes(rng.choice([10, 40_000, 120_000]))
            refusals += await _try_to_write(client, name, data, kept)
            if refusals > 25:
                break
        assert refusals > 25, "the disk is full"
        assert await tree(client, ROOT) == kept
        await client.restart()
        client.offline()
        assert await tree(client, ROOT) == kept
        somebodys.unlink()
        client.online()
        await client.drained(600)
        assert await tree(await where.client(), ROOT) == kept
        await trio.sleep(120)
        await client.write(f"{ROOT}/again", b"there is room again")


@pytest.mark.logs(".")
async def test_what_waits_is_sent_from_a_disk_with_no_byte_left(
    tmp_path: Path, small_disk: Path, autojump_clock: Clock
) -> None:
    """The reserve is used up by changes, and somebody else takes what little is free; nobody makes room."""
    async with client_on(tmp_path, small_disk) as (where, client):
        client.offline()
        kept: dict[str, Any] = {}
        refusals = number = 0
        while refusals < 25:
            number += 1
            refusals += await _try_to_write(client, f"f{number}", bytes(number % 2 * 20_000), kept)
        _fill(small_disk)
        with pytest.raises(CodaError):
            await client.mkdir(f"{ROOT}/one more")
        _fill(small_disk)
        client.online()
        await client.drained(600)
        assert await tree(await where.client(), ROOT) == kept


def _fill(disk: Path) -> None:
    """Take the last byte of a disk."""
    with (disk / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))


async def _try_to_write(client: MortalClient, name: str, data: bytes, kept: dict[str, Any]) -> bool:
    """Create, write, close; tell whether any of it was refused, and note what was not."""
    venus, above = client.venus, (await client.look(ROOT)).ino
    try:
        opened, _ = await venus.create(ME, above, name.encode(), 0o644, os.O_WRONLY)
    except CodaError as error:
        _require_full(error)
        return True
    kept[name] = (b"", 1, 0o644)
    written = b""
    try:
        for start in range(0, len(data), 1 << 16):
            await venus.write(opened.handle, start, data[start : start + (1 << 16)])
            written = data[: start + (1 << 16)]
    except CodaError as error:
        _require_full(error)
    try:
        await venus.flush(opened.handle)
        kept[name] = (written, 1, 0o644)
        await venus.release(opened.handle)
    except CodaError as error:
        _require_full(error)
        with contextlib.suppress(CodaError):
            await venus.release(opened.handle)  # which tries once more what the flush could not
        found = await client.read(f"{ROOT}/{name}")
        assert found in (b"", written), "as the last close left it, or as this one would have"
        kept[name] = (found, 1, 0o644)
    return len(written) < len(data)


def _require_full(error: CodaError) -> None:
    assert error.errno == errno.ENOSPC, error


class FailingOs:
    """The module `os`, in which reads of one file fail."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("pread", "preadv"):
            return real

        def read(descriptor: int, *arguments: Any) -> Any:
            if os.path.realpath(f"/proc/self/fd/{descriptor}") == str(self._path):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(descriptor, *arguments)

        return read


@pytest.mark.logs(".")
async def test_an_unreadable_container_is_an_error_of_one_file(tmp_path: Path, autojump_clock: Clock) -> None:
    """Reading gives EIO, the others go on; once it can be read again nothing was lost."""
    async with site(tmp_path) as where:
        client = await where.client()
        await tree(client, ROOT)
        client.offline()
        for name in ("good", "bad", "other"):
            await client.write(f"{ROOT}/{name}", name.encode() * 9000)
        attr = await client.look(f"{ROOT}/bad")
        row = client.cache.objects.load(attr.ino)
        assert row is not None
        assert row.container is not None
        place = client.cache.containers.path(row.container).resolve()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(container, "os", FailingOs(place))
            with pytest.raises(CodaError) as caught:
                await client.read(f"{ROOT}/bad")
            assert caught.value.errno == errno.EIO
            assert await client.read(f"{ROOT}/good") == b"good" * 9000
            await client.write(f"{ROOT}/new", b"goes on")
            client.online()
            await trio.sleep(120)
            waiting = {e.container for k in client.cache.log.volumes() for e in client.cache.log.entries(k)}
            assert row.container in waiting, "what cannot be read is neither sent nor forgotten"
        client.online()
        for key in client.cache.log.volumes():
            for entry in client.cache.log.entries(key):
                if entry.state is State.BLOCKED:
                    with client.cache.transaction():
                        client.cache.log.set_reason(entry, 0, blocked=False)
        client.venus.reintegrator.wake_all()
        await client.drained(600)
        other = await where.client()
        assert await other.read(f"{ROOT}/bad") == b"bad" * 9000
        assert await other.read(f"{ROOT}/new") == b"goes on"


@pytest.mark.logs(".")
@pytest.mark.parametrize("how", ["cut", "gone"])
async def test_a_damaged_container_of_a_change_is_named(
    tmp_path: Path, autojump_clock: Clock, how: str
) -> None:
    """After a kill the start finds it: the loss has a name, what was good before stands, the rest is sent."""
    async with site(tmp_path) as where:
        client = await where.client()
        await tree(client, ROOT)
        client.offline()
        for name in ("good", "bad"):
            await client.write(f"{ROOT}/{name}", name.encode() * 9000)
        row = client.cache.objects.load((await client.look(f"{ROOT}/bad")).ino)
        assert row is not None
        assert row.container is not None
        place = client.cache.containers.path(row.container)
        await client.kill()
        if how == "cut":
            os.truncate(place, 5)
        else:
            place.unlink()
        await client.start()
        assert [copy.name for copy in client.cache.findings.lost_stores] == [b"bad"]
        assert [copy.name for copy in client.cache.recovered.all()] == [b"bad"]
        assert await client.read(f"{ROOT}/bad") == b""
        client.online()
        await client.drained(600)
        other = await where.client()
        assert await other.read(f"{ROOT}/good") == b"good" * 9000
        assert await other.read(f"{ROOT}/bad") == b""


@pytest.mark.logs(".")
@pytest.mark.parametrize("share", [1, 5, 9])
async def test_a_cut_database_is_named_and_nothing_is_deleted(
    tmp_path: Path, autojump_clock: Clock, share: int
) -> None:
    """Changes are refused from then on, by an errno; every file stays for rescue."""
    async with site(tmp_path) as where:
        client = await where.client()
        await tree(client, ROOT)
        client.offline()
        for number in range(20):
            await client.write(f"{ROOT}/f{number}", b"%d" % number * 5000)
        client.cache._database.checkpoint()
        await client.kill()
        database = client.directory / "cache" / "cache.db"
        (database.with_name("cache.db-wal")).unlink(missing_ok=True)
        os.truncate(database, database.stat().st_size * share // 10)
        containers = sorted(path for path in (client.directory / "cache").rglob("*") if path.is_file())
        await client.start()
        assert client.cache.damage is not None
        assert "cache.db" in str(client.cache.damage)
        with pytest.raises((CodaError, FileNotFoundError)):
            await client.write(f"{ROOT}/new", b"x")
        left = set((client.directory / "cache").rglob("*"))
        assert left.issuperset(path for path in containers if "containers" in path.parts)
