"""A change is made as a whole or not at all, in the tables and in memory."""

import contextlib
import os

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cache import Cache, CacheFull
from realmfs.vice.types import ObjectType
from tests.t4_cache.conftest import Reopen
from tests.t4_cache.world import LIMITS, World, status


class Stop(Exception):  # noqa: N818  # not an error
    """Raised inside transactions."""


def picture(cache: Cache) -> list[object]:
    """Return all that a transaction may change: every table, and what is counted in memory."""
    tables = ("realm", "volume", "inode", "container", "object", "page", "log", "log_object", "recovered")
    rows: list[object] = [cache._database.rows(f"SELECT * FROM {table}") for table in tables]
    log = cache.log
    return [
        *rows,
        cache.objects.count,
        cache.containers.used,
        log.count,
        dict(log._tally),
        cache.realms.all(),
    ]


async def change_everything(world: World, number: int) -> None:
    cache = world.cache
    cache.realms.set_root_volume(cache.realms.add("other.org").id, "root")
    cache.objects.drop(number)
    world.created()
    cache.directories.write(world.root, {0: bytes(2048)})
    world.fetched(b"another", b"data")
    entries = cache.log.entries(world.volume.key)
    cache.log.thaw(cache.log.freeze(entries))
    cache.log.rewrite(entries[0], b"longer" * 50)
    cache.log.remove(entries[1:])


async def change_and_stop(world: World, number: int) -> None:
    with world.cache.transaction():
        await change_everything(world, number)
        raise Stop


async def test_rollback_leaves_no_trace(world: World) -> None:
    number = world.fetched(b"file", b"contents")
    for name in (b"a", b"b", b"c"):
        world.created(name)
    before = picture(world.cache)
    with pytest.raises(Stop):
        await change_and_stop(world, number)
    assert picture(world.cache) == before
    assert world.data(number) == b"contents"


@pytest.mark.logs("cannot delete")
def test_what_fails_after_a_commit_neither_undoes_it_nor_keeps_the_rest_from_happening(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [world.fetched(name, b"contents") for name in (b"a", b"b")]
    files = [world.cache.containers.path(container) for container in world.cache.containers.files()]
    unlink, refusals = os.unlink, ["once"]

    def refuse(path: str) -> None:
        if refusals:
            raise OSError(refusals.pop())
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    with world.cache.transaction():
        for number in numbers:
            world.cache.objects.drop(number)
    assert [world.cache.objects.load(number) for number in numbers] == [None, None]
    assert sum(file.exists() for file in files) == 1
    assert world.cache.containers.used == 0


async def test_commit_survives_a_kill(world: World, crash: Reopen) -> None:
    number = world.fetched(b"file", b"contents")
    await world.store(world.created(b"a"), b"acknowledged")
    with world.cache.transaction():
        await change_everything(world, number)
    before = picture(world.cache)
    assert picture(crash(world).cache) == before


def test_a_kill_inside_a_transaction_undoes_it(world: World, crash: Reopen) -> None:
    world.created(b"a")
    before = picture(world.cache)
    with world.cache.transaction():
        world.created(b"b")
        after = crash(world)
    assert picture(after.cache) == before


def swallow_inner_failure(world: World) -> None:
    with world.cache.transaction():
        world.created()
        with contextlib.suppress(Stop), world.cache.transaction():
            raise Stop


def test_an_inner_failure_dooms_the_outer_transaction(world: World) -> None:
    before = picture(world.cache)
    with pytest.raises(RuntimeError, match="cannot commit"):
        swallow_inner_failure(world)
    assert picture(world.cache) == before
    world.created()
    assert world.cache.log.count == 1


def test_changes_outside_a_transaction_are_refused(world: World) -> None:
    with pytest.raises(RuntimeError, match="outside a transaction"):
        world.cache.objects.update(world.root, name=b"x")


async def test_no_other_task_gets_into_a_transaction(world: World) -> None:
    async def intrude() -> None:
        with pytest.raises(RuntimeError, match="checkpoint inside"), world.cache.transaction():
            raise AssertionError("was let in")

    with world.cache.transaction():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intrude)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["create", "fetch", "drop", "log"])), max_size=30))
def test_counts_are_those_of_the_tables(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, str]]
) -> None:
    with Cache(tmp_path_factory.mktemp("cache") / "c", LIMITS, boot_id="1") as cache:
        world = World.make(cache)
        numbers: list[int] = []
        for commit, step in steps:
            try:
                with cache.transaction():
                    one_step(world, step, numbers)
                    if not commit:
                        raise Stop
            except Stop:
                pass
        counted = cache.objects.count, cache.containers.used, cache.log.count, dict(cache.log._tally)
        for store in (cache.objects, cache.containers, cache.log):
            store.reload()
        assert counted == (
            cache.objects.count,
            cache.containers.used,
            cache.log.count,
            dict(cache.log._tally),
        )


def one_step(world: World, step: str, numbers: list[int]) -> None:
    match step:
        case "create":
            numbers.append(world.created())
        case "fetch":
            numbers.append(world.fetched(data=b"x" * len(numbers)))
        case "drop" if numbers:
            world.cache.objects.drop(numbers.pop())
        case "log":
            world.cache.log.remove(world.cache.log.entries(world.volume.key, limit=1))


def test_limits_are_errors_and_change_nothing(world: World) -> None:
    world.cache.log._bound = 1
    world.created()
    before = picture(world.cache)
    with pytest.raises(CacheFull):
        world.created()
    assert picture(world.cache) == before


def test_status_and_rights_come_back(world: World, crash: Reopen) -> None:
    number = world.fetched()
    kept = status(ObjectType.SYMLINK, 5)
    with world.cache.transaction():
        world.cache.objects.update(
            number, status=kept, rights={-1: 9, 1000: 127}, link=b"target", hoard=10, sha=b"s" * 20
        )
    row = crash(world).cache.objects.load(number)
    assert row is not None
    assert (row.status, row.rights, row.link, row.hoard, row.sha) == (
        kept,
        {-1: 9, 1000: 127},
        b"target",
        10,
        b"s" * 20,
    )


def test_a_transaction_that_only_reads_is_no_commit(world: World) -> None:
    database = world.cache._database
    number = world.fetched(b"file", b"contents")
    before = database.commits
    with world.cache.transaction():
        assert world.cache.objects.load(number) is not None
        with world.cache.transaction():
            assert world.cache.inodes.identity(number) is not None
    assert database.commits == before
    with pytest.raises(Stop), world.cache.transaction():
        raise Stop
    world.fetched(b"other", b"contents")
    assert database.commits > before
