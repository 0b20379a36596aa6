"""The cable is cut at every packet of a reintegration; nothing is lost, and nothing is done twice."""

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.cache.log import State
from realmfs.server import updatecalls
from realmfs.server.reintegrate import Blamed
from realmfs.vice.calls import CloseReintHandle, OpenReintHandle, Reintegrate, SendReintFragment
from realmfs.vice.errors import CodaError, Code
from tests.fakenet import Address
from tests.t5_venus.world import REALM, Client, World, until, world

ROOT = f"/{REALM}"
CUT_FOR = 20.0
MOST_PACKETS = 200
KINDS: dict[str, dict[str, Any]] = {
    "mixed": {"own_servers": True},
    "apart": {"own_servers": False},
    "handle": {"big_store": 3000},
}


class Cut:
    """Loses everything that a client sends and gets from the `at`-th datagram on."""

    def __init__(self, w: World, client: Client, at: int) -> None:
        self._host = client.host
        self._left = at
        self._net = w.net
        self.hit = False
        w.net.tap = self._tap

    def _tap(self, datagram: bytes, sender: Address, receiver: Address) -> bool:
        if self._host in (sender[0], receiver[0]):
            self._left -= 1
            self.hit |= self._left < 0
        return self._left >= 0 or self._host not in (sender[0], receiver[0])

    def over(self) -> None:
        self._net.tap = None


async def work(client: Client, top: str) -> dict[str, bytes]:
    """Log a few changes of all kinds that others will read; returns what must come of them."""
    client.venus.reintegrator.policies.default.age = 3600.0
    await client.mkdir(top)
    contents = {f"{top}/f{size}": os.urandom(size) for size in (10, 5000)}
    for path, data in contents.items():
        await client.write(path, data)
    await client.write(f"{top}/old", b"renamed")
    await client.rename(f"{top}/old", f"{top}/new")
    await client.symlink(f"{top}/link", b"f10")
    return {**contents, f"{top}/new": b"renamed"}


def send(client: Client) -> None:
    client.venus.reintegrator.policies.default.age = 0.0
    client.venus.reintegrator.wake_all()


@pytest.mark.parametrize("trouble", ["nothing", "server", "client"])
@pytest.mark.parametrize("kind", KINDS)
async def test_cut_at_every_packet(
    tmp_path: Path, autojump_clock: trio.abc.Clock, kind: str, trouble: str
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(**KINDS[kind]), await w.client()
        await a.ls(ROOT)
        step = 1 if trouble == "nothing" else 4  # restarts cost much more
        for at in range(0, MOST_PACKETS, step):
            top = f"{ROOT}/d{at}"
            wanted = await work(a, top)
            cut = Cut(w, a, at)
            send(a)
            await until(lambda: cut.hit or not a.pending)  # noqa: B023
            whole = not cut.hit
            if not whole:
                await trio.sleep(CUT_FOR)
                await restart(trouble, w, a)
            cut.over()
            a.realms.network_changed()
            await a.drained(600)
            if trouble == "server":
                await trio.sleep(60)  # b finds out by its next probe
            assert await b.ls(top) == ["f10", "f5000", "link", "new"]
            assert {path: await b.read(path) for path in wanted} == wanted, at
            assert {path: await a.read(path) for path in wanted} == wanted, at
            if whole:
                break
        assert whole, "the loop ends with a run that needed no cut"
        assert at > 8, "all packets were tried"


async def restart(trouble: str, w: World, client: Client) -> None:
    if trouble == "server":
        await w.realm.stop()
        await w.realm.start(w.nursery)
    elif trouble == "client":
        await client.restart()


@pytest.mark.parametrize("who", ["server", "client"])
async def test_a_large_store_survives_restarts(
    tmp_path: Path, autojump_clock: trio.abc.Clock, who: str
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(big_store=100_000), await w.client()
        contents = os.urandom(14 << 20)
        await a.write(f"{ROOT}/big", contents)
        await until(lambda: w.realm.calls[SendReintFragment.OPCODE] >= 3)
        await restart(who, w, a)
        sent = w.realm.calls[SendReintFragment.OPCODE]
        opened = w.realm.calls[OpenReintHandle.OPCODE]
        await a.drained(600)
        assert await b.read(f"{ROOT}/big") == contents
        if who == "client":
            assert w.realm.calls[OpenReintHandle.OPCODE] == opened, "it goes on with the handle it had"
        else:
            again = w.realm.calls[SendReintFragment.OPCODE] - sent
            assert again == 4, "the server has forgotten the handle"


async def test_the_log_goes_on_beside_a_large_store_until_it_is_closed(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.02) as w:
        a, b = await w.client(big_store=100_000), await w.client()
        contents = os.urandom(30 << 20)
        await a.write(f"{ROOT}/big", contents)
        await until(lambda: w.realm.calls[SendReintFragment.OPCODE] >= 1)
        for number in range(250):
            await a.write(f"{ROOT}/small{number}", b"%d" % number)
        await until(lambda: a.pending == 1)
        assert not w.realm.calls[CloseReintHandle.OPCODE], "500 records overtook the large store"
        assert await b.read(f"{ROOT}/small249") == b"249"
        await a.drained(600)
        assert await b.read(f"{ROOT}/big") == contents
        assert await b.read(f"{ROOT}/small0") == b"0"


async def test_a_newer_store_ends_the_upload_of_the_old(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.02) as w:
        a, b = await w.client(big_store=100_000), await w.client()
        await a.write(f"{ROOT}/big", os.urandom(30 << 20))
        await until(lambda: w.realm.calls[SendReintFragment.OPCODE] >= 1)
        await a.write(f"{ROOT}/big", b"small now")
        await a.drained(600)
        assert w.realm.calls[SendReintFragment.OPCODE] < 7
        assert not w.realm.calls[CloseReintHandle.OPCODE]
        assert await b.read(f"{ROOT}/big") == b"small now"


@pytest.mark.logs("contents that were to be sent are lost")
@pytest.mark.parametrize("size", [10, 5000])
async def test_a_store_whose_contents_are_lost_waits_alone(
    tmp_path: Path, autojump_clock: trio.abc.Clock, size: int
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(big_store=3000), await w.client()
        await a.write(f"{ROOT}/f", b"")
        await a.drained()
        a.venus.reintegrator.policies.default.age = 3600.0
        await a.write(f"{ROOT}/f", os.urandom(size))
        (key,) = a.cache.log.volumes()
        (entry,) = a.cache.log.entries(key)
        assert entry.container is not None
        a.cache.containers.path(entry.container).unlink()
        await a.mkdir(f"{ROOT}/d")
        a.venus.core.nodes.by_number(entry.about[0][0]).container = None
        send(a)
        await until(lambda: a.pending == 1)
        (entry,) = a.cache.log.entries(key)
        assert entry.state is State.BLOCKED
        assert await b.ls(ROOT) == ["d", "f"]


async def test_new_records_do_not_end_a_back_off(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise Blamed(CodaError(Code.EWOULDBLOCK), -1)

    async with world(tmp_path) as w:
        a = await w.client()
        await a.ls(ROOT)
        with monkeypatch.context() as patch:
            patch.setattr(updatecalls, "execute", busy)
            await a.mkdir(f"{ROOT}/d0")
            await trio.sleep(60)
            w.realm.calls.clear()
            for number in range(1, 50):
                await a.mkdir(f"{ROOT}/d{number}")
                await trio.sleep(0.2)
            assert w.realm.calls[Reintegrate.OPCODE] <= 2
        await a.drained(600)
