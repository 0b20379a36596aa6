"""`changes.list`: every waiting change, with the whole path of what it is about."""

from pathlib import Path

import trio

from realmfs.control import messages
from realmfs.control.pending import Pending
from tests.t5_venus.world import REALM, world

ROOT = f"/{REALM}"


async def test_changes_are_listed_with_their_paths(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        client = await w.client()
        await client.mkdir(f"{ROOT}/old")
        await client.write(f"{ROOT}/old/changed", b"1")
        await client.write(f"{ROOT}/old/lost", b"2")
        await client.drained()
        client.offline()
        await client.mkdir(f"{ROOT}/new")
        await client.write(f"{ROOT}/new/made", b"3")
        await client.write(f"{ROOT}/old/changed", b"changed")
        await client.change(f"{ROOT}/old", mode=0o700)
        await client.unlink(f"{ROOT}/old/lost")
        await client.rename(f"{ROOT}/old/changed", f"{ROOT}/new/moved")
        await client.symlink(f"{ROOT}/link", b"new")
        page = await Pending(client.venus.core, client.realms).list(messages.Changes())
    shown = [(one.what, one.path.replace(REALM, "R")) for one in page.entries]
    assert shown == [
        ("makedir", "R/new"),
        ("create", "R/new/made"),
        ("store", "R/new/made"),
        ("store", "R/new/moved"),
        ("chmod", "R/old"),
        ("remove", "R/old/lost"),
        ("rename", "R/old/changed -> R/new/moved"),
        ("symlink", "R/link"),
    ]
