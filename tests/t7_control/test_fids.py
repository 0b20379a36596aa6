"""From a fid to a path: for whom may look there, and for what is cached."""

import errno
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.control import messages
from realmfs.control.protocol import ControlError
from realmfs.control.volumestatus import VolumeStatuses
from realmfs.venus.face import Caller
from tests.t5_venus.world import ME, REALM, Client, world

ROOT = f"/{REALM}"


async def path_of(client: Client, fid: str, realm: str = REALM) -> Any:
    caller = Caller(ME.uid, ME.gid, 0, kernel=False)
    method = VolumeStatuses(client.venus, client.venus.core).methods(caller)["path.of_fid"]
    return (await method.run(messages.FidOf(fid, realm))).path


async def test_a_fid_leads_to_where_its_object_is(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"x")
        await a.drained()
        fid = str(a.venus.core.nodes.by_number((await a.look(f"{ROOT}/d/f")).ino).fid)
        assert await path_of(a, fid) == f"{REALM}/d/f"
        for wrong, text in (("x", "is no fid"), ("1.2", "is no fid"), ("1.2.3", "not cached")):
            with pytest.raises(ControlError, match=text):
                await path_of(a, wrong)
        with pytest.raises(ControlError, match="not cached") as caught:
            await path_of(a, fid, "other.test")
        assert caught.value.number == errno.ENOENT
