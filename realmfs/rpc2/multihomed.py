"""Several addresses of one machine as one `Transport`: whoever comes to an address is answered from it.

RPC2 knows a peer by the address its packets come from, so an answer from another address of ours would be a
stranger's. And a peer that comes to two of our addresses from one port means two of us: a client that knows
the server by both takes them for two servers, each of which owes it promises of its own. So the address at
which a peer came to us is part of what it is called here:

    10.1.0.9:2430 ──► first address    10.1.0.9:2430            also whom we address by ourselves
    10.1.0.9:2430 ──► 10.2.0.1         10.1.0.9%10.2.0.1:2430
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from realmfs.rpc2.service import Address, Transport

MARK = "%"


class MultihomedTransport:
    """The first transport is the one that is told to others, and from which everybody else is addressed."""

    def __init__(self, sides: Sequence[Transport]) -> None:
        self._first = sides[0]
        self._others = {side.address[0]: side for side in sides[1:]}

    @property
    def address(self) -> Address:
        """The first address."""
        return self._first.address

    @property
    def dropped(self) -> int:
        """Datagrams that no side got rid of."""
        return self._first.dropped + sum(side.dropped for side in self._others.values())

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """Wait for datagrams at any address and return all that are there, with their senders."""
        found: list[tuple[bytes, Address]] = []

        async def wait(side: Transport, mark: str) -> None:
            for datagram, (host, port) in await side.receive():
                found.append((datagram, (host + mark, port)))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, self._first, "")
            for host, side in self._others.items():
                nursery.start_soon(wait, side, MARK + host)
        return found

    def send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        """Send from the address at which the peer came to us."""
        host, _, at = peer[0].partition(MARK)
        side = self._others.get(at, self._first)
        side.send(datagrams, (host, peer[1]))

    def close(self) -> None:
        """Give all addresses back."""
        self._first.close()
        for side in self._others.values():
            side.close()
