"""Changes that the servers refuse: shown with both versions, settled in each of the three ways."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from realmfs.cache.log import State
from realmfs.venus.node import Node
from realmfs.vice.errors import CodaError, Code
from tests.t5_venus.test_changes import tree
from tests.t5_venus.world import ME, REALM, SERVER, Client, World, refused, until, world

ROOT = f"/{REALM}"
Step = Callable[[Client], Awaitable[object]]
Tree = dict[str, object]


@dataclass
class Row:
    """One way to collide: the state both know, what each does, and what each settlement must leave."""

    common: list[Step]
    ours: list[Step]
    theirs: list[Step]
    code: Code
    shown: str
    local: Tree | Code
    server: Tree
    both: Tree | Code
    versions: list[str] = field(default_factory=lambda: ["_localcache", SERVER])


def write(name: str, data: bytes) -> Step:
    return lambda c: c.write(f"{ROOT}/{name}", data)


def mkdir(name: str) -> Step:
    return lambda c: c.mkdir(f"{ROOT}/{name}")


def unlink(name: str) -> Step:
    return lambda c: c.unlink(f"{ROOT}/{name}")


def rmdir(name: str) -> Step:
    return lambda c: c.rmdir(f"{ROOT}/{name}")


def rename(old: str, new: str) -> Step:
    return lambda c: c.rename(f"{ROOT}/{old}", f"{ROOT}/{new}")


def symlink(name: str, text: bytes) -> Step:
    return lambda c: c.symlink(f"{ROOT}/{name}", text)


def link(old: str, new: str) -> Step:
    return lambda c: c.link(f"{ROOT}/{old}", f"{ROOT}/{new}")


def change(name: str, **changes: int) -> Step:
    return lambda c: c.change(f"{ROOT}/{name}", **changes)


F = [write("f", b"common")]
ROWS = {
    "both store": Row(
        F,
        [write("f", b"ours")],
        [write("f", b"theirs!")],
        Code.EINCOMPATIBLE,
        "f",
        {"f": b"ours"},
        {"f": b"theirs!"},
        {"f": b"theirs!", "f.local": b"ours"},
    ),
    "mode here, store there": Row(
        F,
        [change("f", mode=0o600)],
        [write("f", b"theirs!")],
        Code.EINCOMPATIBLE,
        "f",
        {"f": b"theirs!"},
        {"f": b"theirs!"},
        {"f": b"theirs!"},
    ),
    "time here, store there": Row(
        F,
        [change("f", mtime_ns=10**18)],
        [write("f", b"theirs!")],
        Code.EINCOMPATIBLE,
        "f",
        {"f": b"theirs!"},
        {"f": b"theirs!"},
        {"f": b"theirs!"},
    ),
    "store here, removed there": Row(
        F,
        [write("f", b"ours")],
        [unlink("f")],
        Code.ENOENT,
        "f",
        {"f": b"ours"},
        {},
        {"f": b"ours"},
        versions=["_localcache"],
    ),
    "store here, replaced there": Row(
        F,
        [write("f", b"ours")],
        [write("g", b"theirs!"), rename("g", "f")],
        Code.ENOENT,
        "f",
        {"f": b"ours"},
        {"f": b"theirs!"},
        {"f": b"theirs!", "f.local": b"ours"},
    ),
    "both create": Row(
        [],
        [write("f", b"ours")],
        [write("f", b"theirs!")],
        Code.EEXIST,
        "f",
        {"f": b"ours"},
        {"f": b"theirs!"},
        {"f": b"theirs!", "f.local": b"ours"},
    ),
    "both make a directory, theirs is empty": Row(
        [],
        [mkdir("d"), write("d/x", b"ours")],
        [mkdir("d")],
        Code.EEXIST,
        "d",
        {"d": {"x": b"ours"}},
        {"d": {}},
        {"d": {}, "d.local": {"x": b"ours"}},
    ),
    "both make a directory, theirs is full": Row(
        [],
        [mkdir("d"), mkdir("d/e"), write("d/e/x", b"ours")],
        [mkdir("d"), write("d/y", b"theirs!")],
        Code.EEXIST,
        "d",
        Code.ENOTEMPTY,
        {"d": {"y": b"theirs!"}},
        {"d": {"y": b"theirs!"}, "d.local": {"e": {"x": b"ours"}}},
    ),
    "link here, file there": Row(
        [],
        [symlink("s", b"ours")],
        [write("s", b"theirs!")],
        Code.EEXIST,
        "s",
        {"s": b"ours"},
        {"s": b"theirs!"},
        {"s": b"theirs!", "s.local": b"ours"},
    ),
    "another name here, file there": Row(
        F,
        [link("f", "g")],
        [write("g", b"theirs!")],
        Code.EEXIST,
        "g",
        {"f": b"common", "g": b"common"},
        {"f": b"common", "g": b"theirs!"},
        {"f": b"common", "g": b"theirs!", "g.local": b"common"},
    ),
    "removed here, store there": Row(
        F,
        [unlink("f")],
        [write("f", b"theirs!")],
        Code.EINCOMPATIBLE,
        "f",
        {},
        {"f": b"theirs!"},
        {"f": b"theirs!"},
        versions=[SERVER],
    ),
    "directory removed here, filled there": Row(
        [mkdir("d")],
        [rmdir("d")],
        [write("d/x", b"theirs!")],
        Code.ENOTEMPTY,
        "d",
        Code.ENOTEMPTY,
        {"d": {"x": b"theirs!"}},
        {"d": {"x": b"theirs!"}},
        versions=[SERVER],
    ),
    "saved by renaming here and there": Row(
        F,
        [write(".f.new~", b"ours"), rename(".f.new~", "f")],
        [write(".f.theirs~", b"theirs!"), rename(".f.theirs~", "f")],
        Code.EINCOMPATIBLE,
        "f",
        {"f": b"ours"},
        {"f": b"theirs!"},
        {"f": b"theirs!", "f.local": b"ours"},
    ),
    "saved by renaming here, written in place there": Row(
        F,
        [write(".f.new~", b"ours"), rename(".f.new~", "f")],
        [write("f", b"theirs!")],
        Code.EINCOMPATIBLE,
        "f",
        {"f": b"ours"},
        {"f": b"theirs!"},
        {"f": b"theirs!", "f.local": b"ours"},
    ),
    "written in place here, saved by renaming there": Row(
        F,
        [write("f", b"ours")],
        [write(".f.theirs~", b"theirs!"), rename(".f.theirs~", "f")],
        Code.ENOENT,
        "f",
        {"f": b"ours"},
        {"f": b"theirs!"},
        {"f": b"theirs!", "f.local": b"ours"},
    ),
    "another file moved over it here, a change there": Row(
        [*F, write("g", b"another")],
        [rename("g", "f")],
        [write("f", b"theirs!")],
        Code.EINCOMPATIBLE,
        "f",
        {"f": b"another"},
        {"f": b"theirs!", "g": b"another"},
        {"f": b"theirs!", "f.local": b"another"},
    ),
    "renamed here, name taken there": Row(
        F,
        [rename("f", "g")],
        [write("g", b"theirs!")],
        Code.EINCOMPATIBLE,
        "g",
        {"g": b"common"},
        {"f": b"common", "g": b"theirs!"},
        {"g": b"theirs!", "g.local": b"common"},
    ),
    "renamed here, removed there": Row(
        F,
        [rename("f", "g")],
        [unlink("f")],
        Code.ENOENT,
        "g",
        {"g": b"common"},
        {},
        {"g": b"common"},
        versions=["_localcache"],
    ),
    "renamed here, renamed there": Row(
        F,
        [rename("f", "g")],
        [rename("f", "h")],
        Code.ENOENT,
        "g",
        {"g": b"common"},
        {"h": b"common"},
        {"g": b"common"},
    ),
    "made here in a directory removed there": Row(
        [mkdir("d")],
        [write("d/x", b"ours")],
        [rmdir("d")],
        Code.ENOENT,
        "d/x",
        {"d": {"x": b"ours"}},
        {},
        {"d": {"x": b"ours"}},
        versions=["_localcache"],
    ),
}


async def collide(w: World, row: Row, a: Client, b: Client) -> Node:
    """Bring it about: `a` works cut off, `b` meanwhile at the servers; return the object in conflict."""
    for step in row.common:
        await step(a)
    await a.drained()
    await tree(a)
    await tree(b)
    a.offline()
    for step in row.ours:
        await step(a)
    for step in row.theirs:
        await step(b)
    await b.drained()
    a.online()
    await until(lambda: bool(a.venus.core.conflicts.all()) and not frozen(a), 120)
    (node,) = a.venus.core.conflicts.all()
    return node


def frozen(client: Client) -> bool:
    return any(entry.frozen for key in client.cache.log.volumes() for entry in client.cache.log.entries(key))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_what_is_refused_is_shown_with_all_versions(
    tmp_path: Path, autojump_clock: trio.abc.Clock, row: Row
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        with a.venus.events.watch() as watcher:
            node = await collide(w, row, a, b)
            lines = [event.line() for event in watcher.waiting()]
        assert any(line.startswith("ClientModifyLog::CONFLICT (local/global): ") for line in lines), lines
        held = a.venus.core.conflicts.held(node.ino)
        assert held[0].reason == row.code
        for client in (a, await a.restart()):
            *above, name = row.shown.split("/")
            assert name in await client.ls("/".join([ROOT, *above]))
            view = f"{ROOT}/{row.shown}"
            attr = await client.look(view)
            assert await client.venus.getxattr(ME, attr.ino, b"user.coda.state") == b"conflict"
            await until_up(client)
            assert await client.ls(view) == sorted(row.versions)
            for version in row.versions:
                await client.look(f"{view}/{version}")
        with refused(117):  # EUCLEAN
            await a.rename(f"{ROOT}/{row.shown}", f"{ROOT}/elsewhere")


async def until_up(client: Client) -> None:
    await until(lambda: any(volume.reachable for volume in client.venus.core.volumes), 120)


@pytest.mark.parametrize("own", [True, False], ids=["own servers", "reference servers"])
@pytest.mark.parametrize("keep", ["local", "server", "both"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_settling_leaves_that_tree_and_an_empty_log(
    tmp_path: Path, autojump_clock: trio.abc.Clock, row: Row, keep: str, own: bool
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=own), await w.client()
        node = await collide(w, row, a, b)
        wanted = getattr(row, keep)
        settle = getattr(a.venus.settler, f"keep_{keep}")
        if isinstance(wanted, Code):
            before = a.pending
            with pytest.raises(CodaError) as caught:
                await settle(ME, node)
            assert caught.value.code is wanted
            assert a.pending == before
            assert a.venus.core.conflicts.all() == [node]
            return
        await settle(ME, node)
        await a.drained(120)
        assert a.venus.core.conflicts.all() == []
        assert strip(await tree(a)) == wanted
        assert strip(await tree(b)) == wanted
        await a.restart()
        assert strip(await tree(a)) == wanted


def strip(found: object) -> object:
    """Leave names and contents of what `tree` says."""
    if isinstance(found, dict):
        return {name: strip(what) for name, what in found.items()}
    return found[0] if isinstance(found, tuple) else found


async def test_everything_else_goes_on(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await b.write(f"{ROOT}/f", b"common")
        await b.drained()
        await a.read(f"{ROOT}/f")
        a.offline()
        await a.write(f"{ROOT}/f", b"ours")
        for number in range(100):
            await a.write(f"{ROOT}/later{number}", b"%d" % number)
        await b.write(f"{ROOT}/f", b"theirs!")
        await b.drained()
        a.online()
        await until(lambda: a.pending == 1, 120)
        await a.write(f"{ROOT}/more", b"more")
        await until(lambda: a.pending == 1, 120)
        assert len(await b.ls(ROOT)) == 102
        assert await b.read(f"{ROOT}/later99") == b"99"
        (volume,) = a.cache.log.volumes()
        (entry,) = a.cache.log.entries(volume)
        assert entry.state & State.BLOCKED
        await until(lambda: a.venus.core.volumes.by_key(volume).waiting_for == "a decision")


async def test_our_version_can_be_edited_and_kept(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await collide(w, ROWS["both store"], a, b)
        view = f"{ROOT}/f"
        assert await a.read(f"{view}/_localcache") == b"ours"
        assert await a.read(f"{view}/{SERVER}") == b"theirs!"
        with refused(30):  # EROFS
            await a.write(f"{view}/{SERVER}", b"no")
        with refused(30):
            await a.write(f"{view}/new", b"no")
        await a.write(f"{view}/_localcache", b"merged")
        (node,) = a.venus.core.conflicts.all()
        await a.venus.settler.keep_local(ME, node)
        await a.drained()
        assert await b.read(view) == b"merged"
        assert await a.read(view) == b"merged"


async def test_what_the_servers_take_after_all_is_no_conflict_any_more(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        node = await collide(w, ROWS["both create"], a, b)
        await b.unlink(f"{ROOT}/f")
        await b.drained()
        assert await a.ls(f"{ROOT}/f") == ["_localcache"]
        with trio.fail_after(60):
            await a.venus.reintegrator.send(node.volume, retry=True)
        await a.drained()
        assert strip(await tree(a)) == strip(await tree(b)) == {"f": b"ours"}
        assert a.venus.core.conflicts.all() == []
