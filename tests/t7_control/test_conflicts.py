"""Conflicts and pending changes over the control socket: what the commands and the screens are told."""

import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.control import messages
from realmfs.control.conflicts import Conflicts
from realmfs.control.controlfiles import ControlFiles
from realmfs.control.facts import DaemonFacts
from realmfs.control.messages.pages import ConflictPage, Paged
from realmfs.control.pioctl import Order
from realmfs.control.protocol import ControlError, Kind
from realmfs.venus.conflicts import VIEW_BIT
from realmfs.venus.face import Caller
from tests.t5_venus.conftest import no_threads
from tests.t5_venus.test_changes import WANTED, everything, tree
from tests.t5_venus.test_conflicts import ROWS, collide, strip
from tests.t5_venus.world import ME, REALM, SERVER, Client, until, world

__all__ = ["no_threads"]

ROOT = f"/{REALM}"
AUTHOR = Caller(ME.uid, ME.gid, 0, kernel=False)


class Control:
    """The methods for one caller."""

    def __init__(self, client: Client, state: Path, caller: Caller = AUTHOR) -> None:
        self.methods = Conflicts(client.venus, state).methods(caller)

    async def __call__(self, name: str, params: object) -> Any:
        method = self.methods[name]
        assert isinstance(params, method.shape)
        return await method.run(params)


async def test_a_conflict_is_listed_shown_and_settled(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        control = Control(a, tmp_path / "state")
        assert await control("conflicts.list", messages.Conflicts()) == ConflictPage([], None)
        await collide(w, ROWS["both store"], a, b)
        (one,) = (await control("conflicts.list", messages.Conflicts())).entries
        assert (one.kind, one.type, one.path, one.changes) == ("local", "file", f"{REALM}/f", ["store"])
        assert (one.uid, one.volume, one.waiting) == (ME.uid, "/", 0)
        assert "changed on the servers" in one.reason
        shown = await control("conflicts.show", messages.ConflictAt(path=f"{REALM}/f"))
        assert [(v.name, v.server, v.size, v.path) for v in shown.versions] == [
            ("_localcache", None, 4, f"{REALM}/f/_localcache"),
            (SERVER, SERVER, 7, f"{REALM}/f/{SERVER}"),
        ]
        assert await a.read(f"/{shown.versions[1].path}") == b"theirs!"
        settled = await control("conflicts.settle", messages.Settle(id=one.id, keep="local"))
        assert (settled.kind, settled.sent, settled.kept) == ("no", True, None)
        assert await b.read(f"{ROOT}/f") == b"ours"
        with pytest.raises(ControlError, match="is not in conflict"):
            await control("conflicts.show", messages.ConflictAt(path=f"{REALM}/f"))


async def test_a_conflict_is_seen_past_the_layer_of_control_files(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """The kernel's way: all that is asked passes through that layer, whose numbers must be others."""

    async def habit(caller: Caller, order: Order) -> bytes:
        raise AssertionError(order)

    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        node = await collide(w, ROWS["both store"], a, b)
        door = ControlFiles(a.venus, habit)
        above = await a.look(ROOT)
        view = await door.lookup(ME, above.ino, b"f")
        assert view.ino == VIEW_BIT | node.ino
        assert stat.S_ISDIR((await door.getattr(ME, view.ino)).mode)
        assert await door.access(ME, view.ino, os.R_OK)
        assert await door.getxattr(ME, view.ino, b"user.coda.state") == b"conflict"
        ours = await door.lookup(ME, view.ino, b"_localcache")
        opened = await door.open(ME, ours.ino, os.O_RDONLY)
        assert bytes(await door.read(opened.handle, 0, 100)) == b"ours"
        await door.release(opened.handle)
        door.forget(view.ino, 1)


async def test_what_is_given_up_is_kept_and_can_be_had_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        control = Control(a, tmp_path / "state")
        await collide(w, ROWS["both store"], a, b)
        settled = await control("conflicts.settle", messages.Settle(path=f"{REALM}/f", keep="server"))
        assert await a.read(f"{ROOT}/f") == b"theirs!"
        with tarfile.open(settled.kept) as archive:
            index = archive.extractfile("changes.json")
            assert index is not None
            (change,) = json.loads(index.read())["changes"]
            assert (change["change"], change["length"], change["volume"]) == ("Store", 4, "/")
            contents = archive.extractfile(change["contents"])
            assert contents is not None
            assert contents.read() == b"ours"
        assert os.stat(settled.kept).st_mode & 0o777 == 0o600
        result = await control("changes.import", messages.Import(settled.kept))
        assert (result.done, result.failed) == (1, [])
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"ours"


async def test_a_file_saved_by_renaming_is_kept_too(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        control = Control(a, tmp_path / "state")
        await collide(w, ROWS["saved by renaming here and there"], a, b)
        settled = await control("conflicts.settle", messages.Settle(path=f"{REALM}/f", keep="server"))
        await a.drained()
        assert strip(await tree(a)) == strip(await tree(b)) == {"f": b"theirs!"}
        result = await control("changes.import", messages.Import(settled.kept))
        assert result.failed == []
        await a.drained()
        assert strip(await tree(b)) == {"f": b"ours"}


async def test_others_see_and_settle_only_their_own(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        node = await collide(w, ROWS["both store"], a, b)
        stranger = Control(a, tmp_path / "state", Caller(4711, 4711, 0, kernel=False))
        assert await stranger("conflicts.list", messages.Conflicts()) == ConflictPage([], None)
        with pytest.raises(ControlError):
            await stranger("conflicts.settle", messages.Settle(id=node.ino, keep="server"))


@pytest.mark.parametrize(
    "params",
    [
        messages.Settle(keep="local"),
        messages.Settle(id=1, path="x", keep="local"),
        messages.Settle(path=f"{REALM}/f"),
        messages.Settle(path=f"{REALM}/f", keep="mine"),
        messages.Settle(path=f"{REALM}/f", keep="local", fix=""),
        messages.Settle(path=f"{REALM}/f", fix="createf x"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, autojump_clock: trio.abc.Clock, params: messages.Settle
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await collide(w, ROWS["both store"], a, b)
        with pytest.raises(ControlError) as caught:
            await Control(a, tmp_path / "state")("conflicts.settle", params)
        assert caught.value.kind is Kind.FAILED
        assert a.pending == 1


async def test_unsent_work_is_exported_and_made_again_elsewhere(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        a.offline()
        await everything(a)
        control = Control(a, tmp_path / "state")
        file = str(tmp_path / "work.tar")
        written = await control("changes.export", messages.Export(file))
        assert written.changes == a.pending
        with pytest.raises(ControlError, match="File exists"):
            await control("changes.export", messages.Export(file))
        await a.kill()
        result = await Control(b, tmp_path / "state2")("changes.import", messages.Import(file))
        assert result.failed == []
        await b.drained()
        assert strip(await tree(b)) == strip(WANTED)


async def test_discarding_keeps_a_copy_and_leaves_the_servers_tree(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await b.write(f"{ROOT}/f", b"common")
        await b.mkdir(f"{ROOT}/d")
        await b.drained()
        before = await tree(a)
        a.venus.reintegrator.policies.default.age = 10_000.0
        await a.write(f"{ROOT}/f", b"changed")
        await a.rename(f"{ROOT}/f", f"{ROOT}/d/g")
        await a.mkdir(f"{ROOT}/new")
        await a.write(f"{ROOT}/new/x", b"x")
        control = Control(a, tmp_path / "state")
        pending = a.pending
        a.offline()
        await trio.sleep(100)
        with pytest.raises(ControlError) as caught:
            await control("changes.discard", messages.Discard())
        assert caught.value.kind is Kind.UNREACHABLE
        assert a.pending == pending
        assert list((tmp_path / "state" / "discarded").iterdir()) == []
        a.online()
        await until(lambda: all(volume.reachable for volume in a.venus.core.volumes))
        kept = await control("changes.discard", messages.Discard())
        assert kept.changes == pending
        assert (tmp_path / "state" / "discarded").samefile(os.path.dirname(kept.file))
        assert a.pending == 0
        assert strip(await tree(a)) == strip(before)


async def test_one_change_is_discarded_with_what_rests_on_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        a.venus.reintegrator.policies.default.age = 10_000.0
        await a.mkdir(f"{ROOT}/new")
        await a.write(f"{ROOT}/new/x", b"x")
        await a.write(f"{ROOT}/other", b"stays")
        (key,) = a.cache.log.volumes()
        first = a.cache.log.entries(key)[0]
        control = Control(a, tmp_path / "state")
        kept = await control("changes.discard", messages.Discard(sequence=first.sequence))
        assert kept.changes == 3
        assert strip(await tree(a)) == {"other": b"stays"}
        a.venus.reintegrator.policies.default.age = 0.0
        a.venus.reintegrator.wake_all()
        await a.drained()
        assert strip(await tree(a)) == {"other": b"stays"}
        result = await control("changes.import", messages.Import(kept.file))
        assert result.failed == []
        await a.drained()
        assert strip(await tree(a)) == {"other": b"stays", "new": {"x": b"x"}}


async def test_only_so_many_copies_are_kept(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realmfs.control.conflicts._MOST_KEPT", 3)
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        control = Control(a, tmp_path / "state")
        kept = []
        for _ in range(5):
            await collide(w, ROWS["both store"], a, b)
            settled = await control("conflicts.settle", messages.Settle(path=f"{REALM}/f", keep="server"))
            kept.append(Path(settled.kept))
        assert len(set(kept)) == 5
        assert [path.exists() for path in kept] == [False, False, True, True, True]


async def test_replicas_that_were_looked_at_are_no_volumes_of_their_own(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await collide(w, ROWS["both store"], a, b)
        assert await a.read(f"{ROOT}/f/{SERVER}") == b"theirs!"
        facts = DaemonFacts(a.cache, a.realms, {}, lambda force: None)
        assert [one.name for one in (await facts.volumes(Paged())).entries] == ["/"]
