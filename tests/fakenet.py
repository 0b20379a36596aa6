"""A network in memory: datagrams are lost, repeated, delayed and reordered by a seeded plan.

    net = FakeNetwork(seed=1, latency=0.01, loss=0.2, duplicates=0.2, jitter=0.05)
    a, b = net.transport(("10.0.0.1", 2432)), net.transport(("10.0.0.2", 0))

Runs under trio, best with the autojump clock. A port's `receive` sleeps until the next datagram is due, so
the network needs no task of its own. `jitter` above zero reorders: each datagram is late by a random time of
its own.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence

import trio

Address = tuple[str, int]
MAX_DATAGRAM = 65507
MAX_QUEUE = 4096


class FakeNetwork:
    """The wire between ports. All rates may be changed while it runs; times are in seconds."""

    def __init__(
        self,
        seed: int = 0,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        duplicates: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.latency = latency
        self.jitter = jitter
        self.loss = loss
        self.duplicates = duplicates
        self.counters: Counter[str] = Counter()
        self.tap: Callable[[bytes, Address, Address], bool] | None = None
        """Sees every datagram (bytes, from, to) before anything else; False loses it."""
        self._ports: dict[Address, FakePort] = {}
        self._cuts: set[frozenset[str]] = set()
        self._next_port = 40000

    def transport(self, address: Address) -> FakePort:
        """Open a port; number 0 takes a free one."""
        host, number = address
        if number == 0:
            self._next_port += 1
            number = self._next_port
        if (host, number) in self._ports:
            raise OSError(f"{host}:{number} is taken")
        port = FakePort(self, (host, number))
        self._ports[host, number] = port
        return port

    def partition(self, *hosts: str) -> None:
        """Cut these hosts off from each other; a single one from everybody."""
        if len(hosts) == 1:
            self._cuts.add(frozenset(hosts))
        self._cuts.update(frozenset((a, b)) for a in hosts for b in hosts if a < b)

    @property
    def is_cut(self) -> bool:
        """Whether anybody is cut off from anybody."""
        return bool(self._cuts)

    def are_cut(self, one: str, other: str) -> bool:
        """Whether two hosts are cut off from each other."""
        return any(cut <= {one, other} for cut in self._cuts)

    def heal(self) -> None:
        """Undo every partition."""
        self._cuts.clear()

    def carry(self, datagram: bytes, sender: Address, receiver: Address) -> None:
        """Take one datagram on its way, or lose it."""
        self.counters["sent"] += 1
        self.counters["bytes"] += len(datagram)
        if self.tap is not None and not self.tap(datagram, sender, receiver):
            self.counters["tapped"] += 1
            return
        if self.are_cut(sender[0], receiver[0]) or len(datagram) > MAX_DATAGRAM:
            self.counters["cut"] += 1
            return
        copies = 1 + (self.random.random() < self.duplicates)
        for _ in range(copies):
            if self.random.random() < self.loss:
                self.counters["lost"] += 1
                continue
            port = self._ports.get(receiver)
            if port is None:
                self.counters["nobody"] += 1
                continue
            due = trio.current_time() + self.latency + self.random.random() * self.jitter
            port.deliver(due, datagram, sender)

    def leave(self, address: Address) -> None:
        """Forget a port."""
        self._ports.pop(address, None)

    def move(self, port: FakePort, address: Address) -> None:
        """Give a port another address, as a NAT does when it forgets a mapping."""
        self.leave(port.address)
        self._ports[address] = port
        port.address = address


class FakePort:
    """A `Transport` on the fake network."""

    def __init__(self, net: FakeNetwork, address: Address) -> None:
        self.address = address
        self.dropped = 0
        self._net = net
        self._queue: list[tuple[float, int, bytes, Address]] = []
        self._count = 0
        self._arrived = trio.Event()

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """Wait until a datagram is due; return all that are."""
        await trio.lowlevel.checkpoint()
        while True:
            now = trio.current_time()
            batch = []
            while self._queue and self._queue[0][0] <= now:
                _, _, datagram, sender = heapq.heappop(self._queue)
                batch.append((datagram, sender))
            if batch:
                return batch
            self._arrived = trio.Event()
            due = self._queue[0][0] if self._queue else float("inf")
            with trio.CancelScope(deadline=due):
                await self._arrived.wait()

    def send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        """Hand datagrams to the network."""
        for datagram in datagrams:
            self._net.carry(datagram, self.address, peer)

    def deliver(self, due: float, datagram: bytes, sender: Address) -> None:
        """Take a datagram that will be due at a time; a full queue drops it, as a socket does."""
        if len(self._queue) >= MAX_QUEUE:
            self._net.counters["overflow"] += 1
            return
        self._count += 1
        heapq.heappush(self._queue, (due, self._count, datagram, sender))
        self._arrived.set()

    def close(self) -> None:
        """Leave the network."""
        self._net.leave(self.address)
