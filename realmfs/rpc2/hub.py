"""What the connections of one endpoint share, whatever their role.

Nothing here waits or sends: datagrams gather in the outbox, news for the layer above in `events`, deadlines
in the heap. `Core` feeds the connections, the endpoint empties the outbox.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from realmfs.rpc2.estimate import Host
from realmfs.rpc2.header import FIRST_HANDLE
from realmfs.rpc2.parameters import Limits, SftpParameters, Timers
from realmfs.rpc2.service import Address, TunnelAddress
from realmfs.rpc2.timers import TimerHeap

if TYPE_CHECKING:
    from realmfs.rpc2.events import Event
    from realmfs.rpc2.link import Link

_LAST_HANDLE = 0x7FFFFFFF
_MOST_HOSTS = 4096


class Hub:
    """Handles, timers, outbox, events, hosts and counters of one endpoint."""

    def __init__(self, sftp: SftpParameters, timers: Timers, limits: Limits, rng: random.Random) -> None:
        self.sftp = sftp
        self.schedule = timers
        self.limits = limits
        self.rng = rng
        self.timers = TimerHeap()
        self.links: dict[int, Link] = {}
        self.outbox: list[tuple[Address, list[bytes]]] = []
        self.events: list[Event] = []
        self.touched: list[Link] = []
        """Connections that want to hear of the end of this burst of packets."""
        self.counters: Counter[str] = Counter()
        self.lamport = 0
        self._hosts: dict[Address, Host] = {}

    def new_handle(self) -> int:
        """Return a random handle that no live connection has."""
        while True:
            handle = self.rng.randint(FIRST_HANDLE, _LAST_HANDLE)
            if handle not in self.links:
                return handle

    def random_word(self) -> int:
        """Return 32 random bits, not all zero."""
        return self.rng.getrandbits(32) or 1

    def send(self, peer: Address, datagrams: list[bytes]) -> None:
        """Put datagrams into the outbox. The list becomes ours."""
        if self.outbox and self.outbox[-1][0] == peer:
            self.outbox[-1][1].extend(datagrams)
        else:
            self.outbox.append((peer, datagrams))

    def host(self, peer: Address) -> Host:
        """Return what is known of a peer; those heard longest ago make room for new ones."""
        host = self._hosts.get(peer)
        if host is None:
            if len(self._hosts) >= _MOST_HOSTS:
                by_age = sorted(self._hosts, key=lambda known: self._hosts[known].last_heard or 0.0)
                for known in by_age[: _MOST_HOSTS // 8]:
                    del self._hosts[known]
            host = self._hosts[peer] = Host()
        return host

    def known_host(self, peer: Address) -> Host | None:
        """Return what is known of a peer, if anything is."""
        return self._hosts.get(peer)

    def takes_fragments(self, peer: Address) -> bool:
        """Tell whether one packet in fragments is better than several: near by, unless one was lost.

        A small file then rides with the reply, which saves its acknowledgement and a round trip. A path that
        drops fragments is noticed when such a reply is asked for again.
        """
        host = self.known_host(peer)
        if host is None or host.loses_fragments:
            return False
        return host.distance is not None and host.distance < self.sftp.near

    def note_lost_fragments(self, peer: Address) -> None:
        """Send this peer no fragments any more."""
        host = self.known_host(peer)
        if host is not None:
            host.loses_fragments = True

    def packet_size(self, peer: Address) -> int:
        """Return the size of packet, header included, that suits the way to a peer (`SftpParameters`)."""
        if isinstance(peer, TunnelAddress):
            return self.sftp.tunnel_packet_size
        return self.sftp.loopback_packet_size if peer[0].startswith("127.") else self.sftp.packet_size
