"""The real client on an embedded group: with all servers, with one, after their return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from realmfs.venus.settings import VenusSettings
from tests.fakenet import FakeNetwork
from tests.group import REALM, Servers
from tests.t5_venus.world import LIMITS, Client

EVERYBODY = (1, 2, 3)
Clock = trio.abc.Clock
HOME = f"/{REALM}"


class GroupWorld:
    """What a client of tests/t5_venus/world.py needs of a world, with a group of servers in it."""

    def __init__(self, directory: Path, net: FakeNetwork, nursery: trio.Nursery, servers: Servers) -> None:
        self.directory = directory
        self.net = net
        self.nursery = nursery
        self.servers = servers
        self.realms_file = directory / "realms"
        self.realms_file.write_text(servers.realms_line)
        self._count = 0

    async def client(self) -> Client:
        """Start a client with an empty cache."""
        self._count += 1
        directory = self.directory / f"client{self._count}"
        directory.mkdir()
        settings = VenusSettings(own_servers=True)
        client = Client(self, f"10.0.1.{self._count}", directory, LIMITS, settings)  # type: ignore[arg-type]  # all it needs
        return await client.start()


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[GroupWorld]:
    """Run three servers."""
    net = FakeNetwork(seed=1, latency=0.001)
    servers = Servers(directory, net, 3)
    async with trio.open_nursery() as nursery:
        for number in servers.numbers:
            await servers.start(number, nursery)
        await servers.settled()
        yield GroupWorld(directory, net, nursery, servers)
        nursery.cancel_scope.cancel()
    for store in servers.stores.values():
        store.close()


async def test_a_client_works_on_a_group(tmp_path: Path, autojump_clock: Clock) -> None:
    async with world(tmp_path) as made:
        ann, bob = await made.client(), await made.client()
        await ann.mkdir(f"{HOME}/dir")
        for number in range(20):
            await ann.write(f"{HOME}/dir/file{number}", b"contents %d" % number)
        await ann.drained()
        assert len(await bob.ls(f"{HOME}/dir")) == 20
        assert await bob.read(f"{HOME}/dir/file7") == b"contents 7"
        await bob.write(f"{HOME}/dir/file7", b"changed")
        await bob.rename(f"{HOME}/dir/file8", f"{HOME}/moved")
        await bob.unlink(f"{HOME}/dir/file9")
        await bob.drained()
        await trio.sleep(30)
        assert await ann.read(f"{HOME}/dir/file7") == b"changed"
        await made.servers.settled()
        made.servers.assert_equal()


@pytest.mark.parametrize("down", [(1,), (2,), (3,), (1, 2), (2, 3)])
async def test_a_client_goes_on_with_servers_down(
    tmp_path: Path, autojump_clock: Clock, down: tuple[int, ...]
) -> None:
    async with world(tmp_path) as made:
        ann = await made.client()
        await ann.mkdir(f"{HOME}/dir")
        await ann.write(f"{HOME}/dir/old", b"old")
        await ann.drained()
        for number in down:
            await made.servers.stop(number)
        await ann.write(f"{HOME}/dir/new", b"new")
        await ann.write(f"{HOME}/dir/old", b"written again")
        await ann.mkdir(f"{HOME}/more")
        await ann.drained()
        bob = await made.client()
        assert await bob.ls(f"{HOME}/dir") == ["new", "old"]
        assert await bob.read(f"{HOME}/dir/old") == b"written again"
        for number in down:
            await made.servers.start(number, made.nursery)
        await trio.sleep(60)
        await made.servers.settled()
        made.servers.assert_equal()
        assert await ann.read(f"{HOME}/dir/new") == b"new"
        await ann.write(f"{HOME}/dir/last", b"last")
        await ann.drained()
        await trio.sleep(60)
        await made.servers.settled()
        made.servers.assert_equal()


async def test_a_client_goes_on_while_a_lost_disk_is_filled(tmp_path: Path, autojump_clock: Clock) -> None:
    async with world(tmp_path) as made:
        ann = await made.client()
        for number in range(10):
            await ann.mkdir(f"{HOME}/dir{number}")
            await ann.write(f"{HOME}/dir{number}/file", b"%d" % number * 3000)
        await ann.drained()
        await made.servers.stop(2)
        made.servers.lose_disk(2)
        await made.servers.start(2, made.nursery)
        for number in range(10):
            await ann.write(f"{HOME}/dir{number}/file", b"%d" % number * 2000)
        await ann.drained()
        await trio.sleep(90)
        await made.servers.settled()
        made.servers.assert_equal()
        bob = await made.client()
        assert await bob.read(f"{HOME}/dir4/file") == b"4" * 2000
