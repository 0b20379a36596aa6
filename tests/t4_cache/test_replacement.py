"""What goes when the cache is full, and what never does."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cache import MARGINAL, MAXIMUM, STANDARD, Cache, CacheFull, Limits, ObjectRow
from realmfs.cache.limits import MARGIN
from realmfs.cache.replacement import BATCH
from realmfs.vice.types import Fid
from tests.t4_cache.world import LIMITS, World, status

KILO = 1024


def test_default_limits_are_the_customary_ones() -> None:
    assert Limits.for_size(20 << 20).objects == 971
    assert Limits.for_size(100 << 20).objects in (4508, 4509)
    assert Limits.for_size(0).objects == 85


def present(world: World, numbers: list[int]) -> list[int]:
    rows = [world.cache.objects.load(number) for number in numbers]
    return [row.number for row in rows if row is not None and row.container is not None]


def test_data_goes_by_recency(world: World) -> None:
    cache = world.cache
    numbers = [world.fetched(data=bytes(100 * KILO)) for _ in range(10)]
    for number in (*numbers, numbers[0]):
        cache.objects.touch(number)
    evicted = cache.replacement.make_room(size=250 * KILO)
    assert evicted.data == numbers[1:4]
    assert evicted.objects == []
    assert present(world, numbers) == [numbers[0], *numbers[4:]]
    assert cache.objects.load(numbers[1]) is not None, "status stays"
    assert cache.containers.used == 700 * KILO
    assert cache.replacement.make_room(size=250 * KILO).data == []


def test_hoarded_data_stays_longer(world: World) -> None:
    cache = world.cache
    numbers = [world.fetched(data=bytes(100 * KILO)) for _ in range(10)]
    with cache.transaction():
        cache.objects.update(numbers[0], hoard=600, hoard_uid=0)
        cache.objects.update(numbers[2], hoard=10, hoard_uid=0)
    for number in numbers[1:]:
        cache.objects.touch(number)
    assert cache.replacement.make_room(size=250 * KILO).data == [numbers[1], numbers[3], numbers[4]]


def test_nothing_of_higher_priority_goes(world: World) -> None:
    cache = world.cache
    numbers = [world.fetched(data=bytes(100 * KILO)) for _ in range(10)]
    with cache.transaction():
        for number in numbers:
            cache.objects.update(number, hoard=500, hoard_uid=0)
    own = cache.replacement.priority(500, 0)
    assert own == 37_500
    for priority in (0, MARGINAL, own):
        with pytest.raises(CacheFull):
            cache.replacement.make_room(size=250 * KILO, priority=priority)
    assert present(world, numbers) == numbers, "in vain, so nothing was replaced"
    assert cache.replacement.make_room(size=250 * KILO, priority=own + 1).data


def test_the_margin_is_for_requests_of_high_priority(world: World) -> None:
    cache = world.cache
    almost = LIMITS.bytes - LIMITS.bytes // MARGIN
    assert cache.replacement.fits(size=almost, priority=MARGINAL - 1)
    assert not cache.replacement.fits(size=almost + 1, priority=MARGINAL - 1)
    assert cache.replacement.fits(size=LIMITS.bytes, priority=STANDARD)
    assert not cache.replacement.fits(size=LIMITS.bytes + 1, priority=MAXIMUM)
    number = world.fetched(data=bytes(LIMITS.bytes))
    assert cache.replacement.trim().data == [number]
    assert cache.replacement.trim(busy={number}).data == []


async def test_what_is_never_replaced(world: World) -> None:
    cache = world.cache
    dirty = world.created()
    await world.store(dirty, bytes(400 * KILO))
    opened = world.fetched(data=bytes(200 * KILO))
    writing = world.fetched(data=bytes(1))
    container = await world.write(writing, bytes(200 * KILO))
    free = world.fetched(data=bytes(200 * KILO))
    with pytest.raises(CacheFull):
        cache.replacement.make_room(size=500 * KILO, priority=MAXIMUM, busy={opened})
    assert cache.replacement.make_room(size=200 * KILO, priority=MAXIMUM, busy={opened}).data == [free]
    container.close()


def test_trees_shrink_from_the_leaves(world: World) -> None:
    cache = world.cache
    cache.replacement._limits = Limits(1 << 20, 5, 10, 0)
    directory = world.fetched(b"directory")
    children = [world.fetched(b"child", parent=directory) for _ in range(3)]
    link = world.fetched(b"mount")
    with cache.transaction():
        cache.objects.update(link, mount=world.root)
        cache.objects.update(world.root, parent=link)
    evicted = cache.replacement.make_room(objects=2)
    assert evicted.objects == children
    assert cache.objects.load(directory) is not None
    assert cache.objects.load(link) is not None
    cache.replacement.make_room(objects=3, busy={world.root})
    assert cache.objects.load(directory) is None


def test_the_limit_of_objects_holds(world: World) -> None:
    world.cache.objects._bound = world.cache.objects.count + 1
    world.fetched()
    with pytest.raises(CacheFull, match="its limit"):
        world.fetched()


def test_reserved_bytes_count(world: World) -> None:
    with world.cache.containers.create(1000, reserve=1000) as container:
        assert world.cache.containers.used == 1000
        sink = container.sink()
        sink.write(bytes(400))
        assert world.cache.containers.used == 1000
        container.settle()
        assert world.cache.containers.used == 400
    assert world.cache.containers.used == 0


def test_recency_survives_and_can_be_forgotten(world: World) -> None:
    cache = world.cache
    number = world.fetched()
    for _ in range(3):
        cache.objects.touch(number)
    cache.replacement.trim()
    tick = cache.objects.tick
    cache.objects.reload()
    row = cache.objects.load(number)
    assert row is not None
    assert (cache.objects.tick, row.tick) == (tick, tick)
    assert cache.replacement.priority(0, row.tick) == 25_000
    cache.objects.tick += 4 * LIMITS.objects
    assert cache.replacement.priority(0, row.tick) == 25
    assert cache.replacement.priority(1000, 0) == 75_000
    with cache.transaction():
        cache.objects.forget_recency()
    row = cache.objects.load(number)
    assert row is not None
    assert cache.replacement.priority(0, row.tick) == 0


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 10, 500]), st.integers(0, 30)), min_size=1, max_size=25),
    st.integers(1, 30),
)
def test_victims_are_the_lowest_priorities(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, int]], wanted: int
) -> None:
    """Against sorting all by priority."""
    with Cache(tmp_path_factory.mktemp("c") / "c", Limits(len(files), 200, 10, 0)) as cache:
        world = World.make(cache)
        ticked = []
        for hoard, tick in files:
            number = world.fetched(data=b"x")
            with cache.transaction():
                cache._database.write(
                    "UPDATE object SET hoard = ?, tick = ? WHERE number = ?", (hoard, tick, number)
                )
            ticked.append((hoard, tick, number))
        cache.objects.tick = 31
        by_priority = sorted(cache.replacement.priority(hoard, tick) for hoard, tick, _ in ticked)
        priority_of = {number: cache.replacement.priority(hoard, tick) for hoard, tick, number in ticked}
        if wanted > len(files):
            with pytest.raises(CacheFull):
                cache.replacement.make_room(size=wanted, priority=MAXIMUM)
            return
        evicted = cache.replacement.make_room(size=wanted, priority=MAXIMUM)
        assert [priority_of[number] for number in evicted.data] == by_priority[:wanted]


def test_the_search_does_not_look_at_everything(world: World) -> None:
    """SQLite's own count of steps: with 20 times the objects it is the same."""
    cache = world.cache

    def steps() -> int:
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        cache._database._connection.set_progress_handler(count, 1)
        next(cache.replacement.candidates())
        cache._database._connection.set_progress_handler(None, 1)
        return counted

    for _ in range(10):
        world.fetched(data=b"x")
    few = steps()
    for _ in range(200):
        world.fetched(data=b"x")
    assert steps() <= few + 10


def test_statistics_of_a_volume(world: World) -> None:
    numbers = {world.root, world.fetched(), world.fetched()}
    with world.cache.transaction():
        other = world.cache.inodes.new(world.realm, Fid(5, 2, 2))
        world.cache.objects.add(ObjectRow(other, world.realm, Fid(5, 2, 2), status=status()))
    pages = list(world.cache.objects.of_volume(world.volume.key, 2))
    assert [len(page) for page in pages] == [2, 1]
    assert {number for page in pages for number in page} == numbers
    assert world.cache.objects.count_in(world.volume.key) == 3
    assert set(world.cache.objects.children(world.root)) == numbers - {world.root}


def test_much_goes_in_batches(tmp_path: Path) -> None:
    """No transaction takes more than BATCH victims, and asking again gets the rest."""
    with Cache(tmp_path / "c", Limits(2000, 3000, 10, 0)) as cache:
        world = World.make(cache)
        numbers = [world.fetched(data=b"x") for _ in range(2 * BATCH + 10)]
        cache.change_limits(Limits(0, 3000, 10, 0))
        batches = []
        while True:
            evicted = cache.replacement.trim()
            batches.append(len(evicted.data))
            if not evicted.more:
                break
        assert batches == [BATCH, BATCH, 10]
        assert present(world, numbers) == []
        assert cache.objects.count == len(numbers) + 1


def test_lowered_limits_hold_for_objects_too(tmp_path: Path) -> None:
    with Cache(tmp_path / "c", LIMITS) as cache:
        world = World.make(cache)
        for _ in range(300):
            world.fetched()
        cache.change_limits(Limits(1 << 20, 100, 10, 0))
        with pytest.raises(CacheFull):
            world.fetched()
        while cache.replacement.trim().more:
            pass
        assert cache.objects.count <= 100 - 100 // MARGIN
        world.fetched()


def test_candidates_come_in_order_while_others_go(world: World) -> None:
    """The forecast reads page by page, so what happens between two pages does not disturb it."""
    cache = world.cache
    numbers = [world.fetched(data=b"x") for _ in range(200)]
    for number in numbers:
        cache.objects.touch(number)
    with cache.transaction():
        cache.objects.flush_ticks()
    seen = []
    for victim in cache.replacement.candidates():
        seen.append(victim.number)
        with cache.transaction():
            cache.objects.drop(victim.number)
    assert seen == numbers


def test_a_full_disk_takes_what_would_make_room_for_an_open_file(world: World) -> None:
    """Not only the limits count: what the disk lacks goes too, but nothing that is hoarded."""
    numbers = [world.fetched(b"%d" % n, b"x" * 1000) for n in range(10)]
    with world.cache.transaction():
        world.cache.objects.update(numbers[0], hoard=1000)
    evicted = world.cache.replacement.trim(disk=2500)
    assert len(evicted.data) == 3
    assert numbers[0] not in world.cache.replacement.trim(disk=1 << 20).data
    assert not world.cache.replacement.trim().data
