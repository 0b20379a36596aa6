"""What is lost of the containers after power loss, and what nevertheless stands."""

import os
from pathlib import Path

import pytest
import trio

from realmfs.cache import disk
from tests.t5_venus.world import ME, REALM, world

ROOT = f"/{REALM}"


async def test_a_new_file_with_nothing_in_it_needs_no_container(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record says all there is to say: it was not synced, is forgotten, and reads as empty."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        a.offline()
        above = (await a.look(ROOT)).ino
        opened, _ = await a.venus.create(ME, above, b"new", 0o644, os.O_WRONLY)
        await a.venus.release(opened.handle)
        await a.kill()
        for container in (a.directory / "cache" / "containers").rglob("*"):
            if container.is_file():
                container.unlink()
        monkeypatch.setattr(disk, "boot_id", lambda: "another boot")
        await a.start()
        a.offline()
        assert await a.read(f"{ROOT}/new") == b""
        await a.write(f"{ROOT}/new", b"contents")
        a.online()
        await a.drained()
        assert await b.read(f"{ROOT}/new") == b"contents"
