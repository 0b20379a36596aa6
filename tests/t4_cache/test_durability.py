"""Contents first, then the mark that calls them safe, then the write-ahead log."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from realmfs.cache import disk, durability
from realmfs.cache.database import connect
from tests.t4_cache.world import World


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files in the order in which they were synced."""
    done: list[str] = []
    real = disk.sync_descriptor

    def note(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(disk, "sync_descriptor", note)
    return done


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do at once what a thread would: the autojump clock does not wait for threads."""

    async def at_once(call: Callable[..., object], *arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)


async def test_contents_then_mark_then_log(
    world: World, syncs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = world.created()
    await world.store(number, b"x" * 100_000)
    row = world.cache.objects.load(number)
    assert row is not None
    seen: list[tuple[str, bool]] = []
    real = disk.sync_descriptor

    def look(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        with connect(world.cache.directory / "cache.db") as connection:
            (safe,) = connection.execute("SELECT safe FROM log WHERE container IS NOT NULL").fetchone()
        connection.close()
        seen.append((name, bool(safe)))
        real(descriptor)

    monkeypatch.setattr(disk, "sync_descriptor", look)
    await world.cache.sync()
    assert seen == [(f"{row.container:x}", False), ("cache.db-wal", True)]
    entry = world.cache.log.entries(world.volume.key)[1]
    assert entry.safe
    assert entry.digest == hashlib.sha256(b"x" * 100_000).digest()
    await world.cache.sync()
    assert len(seen) == 3, "a safe store is not synced again"


async def test_many_fsyncs_share_rounds(world: World) -> None:
    await world.store(world.created(), b"data")
    before = world.cache.durability.rounds
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(world.cache.sync)
    assert world.cache.durability.rounds - before <= 2


async def test_a_store_during_a_round_waits_for_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.created(), world.created()
    await world.store(first, b"one")
    started, go_on = trio.Event(), trio.Event()
    real = trio.to_thread.run_sync

    async def slow(call: Callable[..., object], *arguments: object) -> object:
        started.set()
        await go_on.wait()
        return await real(call, *arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.cache.sync)
        await started.wait()
        await world.store(second, b"two")
        nursery.start_soon(world.cache.sync)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    stores = [entry.safe for entry in world.cache.log.entries(world.volume.key) if entry.container]
    assert stores == [True, True]


async def test_a_store_removed_during_a_round_is_not_marked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.store(world.created(), b"one")
    real = trio.to_thread.run_sync

    async def remove_meanwhile(call: Callable[..., object], *arguments: object) -> object:
        result = await real(call, *arguments)
        if world.cache.log.count:
            with world.cache.transaction():
                world.cache.log.remove(world.cache.log.entries(world.volume.key))
        return result

    monkeypatch.setattr(trio.to_thread, "run_sync", remove_meanwhile)
    await world.cache.sync()
    assert world.cache.log.count == 0


@pytest.mark.usefixtures("no_threads")
async def test_rounds_come_every_five_seconds_if_there_is_work(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    rounds = world.cache.durability
    async with trio.open_nursery() as nursery:
        await nursery.start(world.cache.run)
        await trio.sleep(6)
        before = rounds.rounds
        await trio.sleep(60)
        assert rounds.rounds == before, "nothing changed"
        world.created()
        await trio.sleep(durability.PERIOD + 0.1)
        assert rounds.rounds == before + 1
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("no_threads")
async def test_many_commits_do_not_wait(world: World, autojump_clock: trio.testing.MockClock) -> None:
    rounds = world.cache.durability
    async with trio.open_nursery() as nursery:
        await nursery.start(world.cache.run)
        await trio.sleep(6)
        before = rounds.rounds
        for _ in range(durability.HURRY + 100):
            with world.cache.transaction():
                world.cache.objects.update(world.root, hoard=5)
        await trio.sleep(0.1)
        assert rounds.rounds == before + 1
        nursery.cancel_scope.cancel()


async def test_fetched_data_is_left_to_the_kernel_for_a_while(world: World, syncs: list[str]) -> None:
    world.fetched(data=b"data")
    for _ in range(7):
        await world.cache.sync()
    assert syncs == ["cache.db-wal"] * 7
    await world.cache.sync()
    assert syncs[7:] == ["1", "cache.db-wal"]
    await world.cache.sync()
    assert syncs[9:] == ["cache.db-wal"]


async def test_the_write_ahead_log_is_moved_to_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "_LONG_LOG", 1 << 16)
    wal = world.cache.directory / "cache.db-wal"
    sizes = []
    for _ in range(10):
        for _ in range(50):
            world.created()
        await world.cache.sync()
        sizes.append(wal.stat().st_size)
    assert max(sizes[2:]) <= 2 * max(sizes[:2]), f"the log grows without end: {sizes}"


@pytest.mark.usefixtures("no_threads")
@pytest.mark.logs("cannot sync the cache")
async def test_a_disk_that_refuses_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    await world.store(world.created(), b"data")

    def refuse(descriptor: int) -> None:
        raise OSError(5, "I/O error")

    async with trio.open_nursery() as nursery:
        await nursery.start(world.cache.run)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "sync_descriptor", refuse)
            await trio.sleep(6)
            with pytest.raises(OSError, match="I/O error"):
                await world.cache.sync()
        assert not world.cache.log.entries(world.volume.key)[1].safe
        await trio.sleep(6)
        assert world.cache.log.entries(world.volume.key)[1].safe
        nursery.cancel_scope.cancel()
