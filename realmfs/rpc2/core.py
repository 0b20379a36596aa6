"""The whole transport without input and output: datagrams and the time in; datagrams, deadlines, events out.

    receive(datagrams, now)  ─┐                        ┌─▶ hub.outbox, hub.events
    handle_timers(now)       ─┼─▶ links by handle ─────┼─▶ hub.timers.next()
    bind, link.call, ...     ─┘                        └─▶ hub.counters

The first word of a datagram tells who takes it (rpc2.md §1): a protected packet goes to the connection with
that handle, a plain one is INIT1 or next to nothing. Bad packets are counted and dropped; nothing a
stranger sends can raise, or make state grow beyond `Limits`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from realmfs.rpc2.bind import Binding
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.events import Accepted, Event, Gone
from realmfs.rpc2.handshake import LEVEL_OF_OPCODE
from realmfs.rpc2.header import (
    DATA_HEADER,
    FIRST_HANDLE,
    RPC2_VERSION,
    SFTP_VERSION,
    Op,
    SftpOp,
    naked,
    split,
)
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.link import Link
from realmfs.rpc2.parameters import HEADER_SIZE, Limits, SftpParameters, Timers
from realmfs.rpc2.reception import Policy, Reception, serve_nobody
from realmfs.rpc2.secure import BadSeal
from realmfs.rpc2.service import Address, Credentials, TunnelAddress

log = logging.getLogger(__name__)

_SFTP_PREFIX = SFTP_VERSION.to_bytes(4, "big")


class Core:
    """All connections of one endpoint, both roles."""

    def __init__(
        self,
        *,
        sftp: SftpParameters | None = None,
        timers: Timers | None = None,
        limits: Limits | None = None,
        rng: random.Random | None = None,
        policy: Policy = serve_nobody,
    ) -> None:
        self.hub = Hub(
            sftp or SftpParameters(),
            timers or Timers(),
            limits or Limits(),
            rng or random.SystemRandom(),
        )
        self._reception = Reception(self.hub, policy)

    # In

    def receive(self, datagrams: Sequence[tuple[bytes, Address]], now: float) -> None:
        """Take datagrams that came together."""
        hub = self.hub
        links, counters = hub.links, hub.counters
        counters["packets_in"] += len(datagrams)
        counters["bytes_in"] += sum([len(datagram) for datagram, _ in datagrams])
        for datagram, sender in datagrams:
            try:
                handle = int.from_bytes(datagram[:4], "big")
                if handle < FIRST_HANDLE:
                    self._receive_plain(handle, datagram, sender, now)
                elif (link := links.get(handle)) is not None:
                    self._receive_protected(link, datagram, sender, now)
                else:
                    counters["unknown_handle"] += 1
            except BadPacket as error:
                counters["bad"] += 1
                log.debug("bad packet from %s: %s", sender, error)
        for link in hub.touched:
            link.end_of_burst(now)
        hub.touched.clear()

    def handle_timers(self, now: float) -> None:
        """Run what is due."""
        self.hub.timers.expire(now)

    def take_events(self) -> list[Event]:
        """Return what has happened since the last time."""
        hub = self.hub
        events, hub.events = hub.events, []
        for event in events:
            if isinstance(event, Accepted):
                self._reception.admit(event.link)
            elif isinstance(event, Gone):
                self._reception.dismiss(event.link)
        if hub.events:  # somebody had to make room
            events += self.take_events()
        return events

    def _receive_protected(self, link: Link, datagram: bytes, sender: Address, now: float) -> None:
        try:
            packet = link.opener.open(datagram)
        except BadSeal:
            link.bad_seal(now)
            raise
        if len(packet) < HEADER_SIZE:
            raise BadPacket("less than a header")
        if packet.startswith(_SFTP_PREFIX):
            words = DATA_HEADER.unpack_from(packet)
            if words[1] != link.identity.handle or HEADER_SIZE + words[4] > len(packet):
                raise BadPacket("a header that does not fit its packet")
            self._heard(link, sender, now)
            link.receive_sftp(words, packet, now)
            return
        header, body = split(packet)
        if header.version != RPC2_VERSION or header.remote != link.identity.handle:
            raise BadPacket("a header that does not fit its connection")
        if header.lamport > self.hub.lamport:
            self.hub.lamport = header.lamport
        self._heard(link, sender, now)
        link.receive(header, body, now)

    def _heard(self, link: Link, sender: Address, now: float) -> None:
        if sender != link.peer:
            _check_way(link, sender)
            link.follow(sender)
        link.host.last_heard = now

    def _receive_plain(self, version: int, datagram: bytes, sender: Address, now: float) -> None:
        if version == RPC2_VERSION:
            header, body = split(datagram)
            if header.opcode in LEVEL_OF_OPCODE and header.remote == 0:
                self._reception.receive_init1(header, body, sender, now)
            elif (link := self.hub.links.get(header.remote)) is not None:
                if sender != link.peer:
                    _check_way(link, sender)
                link.receive_plain(header, body, now)
            elif header.opcode != Op.NAKED:
                self._nak(header.local, sender, sftp=False)
        elif version == SFTP_VERSION and len(datagram) >= HEADER_SIZE:
            words = DATA_HEADER.unpack_from(datagram)
            if words[1] not in self.hub.links and words[6] != SftpOp.NAK:
                self._nak(words[2], sender, sftp=True)
        else:
            raise BadPacket("neither RPC2 nor SFTP")

    def _nak(self, offender: int, sender: Address, *, sftp: bool) -> None:
        self.hub.counters["naks"] += 1
        self.hub.send(sender, [naked(offender, sftp=sftp)])

    # The client role

    def bind(
        self,
        peer: Address,
        subsystem: int,
        credentials: Credentials,
        *,
        side_effects: bool,
        give_up: float,
        now: float,
    ) -> Binding:
        """Begin to bind; a BindDone event ends it."""
        return Binding(
            self.hub, peer, subsystem, credentials, side_effects=side_effects, give_up=give_up, now=now
        )

    # Both

    def forget_peer(self, peer: Address) -> None:
        """Drop every connection from or to a peer; calls on them fail."""
        for link in [link for link in self.hub.links.values() if link.peer == peer]:
            link.abandon(RpcError(Rpc2Code.DEAD, "the peer was forgotten"))

    def close(self) -> None:
        """Drop everything; calls that wait fail."""
        for link in list(self.hub.links.values()):
            link.abandon(RpcError(Rpc2Code.DEAD, "the endpoint is closed"))


def _check_way(link: Link, sender: Address) -> None:
    """Raise BadPacket for a packet that comes past a tunnel, or out of a strange one.

    Peers on UDP may change their address; what belongs into a tunnel never leaves it.
    """
    if isinstance(sender, TunnelAddress) or isinstance(link.peer, TunnelAddress):
        raise BadPacket("a packet that came another way than its connection")
