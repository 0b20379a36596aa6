"""Small contents in the database: no file, and all else as with one."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cache import Cache
from realmfs.cache.containers import INLINE, SPARE
from tests.t4_cache.conftest import Reopen
from tests.t4_cache.test_recovery import OTHER_BOOT
from tests.t4_cache.world import LIMITS, World


@given(st.lists(st.sampled_from([0, 1, 4096, INLINE - 1, INLINE, INLINE + 1, 3 * INLINE]), max_size=12))
def test_contents_that_came_whole_are_there_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("c") / "c"
    contents = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    with Cache(directory, LIMITS) as cache:
        world = World.make(cache)
        numbers = [world.swept(data) for data in contents]
        assert [world.data(number) for number in numbers] == contents
        assert cache.containers.used == sum(sizes)
    with Cache(directory, LIMITS) as cache:
        world.cache = cache
        assert [world.data(number) for number in numbers] == contents
        assert cache.containers.used == sum(sizes)
        assert len(list(cache.containers.files())) == sum(size > INLINE for size in sizes)


def test_a_crash_and_a_power_loss_leave_them(world: World, crash: Reopen) -> None:
    number = world.swept(b"small")
    for boot in (None, OTHER_BOOT):
        after = crash(world) if boot is None else crash(world, boot_id=boot)
        assert after.data(number) == b"small"
        assert after.cache.findings.dropped == 0


async def test_what_was_written_over_them_and_not_closed_is_undone_by_a_crash(
    world: World, crash: Reopen
) -> None:
    number = world.swept(b"the server's")
    container = await world.write(number, b"half writ")
    after = crash(world)
    container.close()
    assert after.data(number) == b"the server's"
    assert [copy.number for copy in after.cache.findings.copies] == [number]


async def test_a_copy_that_is_equal_to_them_is_no_loss(world: World, crash: Reopen) -> None:
    number = world.swept(b"the same")
    container = await world.write(number, b"the same")
    after = crash(world)
    container.close()
    assert after.cache.findings.copies == []
    assert list(after.cache.containers.files()) == []


async def test_who_writes_gets_a_file_with_what_was_there(world: World, crash: Reopen) -> None:
    number = world.swept(b"chapter 1")
    row = world.cache.objects.load(number)
    assert row is not None
    assert row.container is not None
    reader = world.cache.containers.open(row.container)
    container = await world.cache.contents.writable(number, reader.share())
    container.write(9, b", chapter 2")
    world.close(number, container)
    container.close()
    assert reader.read(0, 100) == b"chapter 1", "who opened a file goes on reading what he opened"
    reader.close()
    assert crash(world).data(number) == b"chapter 1, chapter 2"
    assert world.cache.containers.used == 20


@pytest.mark.parametrize("change", ["write", "truncate", "resize"])
def test_they_never_change(world: World, change: str) -> None:
    steps: dict[str, Callable[[], None]] = {
        "write": lambda: container.write(0, b"x"),
        "truncate": lambda: container.truncate(1),
        "resize": lambda: container.resize(1),
    }
    with world.cache.containers.hold(b"as they are") as container:
        with pytest.raises(RuntimeError):
            steps[change]()
        assert container.read(0, 100) == b"as they are"
    assert world.cache.containers.used == 0


def test_nothing_is_left_of_those_that_were_rolled_back(world: World) -> None:
    number = world.fetched()
    container = world.cache.containers.hold(b"too early")

    def attach_in_vain() -> None:
        with world.cache.transaction():
            world.cache.objects.attach(number, container)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attach_in_vain()
    assert world.data(number) is None
    with world.cache.transaction():
        world.cache.objects.attach(number, container)
    container.close()
    assert world.data(number) == b"too early"
    with world.cache.transaction():
        world.cache.objects.attach(number, None)
    assert world.cache.containers.used == 0


def test_many_are_opened_again_and_again(world: World) -> None:
    contents = {world.swept(str(count).encode()): str(count).encode() for count in range(2 * SPARE)}
    for _ in range(2):
        for number, data in contents.items():
            assert world.data(number) == data
    assert world.cache.containers.used == sum(map(len, contents.values()))


def test_they_go_when_the_cache_is_full_and_stay_when_the_disk_is(world: World) -> None:
    number, other = world.swept(b"s" * 1000), world.fetched(data=b"f" * 1000)
    assert world.cache.replacement.trim(disk=1000).data == [other]
    assert world.cache.replacement.make_room(size=LIMITS.bytes).data == [number]
    assert world.cache.containers.used == 0
