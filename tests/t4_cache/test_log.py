"""The modify log keeps order, store ids, counts and dirty marks; inode numbers keep their meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cache import Cache, Flags, LogEntry, ObjectRow, Role, State, is_local
from realmfs.vice.types import Fid, FidRange, ObjectType, StoreId
from tests.t4_cache.conftest import Reopen
from tests.t4_cache.world import LIMITS, World, status


def entries(world: World) -> list[LogEntry]:
    return world.cache.log.entries(world.volume.key)


def dirty(world: World, number: int) -> bool:
    row = world.cache.objects.load(number)
    return row is not None and bool(row.flags & Flags.DIRTY)


@given(st.lists(st.tuples(st.sampled_from("apr"), st.integers(1, 3), st.integers(0, 20)), max_size=40))
def test_order_is_that_of_appending(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Against a list per volume: append, prepend, remove, over a kill."""
    with Cache(tmp_path_factory.mktemp("c") / "c", LIMITS) as cache:
        model: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
        for index, (step, volume, place) in enumerate(steps):
            record = index.to_bytes(4, "big")
            with cache.transaction():
                if step == "r":
                    there = cache.log.entries(volume)
                    if there:
                        cache.log.remove([there[place % len(there)]])
                        del model[volume][place % len(there)]
                    continue
                cache.log.append(volume, record, uid=1, identity="", time=index + 1, prepend=step == "p")
                model[volume].insert(0 if step == "p" else len(model[volume]), record)
        for volume, records in model.items():
            assert [entry.record for entry in cache.log.entries(volume)] == records
            for page in (1, 3, 100):
                assert [entry.record for entry in cache.log.walk(volume, page)] == records
            summary = cache.log.summary(volume)
            assert (summary.records, summary.bytes) == (len(records), 4 * len(records))
            assert summary.oldest == (int.from_bytes(records[0], "big") + 1 if records else 0)
        assert set(cache.log.volumes()) == {volume for volume, records in model.items() if records}
        assert cache.log.count == sum(map(len, model.values()))


def test_records_of_an_object_newest_first(world: World) -> None:
    number = world.created()
    with world.cache.transaction():
        world.log(14, number)
        world.log(16, world.root, parents=[world.root])
    found = [(entry.opcode, role) for entry, role in world.cache.log.about(number)]
    assert found == [(14, Role.OBJECT), (1, Role.OBJECT)]
    of_root = [(entry.opcode, role) for entry, role in world.cache.log.about(world.root)]
    assert of_root == [(16, Role.OBJECT | Role.PARENT), (1, Role.PARENT)]
    assert dict(entries(world)[0].about) == {number: Role.OBJECT, world.root: Role.PARENT}
    assert world.cache.log.owner(world.volume.key) == (1000, "alice@example.org")


def test_objects_are_dirty_while_records_are_about_them(world: World) -> None:
    number = world.created()
    with world.cache.transaction():
        world.log(14, number)
    assert dirty(world, number)
    assert dirty(world, world.root)
    first, second = entries(world)
    with world.cache.transaction():
        assert world.cache.log.remove([first]) == [world.root]
    assert dirty(world, number)
    with world.cache.transaction():
        assert world.cache.log.remove([second]) == [number]
        assert world.cache.log.remove([second]) == []
    assert not dirty(world, number)
    assert world.cache.log.owner(world.volume.key) is None


def test_store_ids_are_drawn_when_frozen_and_kept(world: World, crash: Reopen) -> None:
    for _ in range(3):
        world.created()
    log = world.cache.log
    with world.cache.transaction():
        frozen = log.freeze(entries(world)[:2])
    host = log.host
    assert [entry.store_id for entry in frozen] == [StoreId(host, 1), StoreId(host, 2)]
    assert all(entry.frozen for entry in frozen)
    assert [entry.store_id for entry in entries(world)] == [StoreId(host, 1), StoreId(host, 2), None]
    after = crash(world)
    with after.cache.transaction():
        again = after.cache.log.freeze(entries(after))
    assert after.cache.log.host != host
    assert [entry.store_id for entry in again] == [
        StoreId(host, 1),
        StoreId(host, 2),
        StoreId(after.cache.log.host, 1),
    ]


def test_a_thawed_record_gets_another_id(world: World) -> None:
    world.created()
    log = world.cache.log
    with world.cache.transaction():
        log.thaw(log.freeze(entries(world)), reason=13, blocked=True)
    (entry,) = entries(world)
    assert (entry.store_id, entry.state, entry.reason) == (None, State.BLOCKED, 13)
    with world.cache.transaction():
        log.set_reason(entry, 0, blocked=False)
        (frozen,) = log.freeze(entries(world))
    assert frozen.store_id == StoreId(log.host, 2)
    assert frozen.state == State.FROZEN


def test_ids_start_again_under_a_new_host_at_the_end(world: World) -> None:
    log = world.cache.log
    world.created()
    world.created()
    log._uniquifier = 0x7FFFFFFE
    host = log.host
    with world.cache.transaction():
        first, second = log.freeze(entries(world))
    assert first.store_id == StoreId(host, 0x7FFFFFFF)
    assert second.store_id == StoreId(log.host, 1)
    assert log.host != host


def test_a_frozen_record_is_cancelled_when_it_thaws(world: World) -> None:
    number = world.created()
    log = world.cache.log
    with world.cache.transaction():
        (frozen,) = log.freeze(entries(world))
        assert log.cancel(frozen) == []
    (still,) = entries(world)
    assert still.state == State.FROZEN | State.CANCELLED
    with world.cache.transaction():
        assert sorted(log.thaw([still])) == sorted([number, world.root])
    assert entries(world) == []
    with world.cache.transaction():
        world.log(14, number)
        assert log.cancel(entries(world)[0]) == [number]


async def test_notes_on_a_store(world: World) -> None:
    number = world.created()
    await world.store(number, b"contents")
    log = world.cache.log
    store = entries(world)[1]
    assert store.size == len(store.record) + 8
    with world.cache.transaction():
        log.set_handle(store, b"where it is")
        log.rewrite(store, b"\0\0\0\x0b other fid")
    store = entries(world)[1]
    assert (store.handle, store.record, store.opcode) == (b"where it is", b"\0\0\0\x0b other fid", 11)
    assert log.summary(world.volume.key).bytes == sum(entry.size for entry in entries(world))


# -- inode numbers and fids ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.booleans()), max_size=30))
def test_a_number_is_never_given_to_another_fid(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    directory = tmp_path_factory.mktemp("c") / "c"
    cache = Cache(directory, LIMITS)
    given_out: dict[int, tuple[int, Fid]] = {}
    try:
        for realm, unique, restart in steps:
            if restart:
                cache.close()
                cache = Cache(directory, LIMITS)
            fid = Fid(7, 2, unique)
            with cache.transaction():
                number = cache.inodes.number(realm, fid)
            assert given_out.setdefault(number, (realm, fid)) == (realm, fid)
            assert cache.inodes.identity(number) == (realm, fid)
            assert cache.inodes.find(realm, fid) == number
        assert len(set(given_out.values())) == len(given_out), "a fid had two numbers"
    finally:
        cache.close()


def test_translation_keeps_the_number(world: World, crash: Reopen) -> None:
    number = world.created()
    row = world.cache.objects.load(number)
    assert row is not None
    assert is_local(row.fid)
    real = Fid(world.volume.id, 20, 99)
    with world.cache.transaction():
        world.cache.inodes.translate(number, real)
    after = crash(world).cache
    assert after.inodes.find(world.realm, real) == number
    assert after.inodes.find(world.realm, row.fid) is None
    found = after.objects.find(world.realm, real)
    assert found is not None
    assert (found.number, found.fid) == (number, real)


def test_an_incarnation_takes_a_new_number(world: World, crash: Reopen) -> None:
    number = world.fetched(data=b"old")
    fid = world.cache.inodes.identity(number)
    assert fid is not None
    with world.cache.transaction():
        new = world.cache.inodes.retire(number)
        world.cache.objects.renumber(number, new)
    assert world.cache.inodes.find(*fid) == new
    assert world.cache.inodes.identity(number) == fid
    assert world.cache.inodes.is_past(number)
    assert not world.cache.inodes.is_past(new)
    assert world.cache.objects.load(number) is None
    row = world.cache.objects.find(*fid)
    assert row is not None
    assert (row.number, row.container) == (new, None)
    after = crash(world).cache
    assert after.inodes.identity(number) is None, "past numbers go at the next start"
    assert after.inodes.find(*fid) == new


def test_a_directory_takes_its_pages_and_children_along(world: World) -> None:
    fid = Fid(world.volume.id, 3, 3)
    child = world.fetched()
    cache = world.cache
    with cache.transaction():
        number = cache.inodes.new(world.realm, fid)
        cache.objects.add(ObjectRow(number, world.realm, fid, status=status(ObjectType.DIRECTORY)))
        cache.directories.replace(number, b"a" * 2048 + b"b" * 2048)
        cache.objects.update(child, parent=number)
        new = cache.inodes.retire(number)
        cache.objects.renumber(number, new)
        cache.directories.write(new, {1: b"c" * 2048})
    assert cache.directories.load(number) is None
    assert cache.directories.load(new) == b"a" * 2048 + b"c" * 2048
    assert cache.objects.children(new) == [child]
    with cache.transaction():
        cache.objects.drop(new)
    assert not cache.directories.has(new)


def test_old_numbers_are_forgotten_beyond_the_bound(world: World, crash: Reopen) -> None:
    kept = world.fetched()
    cache = world.cache
    with cache.transaction():
        loose = [cache.inodes.new(world.realm, Fid(9, 2, unique)) for unique in range(10)]
    cache.inodes._bound = 5
    with cache.transaction():
        cache.inodes.prune()
    assert [cache.inodes.identity(number) is None for number in loose] == [True] * 7 + [False] * 3
    assert cache.inodes.identity(kept) is not None


def test_local_fids_never_repeat(world: World, crash: Reopen) -> None:
    key = world.volume.key
    kinds = [ObjectType.FILE, ObjectType.DIRECTORY]
    with world.cache.transaction():
        made = [world.cache.volumes.local_fid(key, kinds[i % 2]) for i in range(600)]
    after = crash(world).cache
    with after.transaction():
        made += [after.volumes.local_fid(key, ObjectType.FILE) for _ in range(10)]
    assert len({fid.unique for fid in made}) == 610
    assert min(fid.unique for fid in made) == 1 << 19
    assert made[0].vnode == 0xFFFFFFFE
    assert made[1].is_directory


async def test_granted_fids_survive_a_clean_stop_only(world: World, crash: Reopen) -> None:
    key, volumes = world.volume.key, world.cache.volumes
    volumes.grant(key, ObjectType.FILE, FidRange(10, 100, 6, 3))
    assert volumes.granted_fid(key, ObjectType.FILE) == Fid(world.volume.id, 10, 100)
    assert volumes.granted_fid(key, ObjectType.DIRECTORY) is None
    assert crash(world).cache.volumes.granted(key, ObjectType.FILE) == 0
    await world.cache.aclose()
    with Cache(world.cache.directory, LIMITS, boot_id="boot 1") as again:
        assert again.volumes.granted(key, ObjectType.FILE) == 2
        assert again.volumes.granted_fid(key, ObjectType.FILE) == Fid(world.volume.id, 16, 101)


def test_volumes_and_realms_come_back(world: World, crash: Reopen) -> None:
    with world.cache.transaction():
        world.cache.volumes.set_stamps(world.volume.key, [5, 6])
        world.cache.realms.set_root_volume(world.realm, "root")
    after = crash(world).cache
    found = after.volumes.find(world.realm, "root")
    assert found is not None
    assert found.stamps == (5, 6)
    assert after.volumes.get(world.volume.key) == found
    assert after.volumes.find(world.realm + 1, "root") is None
    realm = after.realms.find("example.org")
    assert realm is not None
    assert (realm.id, realm.root_volume) == (world.realm, "root")
    with after.transaction():
        after.volumes.drop(world.volume.key)
    assert after.volumes.all() == []


def test_refused_records_are_counted_by_volume(world: World) -> None:
    log = world.cache.log
    with world.cache.transaction():
        for volume, count in ((world.volume.key, 3), (77, 2)):
            for _ in range(count):
                log.append(volume, b"record", uid=1, identity="", time=1)
        log.thaw(log.freeze(log.entries(world.volume.key)[1:]), reason=13, blocked=True)
    assert log.refusals() == {world.volume.key: 2}
