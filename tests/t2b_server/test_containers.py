"""Every container of a batch is synced, and its name; a disk that fails is told."""

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from realmfs.server.containers import Containers, sync_containers
from realmfs.vice.errors import CodaError, Code


@pytest.mark.parametrize("count", [0, 1, 7, 30])
async def test_all_are_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    synced: Counter[str] = Counter()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.update([os.readlink(f"/proc/self/fd/{fd}")]))
    containers = Containers(tmp_path / "containers")
    made = [containers.create() for _ in range(count)]
    await sync_containers(made)
    files = {os.fspath(containers.path(one.number)) for one in made}
    assert synced == Counter({*files, *map(os.path.dirname, files)})
    for one in made:
        one.discard()


@pytest.mark.logs("the server's disk: ")
@pytest.mark.parametrize(("error", "code"), [(errno.ENOSPC, Code.ENOSPC), (errno.EIO, Code.EIO)])
async def test_one_that_cannot_be_synced_fails_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, code: Code
) -> None:
    containers = Containers(tmp_path / "containers")
    made = [containers.create() for _ in range(20)]

    def fail() -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(made[13], "sync", fail)
    with pytest.raises(CodaError) as caught:
        await sync_containers(made)
    assert caught.value.code is code
    for one in made:
        one.discard()
