"""`changes.send` and `writeback` over the cache manager of a world in memory."""

from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.control import messages
from realmfs.control.messages.volumes import SetWriteback, Writeback
from realmfs.control.pending import Pending
from realmfs.control.protocol import ControlError
from realmfs.control.sending import Sending
from tests.t5_venus.conftest import no_threads
from tests.t5_venus.world import REALM, Client, until, world

__all__ = ["no_threads"]

ROOT = f"/{REALM}"


def sending(client: Client) -> Sending:
    return Sending(client.venus.core, client.venus.reintegrator)


async def states(client: Client) -> list[str]:
    """What each waiting change says of itself."""
    page = await Pending(client.venus.core, client.realms).list(messages.Changes())
    return [change.state for change in page.entries]


async def call(client: Client, method: str, params: object) -> Any:
    return await sending(client).methods()[method].run(params)


async def test_changes_wait_for_their_age_unless_they_are_sent_now(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        assert await call(a, "writeback", SetWriteback(age=3600.0)) == Writeback(3600.0, 5.0)
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
        await call(a, "writeback", SetWriteback(age=0.0))
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


async def test_a_volume_may_have_its_own_age(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(f"{ROOT}/f", b"x")
        await a.drained()
        (row,) = a.cache.volumes.all()
        volume = f"{row.name}@{REALM}"
        own = await call(a, "writeback", SetWriteback(age=600.0, volume=volume))
        assert (own.age, own.time, own.volume, own.own) == (600.0, 5.0, volume, [volume])
        assert (await call(a, "writeback", SetWriteback())).age == 0.0
        await a.restart()
        await a.mkdir(f"{ROOT}/d")
        await trio.sleep(60)
        assert a.pending == 1, "it stays in force over a restart"
        again = await call(a, "writeback", SetWriteback(volume=volume, default=True))
        assert (again.age, again.own) == (0.0, [])
        await a.drained()
        with pytest.raises(ControlError, match="no volume"):
            await call(a, "writeback", SetWriteback(age=1.0, volume="nosuch@r.test"))


async def test_synchronous_changes_are_at_the_servers_when_the_call_returns(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await call(a, "writeback", SetWriteback(age=0.0, time=0.0))
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"x")
        assert a.pending == 0
        assert await b.read(f"{ROOT}/d/f") == b"x"
        await a.rename(f"{ROOT}/d/f", f"{ROOT}/d/g")
        assert a.pending == 0
        assert await b.ls(f"{ROOT}/d") == ["g"]
        a.offline()
        await a.mkdir(f"{ROOT}/e")
        assert a.pending == 1, "without servers it ends in time, and is done"
        assert await a.ls(ROOT) == ["d", "e"]
        a.online()
        await a.drained()


async def test_nothing_goes_by_itself_while_it_is_paused(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        assert (await call(a, "writeback", SetWriteback(paused=True))).paused
        await a.write(f"{ROOT}/f", b"x")
        await a.restart()
        await trio.sleep(60)
        assert a.pending == 2
        assert await states(a) == ["paused", "paused"]
        assert await call(a, "changes.send", messages.Send()) == []
        await a.mkdir(f"{ROOT}/d")
        await trio.sleep(60)
        assert a.pending == 1
        await a.realms.disconnect()
        assert await states(a) == ["waits off line: disconnected by hand"], "for that it waits first of all"
        await a.realms.reconnect()
        await call(a, "writeback", SetWriteback(paused=False))
        await a.drained()


async def test_what_waits_says_for_what(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/d")
        await a.drained()
        await call(a, "writeback", SetWriteback(age=100.0))
        await a.mkdir(f"{ROOT}/e")
        await trio.sleep(10)
        assert await states(a) == ["waits for its age"]
        a.offline()
        await trio.sleep(300)
        assert await states(a) == ["waits for servers"]
