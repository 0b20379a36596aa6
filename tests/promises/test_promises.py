"""The seven promises by name: of each the decisive check, in small.

Where the long ones are: docs/explanation/promises.md.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trio

from realmfs.venus.face import Caller
from realmfs.venus.settings import VenusSettings
from realmfs.vice.errors import CodaError
from tests.promises.site import ROOT, site
from tests.quirks import Quirk
from tests.t5_venus.test_changes import tree
from tests.t5_venus.world import ME

Clock = trio.abc.Clock
DOCS = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "promises.md"


async def test_promise_1_nothing_acknowledged_is_lost(tmp_path: Path, autojump_clock: Clock) -> None:
    """At length: test_soak, test_kills, test_power_loss, test_disks."""
    async with site(tmp_path) as where:
        client = await where.client()
        await tree(client, ROOT)
        client.offline()
        await client.mkdir(f"{ROOT}/d")
        await client.write(f"{ROOT}/d/f", b"acknowledged")
        await client.restart()
        client.offline()
        assert await client.read(f"{ROOT}/d/f") == b"acknowledged"
        client.online()
        await client.drained()
        other = await where.client()
        assert await tree(other, ROOT) == {"d": {"f": (b"acknowledged", 1, 0o644)}}
        assert not where.servers.executed_twice()


async def test_promise_2_never_hang(tmp_path: Path, autojump_clock: Clock) -> None:
    """At length: test_never_hang. Here the cable is cut in the middle of a fetch."""
    async with site(tmp_path) as where:
        maker, client = await where.client(), await where.client()
        await maker.write(f"{ROOT}/big", b"x" * 3_000_000)
        await maker.drained()
        attr = await client.look(f"{ROOT}/big")
        opened = await client.venus.open(ME, attr.ino, os.O_RDONLY)
        client.offline()
        began = trio.current_time()
        with pytest.raises(CodaError):
            await client.venus.read(opened.handle, 2_900_000, 100_000)
        assert trio.current_time() - began <= VenusSettings().patience + 0.5
        await client.venus.release(opened.handle)
        client.online()
        await trio.sleep(5)  # a request that comes before may join the fetch that has just failed
        assert len(await client.read(f"{ROOT}/big")) == 3_000_000


async def test_promise_3_start_without_a_network(tmp_path: Path, autojump_clock: Clock) -> None:
    """With 100 000 objects and a real mount: tests/t8_cli_tui/test_start_offline.py."""
    async with site(tmp_path) as where:
        client = await where.client()
        await client.write(f"{ROOT}/f", b"cached")
        await client.drained()
        await client.kill()
        where.net.partition(client.host)
        began = trio.current_time()
        await client.start()
        assert trio.current_time() - began < 1
        assert await client.ls("/") == [ROOT[1:]]
        assert await client.read(f"{ROOT}/f") == b"cached"


async def test_promise_4_session_semantics(tmp_path: Path, autojump_clock: Clock) -> None:
    async with site(tmp_path) as where:
        ann, bob = await where.client(), await where.client()
        await ann.write(f"{ROOT}/f", b"one")
        await ann.drained()
        assert await bob.read(f"{ROOT}/f") == b"one"
        await ann.write(f"{ROOT}/f", b"two")
        assert await ann.read(f"{ROOT}/f") == b"two", "here at once"
        await ann.drained()
        await trio.sleep(0.1)
        assert await bob.read(f"{ROOT}/f") == b"two", "elsewhere with its callback"
        bob.offline()
        await ann.write(f"{ROOT}/f", b"three")
        await ann.drained()
        bob.online()
        await trio.sleep(30)
        assert await bob.read(f"{ROOT}/f") == b"three", "in any case with the next probe"


@pytest.mark.logs(".")
async def test_promise_5_replicas_never_split_silently(tmp_path: Path, autojump_clock: Clock) -> None:
    """Two write to the same file, each to another server: both versions are there to be seen."""
    async with site(tmp_path, count=2) as where:
        ann, bob = await where.client(), await where.client()
        await ann.write(f"{ROOT}/f", b"before")
        await ann.drained()
        assert await bob.read(f"{ROOT}/f") == b"before"
        where.net.partition(ann.host, "10.0.0.2")
        where.net.partition(bob.host, "10.0.0.1")
        where.net.partition("10.0.0.1", "10.0.0.2")
        await trio.sleep(60)
        await ann.write(f"{ROOT}/f", b"ann's")
        await bob.write(f"{ROOT}/f", b"bob's")
        await ann.drained(300)
        await bob.drained(300)
        where.net.heal()
        for client in (ann, bob):
            client.realms.network_changed()
        await trio.sleep(120)
        seen = await tree(await where.client(), ROOT)
        assert "ann's" in str(seen)
        assert "bob's" in str(seen), "neither side is overwritten"


async def test_promise_6_nobody_gets_in(tmp_path: Path, autojump_clock: Clock) -> None:
    """Noise from the network ends nothing but itself. At length: t2_rpc2, t2b_server/test_hostile."""
    async with site(tmp_path) as where:
        client = await where.client()
        await client.write(f"{ROOT}/f", b"ours")
        await client.drained()
        noise = where.net.transport(("10.9.9.9", 1))
        targets = [("10.0.0.1", 2432), *(place for place in where.net._ports if place[0] == client.host)]
        for target in targets:
            for size in (0, 1, 8, 60, 200, 1400):
                for seed in range(20):
                    noise.send([bytes([0, 0, 0, 8 if seed % 2 else 3])[:size] + os.urandom(size)], target)
        await trio.sleep(1)
        assert await client.read(f"{ROOT}/f") == b"ours"
        await client.write(f"{ROOT}/f", b"still ours")
        await client.drained()


async def test_promise_7_everything_waiting_is_visible(tmp_path: Path, autojump_clock: Clock) -> None:
    async with site(tmp_path) as where:
        client = await where.client()
        await tree(client, ROOT)
        client.offline()
        await trio.sleep(60)
        caller = Caller(1000, 1000, 0)
        await client.write(f"{ROOT}/f", b"x" * 1000, caller)
        await trio.sleep(30)
        entries = [e for key in client.cache.log.volumes() for e in client.cache.log.entries(key)]
        assert len(entries) == client.pending == 2
        assert {entry.uid for entry in entries} == {1000}, "its owner"
        assert max(entry.length for entry in entries) == 1000, "its size"
        assert all(entry.time for entry in entries), "its age"
        (summary,) = [client.cache.log.summary(key) for key in client.cache.log.volumes()]
        assert summary.records == 2
        assert summary.bytes >= 1000


def test_the_table_of_habits_is_complete() -> None:
    told = dict(re.findall(r"^\| `([A-Z_]+)` \|.*\| ([^|]+) \|$", DOCS.read_text(), re.MULTILINE))
    assert told == {quirk.name: quirk.value for quirk in Quirk}
