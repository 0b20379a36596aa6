"""What a start finds after a kill, and after power loss."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cache import Cache, Findings, Limits, ObjectRow, Why
from realmfs.vice.types import Fid
from tests.t4_cache.conftest import Reopen
from tests.t4_cache.world import LIMITS, World, status

OTHER_BOOT = "boot 2"


def container_of(world: World, number: int) -> int | None:
    row = world.cache.objects.load(number)
    return None if row is None else row.container


def length_of(world: World, number: int) -> int | None:
    row = world.cache.objects.load(number)
    return None if row is None or row.status is None else row.status.length


def copies(world: World) -> list[tuple[int, bytes, Why, bytes]]:
    found = []
    for copy in world.cache.recovered.all():
        contents = b""
        if copy.container:
            with world.cache.containers.open(copy.container) as container:
                contents = container.read(0, container.length)
        found.append((copy.number, copy.name, copy.why, contents))
    return found


async def test_a_clean_stop_leaves_nothing_to_do(world: World) -> None:
    number = world.fetched(data=b"data")
    await world.cache.aclose()
    wal = world.cache.directory / "cache.db-wal"
    assert not wal.exists()
    with Cache(world.cache.directory, LIMITS, boot_id=OTHER_BOOT) as cache:
        assert cache.findings == Findings()
        assert World(cache, world.realm, world.volume, world.root).data(number) == b"data"


async def test_a_closed_file_survives_a_kill(world: World, crash: Reopen) -> None:
    number = world.created()
    await world.store(number, b"acknowledged")
    after = crash(world)
    assert after.data(number) == b"acknowledged"
    assert copies(after) == []
    assert after.cache.findings == Findings(clean=False)


async def test_a_file_open_for_writing_becomes_a_copy(world: World, crash: Reopen) -> None:
    number = world.created(b"book")
    await world.store(number, b"chapter 1")
    container = await world.write(number, b"chapter 1, chapter 2")
    after = crash(world)
    assert after.data(number) == b"chapter 1"
    assert length_of(after, number) == 9
    assert copies(after) == [(number, b"book", Why.OPEN_AT_CRASH, b"chapter 1, chapter 2")]
    assert after.cache.findings.changed == [number]
    assert after.cache.findings.lost_stores == []
    assert after.cache.log.count == 2, "it is not sent by itself"
    container.close()
    (copy,) = after.cache.recovered.all()
    with after.cache.transaction():
        after.cache.recovered.discard(copy)
    assert after.cache.containers.used == 9
    assert after.cache.recovered.all() == []


@pytest.mark.parametrize("data", [b"chapter 1", b""], ids=["same as stored", "nothing written to a new file"])
async def test_no_copy_of_what_is_acknowledged(world: World, crash: Reopen, data: bytes) -> None:
    number = world.created()
    if data:
        await world.store(number, data)
    container = await world.write(number, data)
    after = crash(world)
    assert copies(after) == []
    assert after.data(number) == (data or None)
    container.close()


async def test_a_fetched_file_open_for_writing_goes_back_to_what_was_fetched(
    world: World, crash: Reopen
) -> None:
    number = world.fetched(b"file", b"server's")
    container = await world.write(number, b"half written")
    after = crash(world)
    assert after.data(number) == b"server's"
    assert length_of(after, number) == 8
    assert copies(after) == [(number, b"file", Why.OPEN_AT_CRASH, b"half written")]
    container.close()


@pytest.mark.parametrize("before", ["stored", "fetched", "new"])
async def test_attributes_changed_while_it_was_written_leave_the_length_of_what_there_is(
    world: World, crash: Reopen, before: str
) -> None:
    number = world.fetched(b"file", b"server's") if before == "fetched" else world.created()
    if before == "stored":
        await world.store(number, b"chapter 1")
    container = await world.write(number, b"half written, and much longer")
    with world.cache.transaction():  # a chmod(2) saves the status as it is at that moment
        world.cache.objects.update(number, status=status(length=container.length))
        world.log(14, number)
    after = crash(world)
    assert length_of(after, number) == len(after.data(number) or b"")
    container.close()


def test_a_fetch_that_was_running_is_forgotten(world: World, crash: Reopen) -> None:
    number = world.fetched()
    with world.cache.containers.create(100) as container:
        container.sink().write(b"x" * 10)
        after = crash(world)
    assert container_of(after, number) is None
    assert after.cache.findings.orphans == 1
    assert list(after.cache.containers.files()) == []


def test_strangers_among_the_containers_are_left_alone(world: World, crash: Reopen) -> None:
    world.fetched(data=b"data")

    def prepare(directory: Path) -> None:
        (directory / "containers" / "01" / "README").write_text("mine")

    after = crash(world, prepare=prepare)
    assert (after.cache.directory / "containers" / "01" / "README").exists()
    assert after.cache.findings.orphans == 0


def test_a_missing_container_is_fetched_again(world: World, crash: Reopen) -> None:
    number, other = world.fetched(data=b"data"), world.fetched(data=b"more")
    container = container_of(world, number)
    assert container is not None

    def prepare(directory: Path) -> None:
        (directory / world.cache.containers.path(container).relative_to(world.cache.directory)).unlink()

    after = crash(world, prepare=prepare)
    assert container_of(after, number) is None
    assert after.data(other) == b"more"
    assert after.cache.containers.used == 4
    assert after.cache.findings.dropped == 1


def test_runts_are_forgotten(world: World, crash: Reopen) -> None:
    fid = Fid(world.volume.id, 8, 8)
    with world.cache.transaction():
        number = world.cache.inodes.new(world.realm, fid)
        world.cache.objects.add(ObjectRow(number, world.realm, fid))
    after = crash(world).cache
    assert after.objects.load(number) is None
    assert after.inodes.find(world.realm, fid) == number, "but not who they are"


def test_rows_that_nothing_refers_to_are_forgotten(world: World, crash: Reopen) -> None:
    with world.cache.transaction(), world.cache.containers.create() as container:
        container.write(0, b"lost")
        world.cache.containers.save(container)
    after = crash(world).cache
    assert after.containers.used == 0
    assert list(after.containers.files()) == []


# -- power loss --------------------------------------------------------------------------------------------


async def test_unsynced_fetched_data_is_fetched_again_after_power_loss(world: World, crash: Reopen) -> None:
    synced = world.fetched(data=b"old")
    await world.cache.durability.sync_all()
    fresh = world.fetched(data=b"new")
    assert crash(world).data(fresh) == b"new"
    after = crash(world, boot_id=OTHER_BOOT)
    assert after.data(synced) == b"old"
    assert after.data(fresh) is None
    assert after.cache.findings.power_lost
    assert after.cache.findings.dropped == 1


async def test_a_confirmed_store_that_was_never_synced_is_fetched_again(world: World, crash: Reopen) -> None:
    number = world.created()
    await world.store(number, b"confirmed at once")
    with world.cache.transaction():
        world.cache.log.remove(world.cache.log.entries(world.volume.key))
    assert crash(world).data(number) == b"confirmed at once"
    assert crash(world, boot_id=OTHER_BOOT).data(number) is None


class Damage:
    """Ways in which power loss can treat a container file."""

    def __init__(self, world: World, container: int | None) -> None:
        assert container is not None
        self.path = world.cache.containers.path(container).relative_to(world.cache.directory)

    def cut(self, directory: Path) -> None:
        os.truncate(directory / self.path, 3)

    def zero(self, directory: Path) -> None:
        size = (directory / self.path).stat().st_size
        (directory / self.path).write_bytes(bytes(size))

    def remove(self, directory: Path) -> None:
        (directory / self.path).unlink()


@pytest.mark.parametrize("how", ["cut", "zero", "remove"])
async def test_an_unsafe_store_gives_way_to_the_one_before(world: World, crash: Reopen, how: str) -> None:
    number = world.created(b"file")
    await world.store(number, b"good and old")
    await world.cache.sync()
    await world.store(number, b"new, but lost")
    prepare = getattr(Damage(world, container_of(world, number)), how)
    after = crash(world, boot_id=OTHER_BOOT, prepare=prepare)
    assert after.data(number) == b"good and old"
    assert length_of(after, number) == 12
    assert [entry.length for entry in after.cache.log.entries(world.volume.key)] == [0, 12]
    (lost,) = after.cache.findings.lost_stores
    assert (lost.number, lost.name, lost.why) == (number, b"file", Why.DAMAGED_BY_POWER_LOSS)
    rest = {"cut": b"new", "zero": bytes(13), "remove": b""}[how]
    assert copies(after) == [(number, b"file", Why.DAMAGED_BY_POWER_LOSS, rest)]


async def test_a_lost_first_store_leaves_an_empty_new_file(world: World, crash: Reopen) -> None:
    number = world.created()
    await world.store(number, b"lost")
    after = crash(world, boot_id=OTHER_BOOT, prepare=Damage(world, container_of(world, number)).zero)
    assert length_of(after, number) == 0
    assert after.data(number) is None
    assert after.cache.log.count == 1


async def test_a_lost_store_of_a_servers_file_leaves_it_to_the_server(world: World, crash: Reopen) -> None:
    number, other = world.fetched(), world.fetched()
    await world.store(number, b"lost")
    await world.store(other, b"lost as well")
    with world.cache.transaction():
        world.log(14, other)
    one, two = Damage(world, container_of(world, number)), Damage(world, container_of(world, other))

    def prepare(directory: Path) -> None:
        one.zero(directory)
        two.zero(directory)

    after = crash(world, boot_id=OTHER_BOOT, prepare=prepare)
    assert after.cache.objects.load(number) is None, "only the server knows its status"
    assert after.cache.objects.load(other) is not None, "a pending change is about it"
    assert [entry.opcode for entry in after.cache.log.entries(world.volume.key)] == [14]
    assert after.cache.findings.changed == [number, other]


async def test_a_sound_unsafe_store_stays(world: World, crash: Reopen) -> None:
    number = world.created()
    await world.store(number, b"small")
    after = crash(world, boot_id=OTHER_BOOT)
    assert after.data(number) == b"small"
    await after.cache.sync()
    assert all(entry.safe for entry in after.cache.log.entries(world.volume.key))


async def test_what_cannot_be_proved_is_not_sent(world: World, crash: Reopen) -> None:
    """A large store gets its digest only with the sync: without it nobody knows what was acknowledged."""
    number = world.created(b"large")
    await world.store(number, b"x" * 100_000)
    assert crash(world, boot_id=OTHER_BOOT).data(number) is None
    await world.cache.sync()
    after = crash(world, boot_id=OTHER_BOOT)
    assert after.data(number) == b"x" * 100_000


async def test_an_acknowledged_fsync_survives_the_loss_of_all_that_came_later(
    world: World, crash: Reopen
) -> None:
    """Power loss keeps of the write-ahead log what was synced."""
    number = world.created()
    await world.store(number, b"x" * 100_000)
    await world.cache.sync()
    wal = (world.cache.directory / "cache.db-wal").stat().st_size
    world.created(b"later")
    await world.store(number, b"later")
    newer = container_of(world, number)
    lost = Damage(world, newer)

    def prepare(directory: Path) -> None:
        os.truncate(directory / "cache.db-wal", wal)
        lost.remove(directory)

    after = crash(world, boot_id=OTHER_BOOT, prepare=prepare)
    assert after.data(number) == b"x" * 100_000
    assert after.cache.log.count == 2
    assert all(entry.safe for entry in after.cache.log.entries(world.volume.key))
    assert after.cache.findings.lost_stores == []


async def test_a_confirmed_store_keeps_its_file_until_that_is_on_the_disk(
    world: World, crash: Reopen
) -> None:
    number = world.created()
    await world.store(number, b"confirmed")
    await world.cache.sync()
    wal = (world.cache.directory / "cache.db-wal").stat().st_size
    with world.cache.transaction():
        world.cache.log.remove(world.cache.log.entries(world.volume.key))
        world.cache.objects.drop(number)

    def prepare(directory: Path) -> None:
        os.truncate(directory / "cache.db-wal", wal)

    after = crash(world, boot_id=OTHER_BOOT, prepare=prepare)
    assert after.data(number) == b"confirmed"
    assert after.cache.findings.lost_stores == []
    await world.cache.sync()
    assert list(world.cache.containers.files()) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["store", "write", "sync", "drop", "send"])), max_size=12
    )
)
async def test_what_was_acknowledged_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    """Random work on three files, a kill, a start: the contents of the last close are there."""
    base = tmp_path_factory.mktemp("c")
    limits = Limits(1 << 20, 100, 100, 0)
    with Cache(base / "c", limits, boot_id="1") as cache:
        world = World.make(cache)
        numbers = [world.created(b"%d" % index) for index in range(3)]
        closed: dict[int, bytes | None] = dict.fromkeys(numbers)
        for index, (which, step) in enumerate(steps):
            number = numbers[which]
            data = b"%d" % index * 10
            match step:
                case "store":
                    await world.store(number, data)
                    closed[number] = data
                case "write":
                    (await world.write(number, data)).close()
                case "sync":
                    await cache.sync()
                case "drop" if not world.cache.log.count:
                    with cache.transaction():
                        cache.objects.attach(number, None)
                    closed[number] = None
                case "send":
                    with cache.transaction():
                        cache.log.remove(cache.log.entries(world.volume.key))
        shutil.copytree(base / "c", base / "d", ignore=shutil.ignore_patterns("lock", "*-shm"))
    with Cache(base / "d", limits, boot_id="1") as cache:
        after = World(cache, world.realm, world.volume, world.root)
        for number, acknowledged in closed.items():
            found = after.data(number)
            assert found == acknowledged
        files = set(cache.containers.files())
        assert files == {row[0] for row in cache._database.rows("SELECT id FROM container")}
        cache.containers.reload()
        assert cache.containers.used == sum(cache.containers.path(number).stat().st_size for number in files)
