"""One end of a connection, what both roles share: who the peer is, and how packets to it are made."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.estimate import Host
from realmfs.rpc2.header import RPC2_VERSION, Header, elapsed
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.secure import Opener, Sealer
from realmfs.rpc2.service import Address
from realmfs.rpc2.timers import Timed

Words = tuple[int, ...]
"""The fifteen header words of an SFTP packet, unsigned."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same for the life of a connection: it goes into every packet."""

    handle: int
    remote: int
    uniquefier: int
    subsystem: int
    color: int = 0


class Link(Timed):
    """A connection, or one in the making. Knows how to seal and address; subclasses know what to say.

    Whatever a `receive_...` method is given has proved authentic, except that of `receive_plain`. They may
    raise BadPacket: the packet is then counted as bad and otherwise ignored.
    """

    def __init__(
        self,
        hub: Hub,
        peer: Address,
        identity: Identity,
        opener: Opener,
        sealer: Sealer | None,
        *,
        host: Host | None = None,
    ) -> None:
        super().__init__()
        self.hub = hub
        self.peer = peer
        self.host = host or hub.host(peer)
        self.identity = identity
        self.opener = opener
        self.sealer = sealer
        hub.links[identity.handle] = self

    @abstractmethod
    def receive(self, header: Header, body: bytes, now: float) -> None:
        """Take an RPC2 packet."""

    def receive_sftp(self, words: Words, packet: bytes, now: float) -> None:
        """Take an SFTP packet; those of no transfer are ignored."""

    def receive_plain(self, header: Header, body: bytes, now: float) -> None:
        """Take an RPC2 packet that came unprotected: ignored by all but binds."""

    def bad_seal(self, now: float) -> None:
        """Learn that a packet addressed to us was not authentic."""

    def end_of_burst(self, now: float) -> None:
        """Learn that all packets which came together have been taken; only after `touch`."""

    @abstractmethod
    def abandon(self, error: RpcError) -> None:
        """Close for a reason of ours; whoever waits here gets the error."""

    def follow(self, peer: Address) -> None:
        """Go on at another address, from which an authentic packet has come (rpc2.md §9)."""
        self.peer = peer
        self.host = self.hub.host(peer)
        self.hub.counters["peer_moved"] += 1

    def packet(
        self,
        opcode: int,
        body: bytes = b"",
        *,
        sequence: int = 0,
        stamp: int = 0,
        code: int = 0,
        flags: int = 0,
        se_flags: int = 0,
        se_offset: int = 0,
    ) -> bytes:
        """Return an RPC2 packet of this connection, unprotected."""
        hub, identity = self.hub, self.identity
        hub.lamport += 1
        header = Header(
            RPC2_VERSION,
            identity.remote,
            identity.handle,
            flags | identity.color,
            len(body),
            sequence,
            opcode,
            se_flags,
            se_offset,
            identity.subsystem,
            code,
            hub.lamport & 0xFFFFFFFF,
            identity.uniquefier,
            stamp,
        )
        return header.pack() + body

    def sample(self, echo: int, now: float) -> None:
        """Learn the round trip from a time stamp of ours that came back; 0 says nothing."""
        if echo:
            self.host.sample(elapsed(now, echo))

    def transmit(self, packet: bytes) -> None:
        """Seal a packet and send it."""
        assert self.sealer is not None
        self.hub.send(self.peer, [self.sealer.seal(packet)])

    def drop(self) -> None:
        """Take the connection out of the tables: packets for its handle go unanswered from now on."""
        if self.hub.links.get(self.identity.handle) is self:
            del self.hub.links[self.identity.handle]
        self.hub.timers.set(self, float("inf"))
