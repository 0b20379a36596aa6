"""Volume states: told when they change, each volume's its own; and a volume that nobody has located."""

from pathlib import Path

import trio

from realmfs.venus.events import VolumeChanged
from realmfs.venus.volume import State, VolumeState
from realmfs.vice.calls import Resolve
from tests.t5_venus.test_logins import of_kind, watching
from tests.t5_venus.world import ME, REALM, Client, until, world

ROOT = f"/{REALM}"


def volume_of(client: Client, realm: str) -> VolumeState:
    (volume,) = (one for one in client.venus.core.volumes if one.realm == realm)
    return volume


async def test_one_realm_away_does_not_touch_another(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        other = await w.add_realm("other.test", "10.0.0.7")
        a = await w.client()
        await a.write(f"{ROOT}/f", b"here")
        await a.write("/other.test/f", b"there")
        await a.drained()
        with watching(a) as watcher:
            await a.realms.disconnect(REALM)
            assert of_kind(watcher.waiting(), VolumeChanged) == [f"/@{REALM} unreachable 0"]
        assert volume_of(a, REALM).state is State.UNREACHABLE
        assert volume_of(a, "other.test").state is State.REACHABLE
        w.realm.counted()
        other.counted()
        await a.write(f"{ROOT}/g", b"waits")
        await a.write("/other.test/g", b"goes")
        await until(lambda: a.pending == 2)
        assert w.realm.counted().total() == 0
        assert other.counted().total() > 0
        assert await a.read(f"{ROOT}/f") == b"here"
        await trio.sleep(600)
        assert a.pending == 2
        with watching(a) as watcher:
            await a.realms.reconnect(REALM)
            await a.drained()
            changes = [event for event in watcher.waiting() if isinstance(event, VolumeChanged)]
            assert ("reachable", 2, ("servers",)) in [(e.state, e.records, e.flags) for e in changes]
        assert await (await w.client()).read(f"{ROOT}/g") == b"waits"


async def test_off_line_by_hand_outlasts_a_restart(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        await a.realms.disconnect()
        w.realm.counted()
        await a.restart()
        assert await a.read(f"{ROOT}/f") == b"contents"
        await a.mkdir(f"{ROOT}/d")
        await trio.sleep(300)
        assert a.pending == 1
        assert w.realm.counted().total() == 0
        await a.realms.reconnect()
        await a.drained()


async def test_a_volume_is_resolving_while_servers_make_its_replicas_equal(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.05) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"contents")
        await a.drained()
        volume = volume_of(a, REALM)
        seen: list[State] = []
        with watching(a) as watcher:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(resolve, volume)
                await until(lambda: w.realm.calls[Resolve.OPCODE] > 0 or volume.state is State.RESOLVING)
                seen.append(volume.state)
            seen.append(volume.state)
            told = of_kind(watcher.waiting(), VolumeChanged)
        assert seen == [State.RESOLVING, State.REACHABLE]
        assert told == [f"/@{REALM} resolving 0", f"/@{REALM} reachable 0"]


async def resolve(volume: VolumeState) -> None:
    assert volume.place is not None
    await volume.place.group.resolve(volume.root)


async def test_what_is_cached_of_a_volume_that_nobody_has_located_yet_is_asked_about(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """The memory of where volumes live is lost; the cache is not."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"old")
        await a.drained()
        ino = (await a.look(f"{ROOT}/f")).ino
        await a.kill()
        (a.directory / "state" / "realms.json").unlink(missing_ok=True)
        await b.write(f"{ROOT}/f", b"newer")
        await b.drained()
        await a.start()
        assert a.venus.core.nodes.by_number(ino).volume.place is None
        assert (await a.venus.getattr(ME, ino)).size == 5
        await a.kill()
        (a.directory / "state" / "realms.json").unlink(missing_ok=True)
        a.offline()
        await a.start()
        assert (await a.venus.getattr(ME, ino)).size == 5
        started = trio.current_time()
        assert (await a.venus.getattr(ME, ino)).size == 5
        assert trio.current_time() == started, "it is not looked for at every request"
