"""One author per log: (local uid, Coda identity or nobody). Another one waits, then gets EBUSY and a name."""

import errno
import os
from pathlib import Path

import trio

from realmfs.venus.events import LogHeld
from realmfs.venus.face import Caller
from tests.t5_venus.test_logins import Door, of_kind, watching
from tests.t5_venus.world import REALM, Client, refused, world

ROOT = f"/{REALM}"
OTHER = Caller(1001, 1001, 0)


async def test_another_uid_gets_ebusy_after_the_patience_and_is_told_who_holds_the_log(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        root = (await a.look(ROOT)).ino
        await a.ls(ROOT)
        a.offline()
        await a.mkdir(f"{ROOT}/mine")
        with watching(a) as watcher:
            started = trio.current_time()
            with refused(errno.EBUSY):
                await a.venus.mkdir(OTHER, root, b"his", 0o755)
            assert 5 < trio.current_time() - started <= a.settings.patience
            assert of_kind(watcher.waiting(), LogHeld) == [
                f"/@{REALM} holds changes of uid 1000 as nobody (they wait for servers); uid 1001 must wait"
            ]
        assert a.pending == 1


async def test_writing_begins_in_a_log_of_ones_own_only(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"as it was")
        await a.drained()
        a.offline()
        await a.mkdir(f"{ROOT}/mine")
        opened = await a.venus.open(OTHER, ino, os.O_WRONLY)
        with refused(errno.EBUSY):
            await a.venus.write(opened.handle, 0, b"anew")
        await a.venus.flush(opened.handle)
        await a.venus.release(opened.handle)
        with refused(errno.EBUSY):
            await a.venus.open(OTHER, ino, os.O_WRONLY | os.O_TRUNC)
        assert await a.read(f"{ROOT}/f") == b"as it was"
        assert a.pending == 1


async def test_the_same_uid_under_another_identity_waits_as_well(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/None")  # where nobody may write
        await a.drained()
        door = Door(w)
        for first, second in (("alice", "bob"), (None, "alice")):
            door.log_in(a, "alice")
            await a.ls(ROOT)
            if first:
                await a.mkdir(f"{ROOT}/{first}")
            await a.drained()
            a.offline()
            await trio.sleep(60)
            door.log_in(a, first)
            await a.mkdir(f"{ROOT}/{first}/waits")
            door.log_in(a, second)
            with watching(a) as watcher:
                with refused(errno.EBUSY):
                    await a.mkdir(f"{ROOT}/{first}/second")
                (text,) = of_kind(watcher.waiting(), LogHeld)
            assert f"uid 1000 as {f'{door.ids[first]}@{REALM}' if first else 'nobody'} (" in text
            a.online()
            door.log_in(a, "alice")
            await a.drained()


async def test_a_record_of_another_author_is_never_cancelled(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """He has the file open since before; what he stores goes out as his, and mine as mine."""
    async with world(tmp_path) as w:
        a = await w.client()
        ino = await a.write(f"{ROOT}/f", b"")
        await a.drained()
        a.offline()
        his = await a.venus.open(OTHER, ino, os.O_WRONLY)
        await a.venus.write(his.handle, 0, b"his")
        await a.change(f"{ROOT}/f", mode=0o600)
        await a.venus.flush(his.handle)
        await a.venus.release(his.handle)
        await a.write(f"{ROOT}/f", b"mine")
        assert authors(a) == [1000, 1001, 1000]
        a.online()
        await a.drained()
        assert await (await w.client()).read(f"{ROOT}/f") == b"mine"


def authors(client: Client) -> list[int]:
    """Return whose each waiting record is."""
    (key,) = client.cache.log.volumes()
    return [entry.uid for entry in client.cache.log.entries(key)]
