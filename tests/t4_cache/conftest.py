"""A cache to try things on, and ways to make it crash."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from realmfs.cache import Cache, Limits
from tests.t4_cache.world import LIMITS, World

Reopen = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One realm, one volume, its root directory."""
    with Cache(tmp_path / "cache", LIMITS, boot_id="boot 1") as cache:
        yield World.make(cache)


@pytest.fixture
def crash(tmp_path: Path) -> Iterator[Reopen]:
    """Return what copies the files of a running cache, as a kill would leave them, and opens the copy."""
    opened: list[Cache] = []

    def reopen(
        world: World, *, boot_id: str = "boot 1", limits: Limits = LIMITS, prepare: object = None
    ) -> World:
        target = tmp_path / f"after crash {len(opened) + 1}"
        shutil.copytree(world.cache.directory, target, ignore=shutil.ignore_patterns("lock", "*-shm"))
        if callable(prepare):
            prepare(target)
        cache = Cache(target, limits, boot_id=boot_id)
        opened.append(cache)
        return World(cache, world.realm, world.volume, world.root)

    yield reopen
    for cache in opened:
        cache.close()
