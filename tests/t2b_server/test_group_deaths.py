"""Three servers as processes, of which some die, and the whole client: its user does not notice."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from realmfs.cache.limits import Limits
from realmfs.realms.server import State
from realmfs.rpc2.endpoint import udp_transport
from realmfs.venus.settings import VenusSettings
from tests.t2b_server.test_processes import EVERYBODY, REALM, Processes, processes, within
from tests.t5_venus.world import ME, Client

__all__ = ["processes"]

SIZE = 40 << 20
STALL = 3.0
HOME = f"/{REALM}"
LIMITS = Limits(bytes=1 << 30, objects=5000, log_records=5000, reserve=0)


class Clients:
    """Makes clients of servers that are processes."""

    def __init__(self, directory: Path, servers: Processes, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._nursery = nursery
        self._numbers = itertools.count(1)
        self.realms_file = directory / "realms"
        places = " ".join(f"{host}:{port}" for host, port in servers.places.values())
        self.realms_file.write_text(f"{REALM} {places}\n")

    async def client(self) -> Client:
        """Start a client with an empty cache."""
        directory = self._directory / f"client{next(self._numbers)}"
        directory.mkdir()
        transport = await udp_transport(("127.0.0.1", 0))
        net = SimpleNamespace(transport=lambda _: transport)
        place = SimpleNamespace(net=net, realms_file=self.realms_file, nursery=self._nursery)
        return await Client(place, "127.0.0.1", directory, LIMITS, VenusSettings(own_servers=True)).start()  # type: ignore[arg-type]  # all it needs


@asynccontextmanager
async def clients(directory: Path, servers: Processes) -> AsyncIterator[Clients]:
    await within(30, servers, servers.online)
    async with trio.open_nursery() as nursery:
        yield Clients(directory, servers, nursery)
        nursery.cancel_scope.cancel()


def primary(client: Client) -> int:
    """The number of the server that data comes from; they are told apart by their slots."""
    (volume,) = (one for one in client.venus.core.volumes if one.key and one.place)
    assert volume.place is not None
    return volume.place.group.core._primary + 1


def up(client: Client) -> int:
    return sum(server.state is State.UP for server in client.realms.servers())


async def copy(client: Client, path: str, servers: Processes) -> tuple[bytes, float, int]:
    """Read a file, kill its sender in the middle; return data, longest stall, and who it was."""
    attr = await client.look(path)
    opened = await client.venus.open(ME, attr.ino, os.O_RDONLY)
    data, longest, killed = bytearray(), 0.0, 0
    last = time.monotonic()
    while chunk := await client.venus.read(opened.handle, len(data), 1 << 17):
        longest = max(longest, time.monotonic() - last)
        data += bytes(chunk)
        if not killed and len(data) >= SIZE * 0.03:
            killed = primary(client)
            servers.kill(killed)
            content = client.venus.core.nodes.by_number(attr.ino).content
            print(f"{content.present.total / SIZE if content else 1:.0%} had come when the server was killed")
            assert content is not None
            assert content.present.total < SIZE
        last = time.monotonic()
    await client.venus.release(opened.handle)
    return bytes(data), longest, killed


@pytest.mark.timeout(120)
async def test_nobody_notices_the_death_of_the_server_that_sends(
    tmp_path: Path, processes: Processes
) -> None:
    data = random.Random(30).randbytes(SIZE)
    async with clients(tmp_path, processes) as made:
        ann = await made.client()
        await ann.write(f"{HOME}/big", data)
        await ann.drained(60)
        for slot in range(len(EVERYBODY)):
            bob = await made.client()
            await bob.ls(HOME)
            (volume,) = (one for one in bob.venus.core.volumes if one.key and one.place)
            assert volume.place is not None
            volume.place.group.core.prefer(slot)
            found, stall, killed = await copy(bob, f"{HOME}/big", processes)
            print(f"server {killed} was killed in mid-file: the longest stall was {stall:.2f} s")
            assert killed == slot + 1
            assert found == data
            assert stall < STALL
            await bob.kill()
            processes.start(killed)
            await within(30, processes, processes.equal)


@pytest.mark.timeout(120)
async def test_one_server_of_three_is_enough(tmp_path: Path, processes: Processes) -> None:
    async with clients(tmp_path, processes) as made:
        ann = await made.client()
        await ann.mkdir(f"{HOME}/dir")
        for number in range(5):
            await ann.write(f"{HOME}/dir/old{number}", b"old" * 1000)
        await ann.drained()
        for left in (3, 1):
            for number in EVERYBODY:
                if number != left:
                    processes.kill(number)
            start = time.monotonic()
            assert await ann.read(f"{HOME}/dir/old2") == b"old" * 1000
            await ann.write(f"{HOME}/dir/old3", b"written at %d alone" % left)
            await ann.write(f"{HOME}/dir/new{left}", os.urandom(30_000))
            await ann.drained()
            print(f"server {left} alone: read, written and sent in {time.monotonic() - start:.1f} s")
            for number in EVERYBODY:
                if number != left:
                    processes.start(number)
            seconds = await within(40, processes, lambda: up(ann) == len(EVERYBODY))
            print(f"all are up for the client {seconds:.1f} s after their start")
            seconds = await within(60, processes, processes.equal)
            print(f"and equal {seconds:.1f} s later")
            assert await ann.read(f"{HOME}/dir/old3") == b"written at %d alone" % left
