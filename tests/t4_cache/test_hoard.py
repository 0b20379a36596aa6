"""The hoard database on the disk."""

from pathlib import Path

import pytest

from realmfs.cache import Cache, CacheFull, Limits
from realmfs.cache.hoard import Expand, HoardEntry
from tests.t4_cache.world import LIMITS, World


def entry(world: World, path: bytes, priority: int = 10, profile: str = "") -> HoardEntry:
    with world.cache.transaction():
        return world.cache.hoard.add(
            world.volume.key, path, 1000, priority, Expand.DESCENDANTS, 5000, profile=profile
        )


def test_entries_outlive_a_restart(tmp_path: Path) -> None:
    with Cache(tmp_path / "c", LIMITS) as cache:
        made = entry(World.make(cache), b"src/\xff", 700)
        assert cache.hoard.get(made.id) == made
    with Cache(tmp_path / "c", LIMITS) as cache:
        assert cache.hoard.all() == [made]
        assert (made.path, made.uid, made.priority, made.expand) == (
            b"src/\xff",
            1000,
            700,
            Expand.DESCENDANTS,
        )


def test_adding_a_place_again_replaces_its_entry_of_the_same_source(world: World) -> None:
    entry(world, b"a", 10)
    entry(world, b"a", 20, profile="work")
    again = entry(world, b"a", 500)
    assert [(one.priority, one.profile) for one in world.cache.hoard.all()] == [(500, ""), (20, "work")]
    with world.cache.transaction():
        world.cache.hoard.remove([again.id])
    assert [one.priority for one in world.cache.hoard.all()] == [20]


def test_priorities_are_from_1_to_1000(world: World) -> None:
    for wrong in (0, 1001, -1):
        with pytest.raises(ValueError, match="1 to 1000"):
            entry(world, b"a", wrong)
    assert world.cache.hoard.count == 0


def test_a_full_database_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    with Cache(tmp_path / "c", Limits(1 << 20, 100, 10, 0)) as cache:
        world = World.make(cache)
        for number in range(50):
            entry(world, b"%d" % number)
        with pytest.raises(CacheFull):
            entry(world, b"one more")
        entry(world, b"7", 999)  # replacing needs no more room
        assert cache.hoard.count == 50


def test_an_entry_follows_its_object(world: World) -> None:
    first, second = entry(world, b"old"), entry(world, b"new")
    with world.cache.transaction():
        world.cache.hoard.rebind(first.id, path=b"new", bound=77)
    (left,) = world.cache.hoard.all()
    assert (left.id, left.path, left.bound) == (first.id, b"new", 77), "the other meant the same place"
    assert second.id != first.id


def test_a_profile_goes_as_a_whole(world: World) -> None:
    hoard = world.cache.hoard
    entry(world, b"mine")
    with world.cache.transaction():
        hoard.enable("work", 1000)
    entry(world, b"a", profile="work")
    entry(world, b"b", profile="work")
    assert hoard.enabled() == {"work": (1000, b"")}
    with world.cache.transaction():
        hoard.disable("work")
    assert hoard.enabled() == {}
    assert [one.path for one in hoard.all()] == [b"mine"]
