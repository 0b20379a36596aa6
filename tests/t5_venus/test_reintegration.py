"""The log on its way: lost replies, dead servers, crashes, refusals, and what is written meanwhile."""

import os
import random
from pathlib import Path

import pytest
import trio

from realmfs.cache.log import State
from realmfs.venus.face import Changes
from realmfs.vice.calls import Reintegrate, SendReintFragment
from realmfs.vice.errors import Code
from realmfs.vice.log import Chmod
from tests.fakenet import Address
from tests.t5_venus.test_changes import WANTED, everything, tree
from tests.t5_venus.world import ME, REALM, Client, World, until, world

ROOT = f"/{REALM}"


class Deaf:
    """Loses what the server says to a client from the moment it has executed a Reintegrate."""

    def __init__(self, w: World, client: Client) -> None:
        self.client = client
        self.w = w
        self.lost = 0
        w.net.tap = self.tap

    def tap(self, datagram: bytes, sender: Address, receiver: Address) -> bool:
        if receiver[0] == self.client.host and self.w.realm.calls[Reintegrate.OPCODE]:
            self.lost += 1
            return False
        return True

    def over(self) -> None:
        self.w.net.tap = None


@pytest.mark.parametrize("restart_client", [False, True])
@pytest.mark.parametrize("restart_server", [False, True])
async def test_a_lost_reply_applies_nothing_twice(
    tmp_path: Path, autojump_clock: trio.abc.Clock, restart_client: bool, restart_server: bool
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        a.offline()
        await everything(a)
        records = a.pending
        a.online()
        w.realm.calls.clear()
        deaf = Deaf(w, a)
        await until(lambda: deaf.lost > 0)
        await trio.sleep(300)
        assert a.pending == records, "records left the log without a server's word"
        if restart_server:
            await w.realm.stop()
        if restart_client:
            await a.kill()
        deaf.over()
        if restart_server:
            await w.realm.start(w.nursery)
        if restart_client:
            await a.start()
        a.online()
        await a.drained(600)
        assert await tree(b) == WANTED
        assert await tree(a) == WANTED


async def test_nothing_is_lost_on_a_bad_network(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        w.net.loss, w.net.duplicates, w.net.jitter = 0.1, 0.1, 0.05
        await everything(a)
        await a.drained(3600)
        w.net.loss = w.net.duplicates = w.net.jitter = 0.0
        assert await tree(b) == WANTED
        assert await tree(a) == WANTED


async def test_an_open_file_is_sent_at_its_close(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        root = (await a.look(ROOT)).ino
        opened, attr = await a.venus.create(ME, root, b"f", 0o644, os.O_WRONLY)
        await a.venus.write(opened.handle, 0, b"half")
        await a.venus.flush(opened.handle)
        await trio.sleep(5)
        assert (await b.look(f"{ROOT}/f")).size == 0
        assert a.pending == 1
        await a.venus.write(opened.handle, 4, b" done")
        await a.venus.flush(opened.handle)
        await a.venus.release(opened.handle)
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"half done"
        assert attr.ino == (await a.look(f"{ROOT}/f")).ino


async def test_a_file_open_for_long_is_sent_all_the_same(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        root = (await a.look(ROOT)).ino
        opened, _ = await a.venus.create(ME, root, b"db", 0o644, os.O_RDWR)
        await a.venus.write(opened.handle, 0, b"committed")
        await a.venus.fsync(opened.handle, data_only=False)
        start = trio.current_time()
        before = a.venus.core.now()
        monkeypatch.setattr(a.venus.core, "now", lambda: before + trio.current_time() - start)
        await a.drained(120)
        assert await b.read(f"{ROOT}/db") == b"committed"
        await a.venus.release(opened.handle)


async def test_writing_on_while_the_store_is_on_its_way(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, latency=0.2) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"0" * 100_000)
        w.realm.calls.clear()
        await until(lambda: w.realm.calls[Reintegrate.OPCODE] > 0)
        await a.write(f"{ROOT}/f", b"1" * 50_000)
        assert await a.read(f"{ROOT}/f") == b"1" * 50_000
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"1" * 50_000
        assert await a.read(f"{ROOT}/f") == b"1" * 50_000


async def test_large_stores_go_by_handle(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(big_store=100_000), await w.client()
        contents = os.urandom(1_000_000)
        await a.write(f"{ROOT}/big", contents)
        await a.write(f"{ROOT}/small", b"x")
        await a.drained(600)
        assert w.realm.calls[SendReintFragment.OPCODE]
        assert await b.read(f"{ROOT}/big") == contents
        assert await b.read(f"{ROOT}/small") == b"x"
        w.realm.counted()
        await a.restart()
        assert await a.read(f"{ROOT}/big") == contents
        assert w.realm.counted().total() < 8


async def test_a_large_store_goes_on_after_an_interruption(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(big_store=100_000), await w.client()
        contents = os.urandom(9 << 20)
        await a.write(f"{ROOT}/big", contents)
        await until(lambda: w.realm.calls[SendReintFragment.OPCODE] >= 2)
        a.offline()
        await trio.sleep(60)
        assert a.pending == 1
        a.online()
        await a.drained(600)
        assert await b.read(f"{ROOT}/big") == contents


async def test_one_that_was_never_closed_is_not_sent_after_a_crash(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.write(f"{ROOT}/f", b"closed")
        a.offline()
        ino = (await a.look(f"{ROOT}/f")).ino
        opened = await a.venus.open(ME, ino, os.O_WRONLY)
        await a.venus.write(opened.handle, 0, b"NEVER CLOSED")
        await a.restart()
        assert [copy.number for copy in a.cache.recovered.all()] == [ino]
        assert await a.read(f"{ROOT}/f") == b"closed"
        a.online()
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"closed"


@pytest.mark.parametrize("own_servers", [True, False])
async def test_a_refused_change_is_shown_and_holds_back_what_depends_on_it_alone(
    tmp_path: Path, autojump_clock: trio.abc.Clock, own_servers: bool
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client(own_servers=own_servers)
        await a.write(f"{ROOT}/f", b"common")
        await a.drained()
        await b.read(f"{ROOT}/f")
        with b.venus.events.watch() as watcher:
            b.offline()
            await b.mkdir(f"{ROOT}/before")
            await b.write(f"{ROOT}/f", b"by b")
            await b.change(f"{ROOT}/f", mode=0o600)
            for number in range(100):
                await b.write(f"{ROOT}/after{number}", b"%d" % number)
            await a.write(f"{ROOT}/f", b"by a")
            await a.drained()
            b.online()
            await trio.sleep(30)
            lines = [event.line() for event in watcher.waiting()]
        assert any(line.startswith("ClientModifyLog::CONFLICT (local/global): ") for line in lines), lines
        (key,) = b.cache.log.volumes()
        head, *rest = b.cache.log.entries(key)
        assert head.state & State.BLOCKED
        assert head.reason == Code.EINCOMPATIBLE
        assert [entry.opcode for entry in rest] == [Chmod.OPCODE]
        assert await b.read(f"{ROOT}/f/_localcache") == b"by b"
        assert await a.read(f"{ROOT}/f") == b"by a"
        after = [f"after{number}" for number in range(100)]
        assert await a.ls(ROOT) == sorted([*after, "before", "f"])
        assert [await a.read(f"{ROOT}/{name}") for name in after] == [b"%d" % n for n in range(100)]
        assert b.venus.core.volumes.by_key(key).waiting_for == "a decision"
        await b.write(f"{ROOT}/later", b"x")
        await until(lambda: b.pending == 2)


@pytest.mark.parametrize("how", ["offline", "lost on its way", "cut off unnoticed"])
async def test_a_name_taken_meanwhile_is_found_before_it_kills_the_servers(
    tmp_path: Path, autojump_clock: trio.abc.Clock, how: str
) -> None:
    """Reference servers do not survive the roll-back of a creation (venus/certify.py)."""
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=False), await w.client()
        await a.ls(ROOT)
        if how == "offline":
            a.offline()
        elif how == "lost on its way":
            w.net.tap = lambda datagram, sender, receiver: sender[0] != a.host or not frozen(a)
        else:  # the server breaks its promise, in vain, while we ask nothing
            w.net.tap = lambda datagram, sender, receiver: a.host not in (sender[0], receiver[0])
            await b.mkdir(f"{ROOT}/same")
            await b.drained()
            w.net.tap = None
        await a.mkdir(f"{ROOT}/before")
        await a.mkdir(f"{ROOT}/same")
        if how != "cut off unnoticed":
            await until(lambda: frozen(a) == (how == "lost on its way"))
            await b.mkdir(f"{ROOT}/same")
            await b.drained()
            await trio.sleep(60)
        w.net.tap = None
        w.realm.counted()
        a.online()
        await until(lambda: a.pending == 1)
        await trio.sleep(60)
        assert w.realm.counted()[Reintegrate.OPCODE] <= 1, "for what comes before it"
        (key,) = a.cache.log.volumes()
        (entry,) = a.cache.log.entries(key)
        assert entry.state & State.BLOCKED
        assert entry.reason == Code.EEXIST
        assert await b.ls(ROOT) == ["before", "same"]


def frozen(client: Client) -> bool:
    """Tell whether anything of the client's log has been frozen for sending."""
    return any(entry.frozen for key in client.cache.log.volumes() for entry in client.cache.log.entries(key))


async def test_two_clients_fill_one_directory_at_once(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path, latency=0.01) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        await b.ls(ROOT)

        async def fill(client: Client, name: str) -> None:
            for number in range(40):
                await client.write(f"{ROOT}/{name}{number}", name.encode())
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill, a, "a")
            nursery.start_soon(fill, b, "b")
        await a.drained(600)
        await b.drained(600)
        wanted = sorted([f"a{n}" for n in range(40)] + [f"b{n}" for n in range(40)])
        assert await a.ls(ROOT) == wanted
        assert await b.ls(ROOT) == wanted
        assert await a.read(f"{ROOT}/b7") == b"b"


async def test_setattr_through_a_handle_reaches_the_servers(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        ino = await a.write(f"{ROOT}/f", b"0123456789")
        opened = await a.venus.open(ME, ino, os.O_RDWR)
        await a.venus.setattr(ME, ino, Changes(size=4), opened.handle)
        await a.venus.flush(opened.handle)
        await a.venus.release(opened.handle)
        await a.drained()
        assert await b.read(f"{ROOT}/f") == b"0123"


@pytest.mark.parametrize("seed", range(4))
async def test_killed_anywhere_it_comes_back_whole(
    tmp_path: Path, autojump_clock: trio.abc.Clock, seed: int
) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    async with world(tmp_path, latency=0.01) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        for round_ in range(5):
            for number in range(rng.randrange(1, 8)):
                await a.write(f"{ROOT}/{round_}-{number}", b"%d" % number)
                if rng.random() < 0.5:
                    await trio.sleep(rng.random() * 0.1)
            await trio.sleep(rng.random() * 0.2)
            before = await a.ls(ROOT)
            await a.restart()
            assert await a.ls(ROOT) == before
        await a.drained(600)
        assert await b.ls(ROOT) == before
        for name in before:
            assert await b.read(f"{ROOT}/{name}") == name.split("-")[1].encode()
