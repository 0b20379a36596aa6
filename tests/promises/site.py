"""A realm with habits: servers that die and come back, and a client that lives several lives."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from realmfs.cache.limits import Limits
from realmfs.rpc2.endpoint import Endpoint
from realmfs.venus.face import FileSystem
from realmfs.venus.settings import VenusSettings
from realmfs.vice.types import StoreId
from tests.fakenet import FakeNetwork
from tests.group import REALM, Servers, address
from tests.promises.crashes import CrashPoints
from tests.quirks import Quirks, QuirkyServer
from tests.t5_venus.world import LIMITS, Client

ROOT = f"/{REALM}"
GRACE = 0.5
"""Seconds beyond the patience that a call may take: what the clock of a test shows is exact."""
CALLS = frozenset(name for name in vars(FileSystem) if not name.startswith("_")) - {"remember", "forget"}


class HungError(AssertionError):
    """A call of the face has not ended within the patience."""


class Limited:
    """A cache manager each of whose calls must end within its patience."""

    def __init__(self, venus: Any) -> None:
        self._venus = venus
        self._limit = venus.settings.patience + GRACE

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._venus, name)
        if name not in CALLS:
            return call

        async def limited(*arguments: Any, **options: Any) -> Any:
            with trio.move_on_after(self._limit):
                return await call(*arguments, **options)
            raise HungError(f"{name}{arguments[:4]} took more than {self._limit} s")

        return limited


class MortalClient(Client):
    """A client that may die at a crash point; `restart` begins its next life."""

    points: CrashPoints | None = None

    async def start(self) -> MortalClient:
        """Start on what there is on the disk."""
        if self.points is not None:
            self.points.watch(self.host, self.directory)
            self.points.killed = self._die
        await super().start()
        self.venus = Limited(self.venus)  # type: ignore[assignment]  # it has all that is asked of it here
        return self

    def _die(self) -> None:
        self._scope.cancel()

    async def die_and_rise(self) -> None:
        """Begin the next life on what the crash has left."""
        assert self.points is not None
        await self.kill()
        self.directory = self.points.copy
        await self.start()

    async def kill(self) -> None:
        """Stop; what is done on the way out stays where the next life does not look, if `points` crashed."""
        await super().kill()


class QuirkyServers(Servers):
    """Servers with habits. One that dies is started again by a janitor, some seconds later."""

    def __init__(self, directory: Path, net: FakeNetwork, count: int, quirks: Quirks) -> None:
        super().__init__(directory, net, count)
        self.quirks = quirks
        self.executed: dict[int, dict[StoreId, int]] = {number: {} for number in self.numbers}
        self.deaths = 0
        self._dead: set[int] = set()

    async def start(self, number: int, nursery: trio.Nursery) -> QuirkyServer:
        """Start a server on its store."""
        scope, stopped = trio.CancelScope(), trio.Event()
        port = self.net.transport((address(number), 2432))
        endpoint = Endpoint(port, rng=random.Random(next(self._starts)))

        def died() -> None:
            if self._scopes.get(number) == (scope, stopped):  # else it is being stopped
                self._dead.add(number)
            scope.cancel()

        server = QuirkyServer(self.stores[number], endpoint, self.quirks, died=died, clock=self.clock)
        self.running[number] = server
        self._scopes[number] = scope, stopped

        async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with scope:
                await server.run(task_status=task_status)
            stopped.set()

        await nursery.start(run)
        return server

    async def stop(self, number: int) -> None:
        """Kill a server; its ledger is kept."""
        server = self.running[number]
        assert isinstance(server, QuirkyServer)
        for store_id, times in server.executed.items():
            self.executed[number][store_id] = self.executed[number].get(store_id, 0) + times
        self._dead.discard(number)
        await super().stop(number)

    async def janitor(self, nursery: trio.Nursery) -> None:
        """Start again what died by itself."""
        while True:
            await trio.sleep(3.0)
            while self._dead:  # others stop and start servers while this one does
                number = min(self._dead)
                self.deaths += 1
                await self.stop(number)
                await self.start(number, nursery)

    def executed_twice(self) -> list[str]:
        """Return what a server has executed more than once."""
        found = []
        for number in self.numbers:
            server = self.running[number]
            assert isinstance(server, QuirkyServer)
            counts = dict(self.executed[number])
            for store_id, times in server.executed.items():
                counts[store_id] = counts.get(store_id, 0) + times
            found += [f"{store_id} at server {number}" for store_id, times in counts.items() if times > 1]
        return found


class Site:
    """Everything of one run."""

    def __init__(
        self, directory: Path, net: FakeNetwork, nursery: trio.Nursery, servers: QuirkyServers
    ) -> None:
        self.directory = directory
        self.net = net
        self.nursery = nursery
        self.servers = servers
        self.realms_file = directory / "realms"
        self.realms_file.write_text(servers.realms_line)
        self._count = 0

    async def client(
        self, points: CrashPoints | None = None, *, limits: Limits = LIMITS, **settings: Any
    ) -> MortalClient:
        """Start a client with an empty cache."""
        self._count += 1
        directory = self.directory / f"client{self._count}"
        directory.mkdir()
        chosen = VenusSettings(**settings)
        client = MortalClient(self, f"10.0.1.{self._count}", directory, limits, chosen)  # type: ignore[arg-type]  # all it needs
        client.points = points
        return await client.start()

    async def down(self, number: int) -> None:
        """Kill a server, if it runs."""
        if number in self.servers.running:
            await self.servers.stop(number)

    async def all_up(self) -> None:
        """Start every server that does not run, and let every packet through."""
        self.net.heal()
        self.net.loss = 0.0
        await self.start_all()

    async def start_all(self) -> None:
        """Start every server that does not run."""
        for number in self.servers.numbers:
            if number not in self.servers.running:
                await self.servers.start(number, self.nursery)


@asynccontextmanager
async def site(
    directory: Path, *, count: int = 1, quirks: Iterable[Any] = (), seed: int = 0
) -> AsyncIterator[Site]:
    """Run servers until all have their replicas on line."""
    net = FakeNetwork(seed=seed, latency=0.001)
    servers = QuirkyServers(directory, net, count, Quirks(quirks, seed))
    async with trio.open_nursery() as nursery:
        for number in servers.numbers:
            await servers.start(number, nursery)
        await servers.settled()
        nursery.start_soon(servers.janitor, nursery)
        yield Site(directory, net, nursery, servers)
        nursery.cancel_scope.cancel()
    for store in servers.stores.values():
        store.close()
