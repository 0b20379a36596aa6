"""`changes.send` and `writeback` over the cache manager of a world in memory."""

from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.control import messages
from realmfs.control.protocol import ControlError
from realmfs.control.sending import Sending
from tests.t5_venus.conftest import no_threads
from tests.t5_venus.world import REALM, Client, until, world

__all__ = ["no_threads"]

ROOT = f"/{REALM}"


def sending(client: Client) -> Sending:
    return Sending(client.venus.core, client.venus.reintegrator)


async def call(client: Client, method: str, params: object) -> Any:
    return await sending(client).methods()[method].run(params)


async def test_changes_wait_for_their_age_unless_they_are_sent_now(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        assert await call(a, "writeback", messages.Writeback(age=3600.0)) == messages.Writeback(3600.0, 5.0)
        await a.write(f"{ROOT}/f", b"x")
        await trio.sleep(60)
        assert a.pending == 2
        assert await b.ls(ROOT) == []
        assert await call(a, "changes.send", messages.Send()) == []
        assert a.pending == 0
        assert await b.read(f"{ROOT}/f") == b"x"
        await a.mkdir(f"{ROOT}/d")
        await a.restart()
        await trio.sleep(60)
        assert a.pending == 1, "it stays in force over a restart"
        await call(a, "writeback", messages.Writeback(age=0.0))
        await a.drained()


async def test_what_is_left_is_told_with_its_reason(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"common")
        await a.drained()
        await b.read(f"{ROOT}/f")
        b.offline()
        await b.write(f"{ROOT}/f", b"by b")
        await trio.sleep(60)
        (left,) = await call(b, "changes.send", messages.Send(within=20.0))
        assert (left.pending, left.bytes > 4, left.waits_for) == (1, True, "servers")
        await a.write(f"{ROOT}/f", b"by a")
        await a.drained()
        b.online()
        await until(lambda: b.venus.core.volumes.by_key(b.cache.log.volumes()[0]).waiting_for == "a decision")
        (left,) = await call(b, "changes.send", messages.Send(f"{left.volume}@{REALM}"))
        assert left.waits_for == "a decision"
        (left,) = await call(b, "changes.send", messages.Send(retry=True))
        assert left.waits_for == "a decision"
        with pytest.raises(ControlError, match="no volume"):
            await call(b, "changes.send", messages.Send("nosuch@r.test"))
