"""What servers would refuse is refused at the call, with them and without: one test for each row.

The rows are in docs/reference/semantics.md, "Refused at once"; tests/interop/test_refusals.py asks servers.
"""

import errno
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from realmfs.venus.making import MakeSymlink
from realmfs.vice.types import Fid, Rights
from tests.t5_venus.test_changes import tree
from tests.t5_venus.test_logins import Door
from tests.t5_venus.world import ME, REALM, Client, World, refused, until, world

ROOT = f"/{REALM}"
FOREIGN = "other.test"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "semantics.md"
FULL = 894  # names of 255 bytes that fill a directory (directories.md §2.5)

Attempt = Callable[[Client], Awaitable[object]]

ATTEMPTS: dict[str, Attempt] = {
    "write-2gib": lambda c: write_at(c, 2**31 - 1),
    "truncate-2gib": lambda c: c.change(f"{ROOT}/f", size=2**31),
    "long-name": lambda c: c.mkdir(f"{ROOT}/{'n' * 256}"),
    "long-new-name": lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/{'n' * 256}"),
    "long-link": lambda c: c.symlink(f"{ROOT}/x", b"x" * 1024),
    "at-sys": lambda c: c.write(f"{ROOT}/lib@sys", b""),
    "at-cpu": lambda c: c.mkdir(f"{ROOT}/@cpu"),
    "rename-at-sys": lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/f@sys"),
    "conflict-name": lambda c: c.mkdir(f"{ROOT}/@12345678.12345678.12345678@x"),
    "rename-conflict-name": lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/@12345678.12345678.12345678@x"),
    "chmod-link": lambda c: c.change(f"{ROOT}/l", mode=0o600),
    "set-user-id": lambda c: c.change(f"{ROOT}/f", mode=0o4755),
    "chown": lambda c: c.change(f"{ROOT}/bobs", uid=4711),
    "link-elsewhere": lambda c: c.link(f"{ROOT}/f", f"{ROOT}/d/x"),
    "link-symlink": lambda c: c.link(f"{ROOT}/l", f"{ROOT}/x"),
    "link-directory": lambda c: c.link(f"{ROOT}/d", f"{ROOT}/x"),
    "link-mount": lambda c: c.link(f"{ROOT}/dangling", f"{ROOT}/x"),
    "link-volume": lambda c: c.link(f"{ROOT}/f", f"/{FOREIGN}/x"),
    "rename-hard-link": lambda c: c.rename(f"{ROOT}/h1", f"{ROOT}/d/h1"),
    "rename-volume": lambda c: c.rename(f"{ROOT}/f", f"/{FOREIGN}/f"),
    "rename-mount": lambda c: c.rename(f"{ROOT}/dangling", f"{ROOT}/x"),
    "rename-into-itself": lambda c: c.rename(f"{ROOT}/d", f"{ROOT}/d/sub/x"),
    "remove-mount": lambda c: c.unlink(f"{ROOT}/dangling"),
    "replace-mount": lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/dangling"),
    "not-empty": lambda c: c.rmdir(f"{ROOT}/d"),
    "replace-not-empty": lambda c: c.rename(f"{ROOT}/e", f"{ROOT}/d"),
    "no-insert-right": lambda c: c.mkdir(f"{ROOT}/closed/x"),
    "no-delete-right": lambda c: c.unlink(f"{ROOT}/closed/f"),
    "no-write-right": lambda c: write_at(c, 0, "closed/f"),
    "no-right-to-chmod": lambda c: c.change(f"{ROOT}/closed/f", mode=0o600),
    "no-right-to-set-times": lambda c: c.change(f"{ROOT}/closed/f", mtime_ns=0),
    "directory-full": lambda c: c.symlink(f"{ROOT}/full/{'y' * 255}", b"x"),
    "directory-full-rename": lambda c: c.rename(f"{ROOT}/f", f"{ROOT}/full/{'y' * 255}"),
    "directory-full-link": lambda c: c.link(f"{ROOT}/full/000{'x' * 252}", f"{ROOT}/full/{'y' * 255}"),
}


async def write_at(client: Client, offset: int, path: str = "f") -> None:
    """Write a byte, and leave no handle behind."""
    opened = await client.venus.open(ME, (await client.look(f"{ROOT}/{path}")).ino, os.O_WRONLY)
    try:
        await client.venus.write(opened.handle, offset, b"x")
    finally:
        await client.venus.release(opened.handle)


def table() -> dict[str, int]:
    """Read the errno of each row from the documentation."""
    section = PAGE.read_text().partition("## Refused at once")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|.*?\| (E[A-Z]+) \|", section, re.MULTILINE)
    return {name: getattr(errno, number) for name, number in rows}


def test_the_table_and_the_tests_have_the_same_rows() -> None:
    assert table().keys() == ATTEMPTS.keys()


async def prepared(w: World, *, full: bool) -> Client:
    """Return alice's client: she has everything but `closed`, where she may only read."""
    await w.add_realm(FOREIGN, "10.0.0.7")
    door, a = Door(w), await w.client()
    await a.ls(ROOT)
    await a.ls(f"/{FOREIGN}")
    door.log_in(a, "alice")
    for path in ("d", "d/sub", "e", "closed"):
        await a.mkdir(f"{ROOT}/{path}")
    for path in ("f", "h1", "bobs", "closed/f"):
        await a.write(f"{ROOT}/{path}", b"x")
    await a.symlink(f"{ROOT}/l", b"x")
    await a.link(f"{ROOT}/h1", f"{ROOT}/h2")
    if full:
        await fill(a)
    await a.drained()
    close(door, (await a.look(f"{ROOT}/closed")).ino, a)
    await a.change(f"{ROOT}/bobs", uid=door.ids["bob"])
    await a.drained()
    root = a.venus.core.nodes.by_number((await a.look(ROOT)).ino)
    await MakeSymlink(a.venus.tools, ME, root, b"dangling", b"#nowhere.", mode=0o644).run()
    await until(lambda: a.pending == 0)
    return a


async def fill(client: Client) -> None:
    await client.mkdir(f"{ROOT}/full")
    for number in range(FULL):
        name = f"{number:03}{'x' * 252}"
        if number:
            await client.symlink(f"{ROOT}/full/{name}", b"x")
        else:
            await client.write(f"{ROOT}/full/{name}", b"x")


def close(door: Door, number: int, client: Client) -> None:
    """Take all rights but reading from alice; a new login asks for them again."""
    identity = client.cache.inodes.identity(number)
    assert identity is not None
    door.give(Fid(*identity[1]), "alice", Rights.READ | Rights.LOOKUP)
    door.log_in(client, "alice")


CASES = [
    pytest.param(row, online, id=f"{row}-{'connected' if online else 'disconnected'}")
    for row in ATTEMPTS
    for online in (True, False)
    if online or "full" not in row  # filling a directory takes a second; off line: test_changes.py
]


@pytest.mark.parametrize(("row", "online"), CASES)
async def test_refused_at_once_and_nothing_is_changed(
    tmp_path: Path, autojump_clock: trio.abc.Clock, row: str, online: bool
) -> None:
    async with world(tmp_path) as w:
        a = await prepared(w, full="full" in row)
        before = await tree(a)
        if not online:
            a.offline()
            await trio.sleep(60)
        with refused(table()[row]):
            await ATTEMPTS[row](a)
        assert a.pending == 0
        assert await tree(a) == before


@pytest.mark.parametrize("online", [True, False], ids=["connected", "disconnected"])
async def test_times_are_whole_seconds_at_once(
    tmp_path: Path, autojump_clock: trio.abc.Clock, online: bool
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"x")
        await a.drained()
        if not online:
            a.offline()
        attr = await a.change(f"{ROOT}/f", mtime_ns=1_600_000_000_987_654_321)
        assert attr.mtime_ns == (await a.look(f"{ROOT}/f")).mtime_ns == 1_600_000_000 * 10**9
        await a.write(f"{ROOT}/f", b"y")
        assert (await a.look(f"{ROOT}/f")).mtime_ns % 10**9 == 0
