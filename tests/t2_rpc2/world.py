"""Two endpoints on a network in memory, and a service that does what its opcode says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.parameters import Limits, SftpParameters, Timers
from realmfs.rpc2.service import (
    ANONYMOUS,
    BindOffer,
    Credentials,
    Level,
    Reply,
    Request,
    ServerConnection,
    Transport,
)
from realmfs.rpc2.transfer import BytesSink, BytesSource
from tests.fakenet import FakeNetwork

SUBSYSTEM = 1001
CLIENT = ("10.0.0.1", 5000)
SERVER = ("10.0.0.2", 2432)
SECRET = b"8 bytes!"
USER = Credentials(Level.AUTHONLY, b"alice", SECRET, 1)

ECHO, FETCH, STORE, SLEEP, FAIL, BAD, STATUS_ONLY, CODE, BACK = range(1, 10)


def pattern(size: int, seed: int = 7) -> bytes:
    """Return bytes in which every place is recognisable."""
    return random.Random(seed).randbytes(size)


def number(value: int) -> bytes:
    """Return a body of one word."""
    return value.to_bytes(4, "big")


class Desk:
    """A service; counts how often each body was served."""

    def __init__(self) -> None:
        self.served: Counter[tuple[int, bytes]] = Counter()
        self.stored: list[bytes] = []
        self.offers: list[BindOffer] = []
        self.welcomed: list[ServerConnection] = []
        self.parted: list[ServerConnection] = []
        self.running = 0
        self.limit = 1 << 30
        self.back: Endpoint | None = None

    def secret(self, offer: BindOffer) -> bytes | None:
        self.offers.append(offer)
        if offer.level == Level.OPENKIMONO:
            return bytes(8)
        return SECRET if offer.ident == b"alice" else None

    async def connected(self, connection: ServerConnection) -> None:
        await trio.lowlevel.checkpoint()
        self.welcomed.append(connection)

    def closed(self, connection: ServerConnection) -> None:
        self.parted.append(connection)

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        self.served[request.opcode, request.body] += 1
        self.running += 1
        try:
            return await self._call(connection, request)
        finally:
            self.running -= 1

    async def _call(self, connection: ServerConnection, request: Request) -> Reply:
        argument = int.from_bytes(request.body[:4], "big")
        match request.opcode:
            case 1:
                return Reply(0, request.body)
            case 2:
                await request.send(BytesSource(pattern(argument)))
                return Reply(0, b"sent")
            case 3:
                sink = BytesSink()
                size = await request.receive(sink, self.limit)
                self.stored.append(sink.data)
                return Reply(0, number(size))
            case 4:
                await trio.sleep(argument / 1000)
                return Reply(0, b"slept")
            case 5:
                raise RuntimeError("on purpose")
            case 6:
                from realmfs.rpc2.marshal import Unpacker

                Unpacker(b"").u32()
                raise AssertionError
            case 7:
                return Reply(0, b"no file today")
            case 8:
                return Reply(argument - (1 << 32) if argument >> 31 else argument, b"")
            case _:
                assert self.back is not None
                back = await self.back.bind(connection.peer, SUBSYSTEM + 1, ANONYMOUS)
                return await back.call(ECHO, b"called back")


class World:
    """A client and a server that run."""

    def __init__(self, net: FakeNetwork, client: Endpoint, server: Endpoint, desk: Desk) -> None:
        self.net = net
        self.client = client
        self.server = server
        self.desk = desk

    async def bind(
        self, credentials: Credentials = USER, subsystem: int = SUBSYSTEM, **more: Any
    ) -> Connection:
        return await self.client.bind(SERVER, subsystem, credentials, **more)


def endpoint(
    transport: Transport,
    *,
    seed: int = 1,
    sftp: SftpParameters | None = None,
    timers: Timers | None = None,
    limits: Limits | None = None,
) -> Endpoint:
    """Return an endpoint whose handles, keys and counters are the same every time."""
    return Endpoint(transport, sftp=sftp, timers=timers, limits=limits, rng=random.Random(seed))


@asynccontextmanager
async def world(
    net: FakeNetwork | None = None,
    *,
    client_sftp: SftpParameters | None = None,
    server_sftp: SftpParameters | None = None,
    timers: Timers | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[World]:
    """Run a client and a server with one service."""
    net = net or FakeNetwork(latency=0.001)
    client = endpoint(net.transport(CLIENT), seed=1, sftp=client_sftp, timers=timers)
    server = endpoint(net.transport(SERVER), seed=2, sftp=server_sftp, timers=timers, limits=limits)
    desk = Desk()
    desk.back = server
    server.serve(SUBSYSTEM, desk)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await nursery.start(server.run)
        yield World(net, client, server, desk)
        nursery.cancel_scope.cancel()
