"""Copies of what waits, beside the cache."""

import shutil
from pathlib import Path

import pytest
import trio

from realmfs.venus import archive
from realmfs.venus.checkpoints import EVERY, Checkpoints
from tests.t5_venus.world import REALM, world

ROOT = f"/{REALM}"


async def test_what_waits_is_copied_and_the_copy_goes_with_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        a.offline()
        await a.write(f"{ROOT}/f", b"x" * 1000)
        await a.mkdir(f"{ROOT}/d")
        copies = tmp_path / "copies"
        await Checkpoints(a.venus.core, copies, every=EVERY).once()
        assert not copies.exists(), "it has not waited long"
        checkpoints = Checkpoints(a.venus.core, copies, every=0.0)
        await checkpoints.once()
        (file,) = copies.iterdir()
        assert file.name.endswith(f"@{REALM}.tar")
        assert [one.kind for one in archive.read(file)] == ["Create", "Store", "MakeDir"]
        before = file.stat().st_ino
        await checkpoints.once()
        assert file.stat().st_ino == before, "nothing has changed"
        await a.write(f"{ROOT}/g", b"more")
        await checkpoints.once()
        assert len(archive.read(file)) == 5
        a.online()
        await a.drained()
        await checkpoints.once()
        assert list(copies.iterdir()) == []


async def test_no_copy_fills_the_disk(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        a.offline()
        await a.write(f"{ROOT}/f", b"x" * 1000)
        little = shutil.disk_usage(tmp_path)._replace(free=5000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
        await Checkpoints(a.venus.core, tmp_path / "copies", every=0.0).once()
        assert not (tmp_path / "copies").exists()
