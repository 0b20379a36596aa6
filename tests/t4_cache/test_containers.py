"""Contents: which bytes are there, who may write them, who waits for them, what they count."""

import contextlib
import errno
import os
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from realmfs.cache import Cache, CacheFull, Container, ContainerLost, Extents
from realmfs.cache.containers import SPARE
from tests.t4_cache.world import LIMITS, World

SIZE = 64
offsets = st.integers(0, SIZE)


class ExtentsAgainstBytes(RuleBasedStateMachine):
    """Ranges behave as a set of byte offsets does."""

    def __init__(self) -> None:
        super().__init__()
        self.extents = Extents()
        self.model: set[int] = set()

    @rule(start=offsets, stop=offsets)
    def add(self, start: int, stop: int) -> None:
        self.extents.add(start, stop)
        self.model |= set(range(start, stop))

    @rule(start=offsets, stop=offsets)
    def remove(self, start: int, stop: int) -> None:
        self.extents.remove(start, stop)
        self.model -= set(range(start, stop))

    @rule(start=offsets, stop=offsets)
    def ask(self, start: int, stop: int) -> None:
        wanted = set(range(start, stop))
        assert self.extents.covers(start, stop) == (wanted <= self.model)
        holes = list(self.extents.holes(start, stop))
        assert {byte for low, high in holes for byte in range(low, high)} == wanted - self.model
        assert all(low < high for low, high in holes)

    @invariant()
    def same_bytes(self) -> None:
        ranges = list(self.extents)
        assert {byte for low, high in ranges for byte in range(low, high)} == self.model
        assert self.extents.total == len(self.model)
        edges = [edge for pair in ranges for edge in pair]
        assert edges == sorted(set(edges)), "ranges that touch were not joined"
        assert Extents.unpack(self.extents.pack()) == self.extents


TestExtents = ExtentsAgainstBytes.TestCase


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "truncate", "discard"]), st.integers(0, 5000), st.integers(0, 5000)
        )
    )
)
def test_a_container_holds_what_a_bytearray_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    with Cache(tmp_path_factory.mktemp("c") / "c", LIMITS) as cache, cache.containers.create() as container:
        model, gone = bytearray(), Extents()
        for index, (step, start, count) in enumerate(steps):
            data = bytes([index % 255 + 1]) * count
            if step == "write" and data:
                model.extend(bytes(max(0, start - len(model))))
                model[start : start + count] = data
                container.write(start, data)
                gone.remove(start, start + count)
            elif step == "truncate":
                model = model[:start] + bytes(max(0, start - len(model)))
                container.truncate(start)
                gone.remove(start, 1 << 20)
            elif step == "discard" and start < start + count <= len(model):
                with cache.transaction():
                    cache.containers.discard(container, start, start + count)
                gone.add(start, start + count)
        cache.containers.bury(cache.containers.graves)
        assert container.length == len(model) == os.fstat(container.fd).st_size
        assert container.present.total == len(model) - gone.total == cache.containers.used
        for low, high in container.present:
            assert container.read(low, high - low) == model[low:high]


def test_partial_contents_come_back(world: World, crash: Callable[..., World]) -> None:
    number = world.fetched()
    with world.cache.transaction(), world.cache.containers.create(100_000) as container:
        container.sink(32768).write(b"x" * 32768)
        container.settle()
        world.cache.objects.attach(number, container)
    after = crash(world)
    row = after.cache.objects.load(number)
    assert row is not None
    assert row.container is not None
    assert after.cache.containers.used == 32768
    with after.cache.containers.open(row.container) as again:
        assert list(again.present) == [(32768, 65536)]
        assert not again.whole
        assert again.has(40000, 1000)
        assert not again.has(60000, 10000)
        assert again.length == 100_000


async def test_readers_follow_a_fetch(world: World, autojump_clock: trio.testing.MockClock) -> None:
    with world.cache.containers.create(10) as container:
        sink = container.sink()
        arrived: list[tuple[int, float]] = []

        async def read(offset: int) -> None:
            assert await container.wait(offset, 5)
            assert container.read(offset, 5) == b"hello"
            arrived.append((offset, trio.current_time()))

        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 0)
            nursery.start_soon(read, 5)
            for data in (b"hel", b"lo", b"hello"):
                await trio.sleep(1)
                sink.write(data)
        assert arrived == [(0, begin + 2), (5, begin + 3)]
        container.settle()
        assert await container.wait(0, 100), "past the end there is nothing to wait for"


async def test_a_reader_sleeps_until_its_whole_range_is_here(world: World) -> None:
    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.names: list[str] = []

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.names.append(task.name)

    steps = Steps()
    with world.cache.containers.create(100) as container:
        sink = container.sink()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(container.wait, 0, 60, name="reader")
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(steps)
            try:
                for _ in range(6):
                    assert "reader" not in steps.names
                    sink.write(b"ten bytes!")
                    await trio.testing.wait_all_tasks_blocked()
                assert "reader" in steps.names
            finally:
                trio.lowlevel.remove_instrument(steps)


async def test_readers_do_not_wait_for_a_fetch_that_ended(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    with world.cache.containers.create(10) as container:
        container.sink().write(b"hel")
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                assert not await container.wait(0, 5)

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            container.settle()


@pytest.mark.parametrize("good", [True, False])
async def test_readers_get_nothing_that_may_be_of_another_version(
    world: World, autojump_clock: trio.testing.MockClock, good: bool
) -> None:
    with world.cache.containers.create(10) as container:
        sink = container.sink()
        container.doubt(6)
        sink.write(b"doubtful.")
        assert container.has(6, 3)
        assert not container.has(5, 3)
        with trio.move_on_after(60) as waiting:
            await container.wait(0, 5)
        assert waiting.cancelled_caught
        if good:
            container.prove()
        container.settle()
        assert not container.unproven
        assert await container.wait(0, 5) == good
        assert container.has(6, 3)


async def test_a_logged_store_never_changes(world: World) -> None:
    number = world.created()
    container = await world.write(number, b"first")
    assert container.writing
    sequence = world.close(number, container)
    with pytest.raises(RuntimeError, match="may not change"):
        container.write(0, b"x")
    with pytest.raises(RuntimeError, match="may not change"):
        container.truncate(0)
    entry = world.cache.log.get(world.volume.key, sequence)
    assert entry is not None
    again = await world.cache.contents.writable(number, container)
    assert again.id != container.id
    assert await world.cache.contents.writable(number, again) is again
    again.write(0, b"second time")
    assert world.data(number) == b"second time"
    assert entry.container is not None
    with world.cache.containers.open(entry.container) as kept:
        assert kept.read(0, 100) == b"first"
    world.close(number, again)
    again.close()
    assert world.cache.containers.used == len(b"first") + len(b"second time")
    with world.cache.transaction():
        world.cache.log.remove([entry])
    assert world.cache.containers.used == len(b"second time")


@pytest.mark.parametrize("copy_limit", [0, 1 << 20], ids=["in place", "forked"])
async def test_a_clean_file_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch, copy_limit: int
) -> None:
    monkeypatch.setattr("realmfs.cache.contents.COPY_LIMIT", copy_limit)
    monkeypatch.setattr("realmfs.cache.disk.clone", lambda source, target: False)
    number = world.fetched(data=b"a" * 3000)
    row = world.cache.objects.load(number)
    assert row is not None
    assert row.container is not None
    rounds = world.cache.durability.rounds
    container = await world.cache.contents.writable(number, world.cache.containers.open(row.container))
    assert (container.id == row.container) == (copy_limit == 0)
    assert (world.cache.durability.rounds > rounds) == (copy_limit == 0), "in place only after a sync"
    container.write(2999, b"bc")
    assert world.data(number) == b"a" * 2999 + b"bc"
    previous = 0 if copy_limit == 0 else 3000
    assert world.cache.containers.used == previous + 3001
    with world.cache.transaction():
        world.log(11, number, contents=container)
    assert world.cache.containers.used == 3001
    container.close()


async def test_a_file_stays_clean_that_could_not_be_made_ready_to_be_written_in_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("realmfs.cache.contents.COPY_LIMIT", 0)
    monkeypatch.setattr("realmfs.cache.disk.clone", lambda source, target: False)
    monkeypatch.setattr(world.cache.contents, "_sync", refuse)
    number = world.fetched(data=b"fetched")
    row = world.cache.objects.load(number)
    assert row is not None
    assert row.container is not None
    with world.cache.containers.open(row.container) as container:
        with pytest.raises(OSError, match="Input/output"):
            await world.cache.contents.writable(number, container)
        assert not container.writing
    with world.cache.containers.open(row.container) as container:
        assert not container.writing


async def test_what_was_written_can_be_given_up(world: World) -> None:
    number = world.fetched(data=b"fetched")
    (await world.write(number, b"not what I wanted")).close()
    with world.cache.transaction():
        world.cache.objects.take_back(number)
    assert world.data(number) == b"fetched"
    assert world.cache.containers.used == 7
    (await world.write(number, b"one")).close()
    with world.cache.transaction(), world.cache.containers.create() as container:
        container.write(0, b"two")
        container.writing = True
        world.cache.objects.attach(number, container)
    assert world.cache.containers.used == 7 + 3, "what is kept is what was fetched, not what was begun before"
    with world.cache.transaction():
        world.cache.objects.drop(number)
    assert world.cache.containers.used == 0
    assert not list(world.cache.containers.files())


async def test_large_copies_are_made_in_a_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realmfs.cache.disk.clone", lambda source, target: False)
    monkeypatch.setattr("realmfs.cache.containers.COPY_INLINE", 10)
    data = os.urandom(100_000)
    with world.cache.containers.create() as source:
        source.write(0, data)
        with await world.cache.containers.fork(source) as twin:
            assert twin.whole
            assert twin.read(0, 200_000) == data


async def test_a_failed_fork_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: int, target: int) -> bool:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("realmfs.cache.disk.clone", fail)
    number = world.created()
    container = await world.write(number, b"data")
    world.close(number, container)
    files = set(world.cache.containers.files())
    with pytest.raises(OSError, match="no space"):
        await world.cache.contents.writable(number, container)
    assert set(world.cache.containers.files()) == files
    assert world.cache.containers.used == 4
    assert world.data(number) == b"data"
    container.close()


def open_data(world: World, number: int) -> Container:
    row = world.cache.objects.load(number)
    assert row is not None
    assert row.container is not None
    return world.cache.containers.open(row.container)


def test_an_open_file_can_be_read_after_it_was_dropped(world: World) -> None:
    number = world.fetched(data=b"still here")
    with open_data(world, number) as container:
        with world.cache.transaction():
            world.cache.objects.drop(number)
        assert world.cache.containers.used == 0
        assert container.read(0, 100) == b"still here"
    assert not list(world.cache.containers.files())


def test_a_lost_file_is_named(world: World) -> None:
    number = world.fetched(data=b"data")
    with open_data(world, number) as container:
        path = world.cache.containers.path(container.id)
    os.truncate(path, 3)
    with pytest.raises(ContainerLost, match="3 bytes instead of 4"):
        open_data(world, number)
    path.unlink()
    with pytest.raises(ContainerLost, match="missing"):
        open_data(world, number)


def test_a_full_disk_leaves_a_container_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.cache.containers.create() as container:
        container.write(0, b"good")
        real = os.pwrite
        calls: list[int] = []

        def full(descriptor: int, data: memoryview, offset: int) -> int:
            calls.append(offset)
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "no space")
            return real(descriptor, data[:2], offset)

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="no space"):
            container.write(4, b"more")
        assert (container.length, os.fstat(container.fd).st_size, container.present.total) == (4, 4, 4)


def test_data_meets_the_full_disk_first(world: World) -> None:
    with world.cache.containers.create() as container:
        world.cache._reserve.held = False
        with pytest.raises(CacheFull):
            container.write(0, b"data")
        with pytest.raises(CacheFull):
            container.truncate(10)
    world.created()  # the log has room


async def test_discarded_bytes_leave_the_disk_after_the_sync(world: World) -> None:
    size = 1 << 18
    number = world.fetched(data=b"x" * size)
    with open_data(world, number) as container:

        def blocks() -> int:
            return os.fstat(container.fd).st_blocks * 512

        before = blocks()
        with contextlib.suppress(KeyError), world.cache.transaction():
            world.cache.containers.discard(container, 0, size)
            raise KeyError
        assert container.whole
        with world.cache.transaction():
            world.cache.containers.discard(container, 0, size // 2)
        assert world.cache.containers.used == size // 2
        assert (blocks(), container.read(0, 1)) == (before, b"x"), "power loss may bring the row back"
        container.write(0, b"y" * 4096)  # fetched again meanwhile
        await world.cache.sync()
        assert blocks() < before
        assert container.read(0, 4097) == b"y" * 4096 + b"\0"
        assert container.read(size // 2, 1) == b"x"


def test_a_file_read_lately_stays_open_and_goes_with_its_row(world: World) -> None:
    cache = world.cache
    containers = cache.containers
    number = world.fetched(b"file", b"contents")
    row = cache.objects.load(number)
    assert row is not None
    assert row.container is not None
    used = containers.used
    with containers.open(row.container):
        pass
    path = containers.path(row.container)
    os.rename(path, path.with_name("elsewhere"))  # it is found without its path
    with containers.open(row.container) as again:
        assert again.read(0, 100) == b"contents"
        assert again.whole
        assert containers.used == used
    os.rename(path.with_name("elsewhere"), path)
    assert containers.used == used
    with cache.transaction():
        cache.objects.drop(number)
    assert containers.used == used - len(b"contents")
    with pytest.raises(ContainerLost):
        containers.open(row.container)
    assert not path.exists()


def test_few_files_stay_open(world: World) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for place in range(3 * SPARE):
        world.fetched(b"%d" % place, b"x")
    assert len(os.listdir("/proc/self/fd")) <= before + SPARE
    world.cache.containers.close()
    assert len(os.listdir("/proc/self/fd")) <= before
