"""The real client on an embedded group: with all servers, with one, after their return."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from realmfs.rpc2.service import Reply, Request, ServerConnection
from realmfs.venus.settings import VenusSettings
from realmfs.venus.volume import VolumeState
from realmfs.vice.calls import (
    Cop2,
    Fetch,
    GetAttr,
    GetTime,
    NewConnectFS,
    TokenExpired,
    ValidateAttrs,
    ValidateVols,
)
from realmfs.vice.types import Fid
from tests.fakenet import FakeNetwork
from tests.group import ALL, REALM, Servers
from tests.t5_venus.world import LIMITS, ME, Client

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

    async def client(self, *, own_servers: bool = True) -> Client:
        """Start a client with an empty cache."""
        self._count += 1
        directory = self.directory / f"client{self._count}"
        directory.mkdir()
        settings = VenusSettings(own_servers=own_servers)
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


VOLUMES = 20
OBJECTS = int(os.environ.get("RAPID_TEST_OBJECTS", "25"))
"""In each volume. What is counted does not depend on it; 500 make the ten thousand that were promised."""


def counting(servers: Servers) -> dict[int, Counter[int]]:
    """Count the calls that each server gets from now on, but for probes and introductions."""
    counts: dict[int, Counter[int]] = {}
    for number, server in servers.running.items():
        calls = counts[number] = Counter[int]()
        serve = server.call

        async def call(
            connection: ServerConnection,
            request: Request,
            calls: Counter[int] = calls,
            serve: Callable[[ServerConnection, Request], Awaitable[Reply]] = serve,
        ) -> Reply:
            if request.opcode not in (GetTime.OPCODE, NewConnectFS.OPCODE, TokenExpired.OPCODE, Cop2.OPCODE):
                calls[request.opcode] += 1
            return await serve(connection, request)

        server.call = call  # type: ignore[method-assign]  # a look over its shoulder
    return counts


async def fill(made: GroupWorld) -> list[str]:
    """Make volumes with files in them; returns their names."""
    names = [f"v{number}" for number in range(VOLUMES)]
    store = made.servers.stores[1]
    ids = [store.create_volume(name, anyuser=ALL, servers=EVERYBODY).group_id for name in names]
    await trio.sleep(60)
    await made.servers.settled()
    raw = await made.servers.client(made.nursery)
    for volume in ids:
        raw.volume, raw.root = volume, Fid.root(volume)
        raw._fids.clear()
        fids = [await raw.new_fid() for _ in range(OBJECTS)]
        for start in range(0, OBJECTS, 40):
            records = [raw.create(b"f%d" % n, fids[n]) for n in range(start, min(start + 40, OBJECTS))]
            await raw.update(records, EVERYBODY)
    return names


async def look_at_all(ann: Client, volumes: list[VolumeState]) -> int:
    """Have the status of every object; returns how many there are."""
    seen = 0
    for volume in volumes:
        root = ann.venus.core.nodes.get(volume, volume.root)
        await ann.venus.getattr(ME, root.ino)
        for number in range(OBJECTS):
            attr = await ann.venus.lookup(ME, root.ino, b"f%d" % number)
            assert attr.ino
            seen += 1
        assert all(node.valid for node in volume.in_memory() if node.stored)
    return seen


async def test_a_return_costs_one_call_for_all_volumes(tmp_path: Path, autojump_clock: Clock) -> None:
    async with world(tmp_path) as made:
        names = await fill(made)
        ann = await made.client()
        await ann.ls(HOME)
        volumes = [await ann.venus.core.volumes.named(REALM, name) for name in names]
        assert await look_at_all(ann, volumes) == VOLUMES * OBJECTS
        for volume in volumes:
            assert await ann.venus.hoard.stamps.gain(volume, ME.uid)
        for again in ("reconnected", "restarted"):
            if again == "reconnected":
                await ann.realms.disconnect()
                await trio.sleep(10)
                counts = counting(made.servers)
                await ann.realms.reconnect()
                await trio.sleep(2)
            else:
                await ann.restart()
                await ann.ls(HOME)  # of the root volume, which has no stamps: there is too little in it
                counts = counting(made.servers)
                volumes = [await ann.venus.core.volumes.named(REALM, name) for name in names]
            assert await look_at_all(ann, volumes) == VOLUMES * OBJECTS
            for calls in counts.values():
                assert calls[ValidateVols.OPCODE] == 1, again
                assert not calls[ValidateAttrs.OPCODE], again
                assert not calls[GetAttr.OPCODE], again
                assert not calls[Fetch.OPCODE], again
        made.servers.assert_equal(name=names[3])


async def test_what_has_changed_meanwhile_is_seen(tmp_path: Path, autojump_clock: Clock) -> None:
    async with world(tmp_path) as made:
        ann, bob = await made.client(), await made.client()
        for number in range(5):
            await ann.write(f"{HOME}/file{number}", b"old")
        await ann.drained()
        assert [await bob.read(f"{HOME}/file{number}") for number in range(5)] == [b"old"] * 5
        (volume,) = (one for one in bob.venus.core.volumes if one.key)
        assert await bob.venus.hoard.stamps.gain(volume, ME.uid)
        await bob.realms.disconnect()
        await ann.write(f"{HOME}/file3", b"new")
        await ann.drained()
        await bob.realms.reconnect()
        await trio.sleep(2)
        assert [await bob.read(f"{HOME}/file{n}") for n in range(5)] == [b"old"] * 3 + [b"new", b"old"]
        assert not bob.venus.hoard.stamps.hold(volume)
