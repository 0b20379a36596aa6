"""Serving a bound client (rpc2.md §5, "Server").

    welcoming ──enable──▶ idle ──request──▶ running ──reply──▶ idle
        requests: BUSY,     a repeated one:    repeated: BUSY
        the first waits     the saved reply    100 ms: BUSY unasked

`_next` is the number that the next new request must have. A request runs once: a copy of it is answered
with BUSY while it runs and with the saved reply afterwards, as long as that is kept. One that is further
ahead shows that the client gave up calls which we never saw: it is told so (NAK), and binds again.
"""

from __future__ import annotations

from math import inf
from typing import Any

from realmfs.rpc2.codes import Rpc2Code, is_fatal
from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.events import Arrived, Gone, Moved
from realmfs.rpc2.filelink import FileLink, cut_piggyback
from realmfs.rpc2.header import (
    ALLOVER,
    NO_HANDLE,
    PIGGY,
    RETRY,
    RPC2_VERSION,
    WORD,
    Header,
    Op,
)
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.link import Identity
from realmfs.rpc2.parameters import BLOCK_SIZE, HEADER_SIZE, MAX_BODY, SftpParameters
from realmfs.rpc2.secure import Opener, Sealer
from realmfs.rpc2.service import Address, BindOffer
from realmfs.rpc2.sftp import negotiate
from realmfs.rpc2.sftp_sink import SinkTransfer
from realmfs.rpc2.sftp_source import SourceTransfer
from realmfs.rpc2.transfer import BytesSource, Sink, Source, read_whole

_WELCOMING, _IDLE, _RUNNING, _CLOSED = range(4)
_DUPLICATE = WORD - 1
_HALF = 1 << 31


class ServerLink(FileLink):
    """A bound connection in the server role."""

    def __init__(
        self,
        hub: Hub,
        peer: Address,
        identity: Identity,
        opener: Opener,
        sealer: Sealer,
        sequence: int,
        offer: BindOffer,
        key: tuple[Address, int, int],
    ) -> None:
        super().__init__(hub, peer, identity, opener, sealer, side_effects=offer.side_effects)
        self.offer = offer
        self.key = key
        self.data: Any = None
        self.used = 0.0
        self._phase = _WELCOMING
        self._early: tuple[Header, bytes] | None = None
        self._next = sequence
        self._init4 = b""
        self._negotiated = False
        self._broken = False
        self._stamp = 0
        self._arrived = 0.0
        self._piggyback: bytes | None = None
        self._outgoing: bytes | None = None
        self._held: tuple[int, bytes] | None = None
        self._saved: tuple[int, bytes, int, int] | None = None
        self._busy_at = inf
        self._forget_at = inf

    @property
    def idle(self) -> bool:
        """Tell whether nothing runs here."""
        return self._phase == _IDLE

    # Life

    def send_init4(self, body: bytes, init3: Header, now: float) -> None:
        """End the handshake; a repeated INIT3 is answered with the same again."""
        self.used = now
        self._init4 = body
        self.transmit(self.packet(Op.INIT4, body, stamp=init3.timestamp))

    def enable(self, now: float) -> None:
        """Serve requests from now on; one that came too early first.

        It was answered with BUSY, so its sender would not ask again for a long time.
        """
        if self._phase == _WELCOMING:
            self._phase = _IDLE
            if self._early is not None:
                (header, body), self._early = self._early, None
                try:
                    self._begin(header, body, now)
                except BadPacket:
                    self.hub.counters["bad"] += 1

    def close(self) -> None:
        """Forget the client. Gone follows."""
        if self._phase != _CLOSED:
            self._phase = _CLOSED
            self.transfer = None
            self.drop()
            self.hub.events.append(Gone(self))

    def abandon(self, error: RpcError) -> None:
        """Close for a reason of ours; the handler is cancelled."""
        self.close()

    # What comes in

    def receive(self, header: Header, body: bytes, now: float) -> None:
        """Take a request, or a late INIT3. Raises BadPacket."""
        if header.opcode > 0 or header.opcode == Op.INITMULTICAST:
            self._receive_request(header, body, now)
        elif header.opcode == Op.INIT3 and self._init4:
            self.send_init4(self._init4, header, now)

    def _receive_request(self, header: Header, body: bytes, now: float) -> None:
        ahead = (header.sequence - self._next) & WORD
        if self._broken and ahead != _DUPLICATE:
            self._nak()
        elif self._phase == _WELCOMING:
            if ahead == 0:
                self._early = (header, body)
            self._say_busy(header.sequence, header.timestamp, now)
        elif ahead == 0 and self._phase == _IDLE:
            self._begin(header, body, now)
        elif ahead == _DUPLICATE:
            self._repeated(header, now)
        elif 2 < ahead < _HALF:
            self._nak()
        else:
            self.hub.counters["stray_requests"] += 1

    def _begin(self, header: Header, body: bytes, now: float) -> None:
        piggyback: bytes | None = None
        if header.se_flags & PIGGY and self.side_effects:
            body, piggyback = cut_piggyback(body, header.se_offset)
            if header.opcode == Op.INITMULTICAST:
                self._take_parameters(piggyback[:BLOCK_SIZE])  # four more bytes follow
                piggyback = None
            elif not self._negotiated:
                self._take_parameters(piggyback[-BLOCK_SIZE:])
                piggyback = None
        self._init4 = b""
        self._phase = _RUNNING
        self._next = (self._next + 2) & WORD
        self._saved = None
        self._stamp, self._arrived, self.used = header.timestamp, now, now
        self._piggyback, self._outgoing, self._held, self.transfer = piggyback, None, None, None
        self._busy_at = now + self.hub.schedule.busy_after
        self._forget_at = inf
        if header.opcode == Op.INITMULTICAST:
            self.reply(0, b"", now)  # reference clients wait for it on each connection of a group
            return
        self.arm()
        self.hub.events.append(Arrived(self, header.opcode, body))

    def _take_parameters(self, block: bytes) -> None:
        own, theirs = self.hub.sftp, SftpParameters.unpack(block)
        self.parameters = negotiate(own, theirs, self.hub.packet_size(self.peer))
        self._negotiated = True

    def _repeated(self, header: Header, now: float) -> None:
        if self._phase == _RUNNING:
            self._stamp, self._arrived = header.timestamp, now
            self._say_busy(header.sequence, header.timestamp, now)
        elif self._saved is not None:
            self.hub.counters["replies_repeated"] += 1
            self._stamp, self._arrived = header.timestamp, now
            code, body, se_flags, offset = self._saved
            if se_flags & PIGGY and len(body) > self.hub.packet_size(self.peer) - HEADER_SIZE:
                self._unload(code, body[:offset], body[offset:], now)
            else:
                self._send_saved(now, RETRY)

    def _unload(self, code: int, body: bytes, data: bytes, now: float) -> None:
        """Send a file by itself that rode with a large reply, which may have been too large for the path."""
        self.hub.note_lost_fragments(self.peer)
        self._phase, self._saved, self._forget_at = _RUNNING, None, inf
        self._held = (code, body)
        self._start_source(BytesSource(data), now)

    # Replies

    def reply(self, code: int, body: bytes, now: float) -> None:
        """Answer the running request; a file that turned out too large to ride along goes first."""
        if self._phase != _RUNNING:
            return
        if len(body) > MAX_BODY:
            raise ValueError(f"a reply of {len(body)} bytes")
        if self._outgoing is not None and len(self._outgoing) > self.room(len(body)):
            source, self._outgoing = BytesSource(self._outgoing), None
            self._held = (code, body)
            self._start_source(source, now)
            return
        se_flags = offset = 0
        if self.side_effects and not self._broken:
            se_flags = ALLOVER
            if self._outgoing is not None:
                se_flags |= PIGGY
                offset = len(body)
                body += self._outgoing
        self._broken = self._broken or is_fatal(code) or self.worn_out
        self._saved = (code, body, se_flags, offset)
        self._phase = _IDLE
        self._piggyback = self._outgoing = None
        self._busy_at = inf
        self._forget_at = now + self.hub.schedule.reply_kept
        self._send_saved(now)
        self.arm()

    def _send_saved(self, now: float, flags: int = 0) -> None:
        assert self._saved is not None
        code, body, se_flags, offset = self._saved
        self.transmit(
            self.packet(
                Op.REPLY,
                body,
                sequence=(self._next - 1) & WORD,
                stamp=self._echo(now),
                code=code,
                flags=flags,
                se_flags=se_flags,
                se_offset=offset,
            )
        )

    def _echo(self, now: float) -> int:
        """Return the client's stamp plus the time since it came: our work is no part of a round trip."""
        if not self._stamp:
            return 0
        return (self._stamp + int((now - self._arrived) * 1e6)) & WORD

    def _say_busy(self, sequence: int, stamp: int, now: float) -> None:
        self.transmit(self.packet(Op.BUSY, sequence=(sequence + 1) & WORD, stamp=stamp))

    def _nak(self) -> None:
        """Say that this connection is of no use any more, in terms that an attacker cannot forge."""
        self.hub.counters["naks"] += 1
        header = Header(RPC2_VERSION, self.identity.remote, NO_HANDLE, opcode=Op.NAKED)
        self.transmit(header.pack())

    # Side effects

    def room(self, body: int) -> int:
        """Return how many bytes of a file can ride with a reply of this size."""
        return MAX_BODY - body if self.hub.takes_fragments(self.peer) else super().room(body)

    def receive_file(self, sink: Sink, limit: int, now: float) -> int | None:
        """Take a file from the client; None: on its way, Moved follows. Raises RpcError."""
        self._check_side_effect()
        echo = self._echo(now)
        if self._piggyback is not None:
            transfer = SinkTransfer(self, sink, self._call, echo, now, limit=limit)
            self.transfer = None
            transfer.take_whole(self._piggyback, now)
            self._piggyback = None
            if transfer.failure is not None:
                self._broken = True
                raise transfer.failure
            return transfer.moved
        self.transfer = SinkTransfer(self, sink, self._call, echo, now, limit=limit, start=self.parameters)
        self.arm()
        return None

    def send_file(self, source: Source, now: float) -> int | None:
        """Send a file to the client; None: on its way, Moved follows. Raises RpcError."""
        self._check_side_effect()
        if source.size <= self.room(0):
            self._outgoing = read_whole(source)
            return len(self._outgoing)
        self._start_source(source, now)
        return None

    def transfer_done(self, now: float) -> None:
        """Tell the handler, or send the reply that waited for the transfer."""
        transfer = self.transfer
        if transfer is None or self._phase != _RUNNING:
            return
        if transfer.failure is not None:
            self._broken = True
        if self._held is not None:
            (code, body), self._held = self._held, None
            self.reply(code, body, now)
        else:
            self.hub.events.append(Moved(self, transfer.failure or transfer.moved))

    def _start_source(self, source: Source, now: float) -> None:
        """Begin to send. Raises RpcError if the source fails at once."""
        transfer = SourceTransfer(self, source, self._call, self._stamp, now)
        transfer.start(self.parameters, now)
        if transfer.failure is not None:
            self._broken = True
            raise transfer.failure
        self.transfer = transfer
        self.arm()

    def _check_side_effect(self) -> None:
        if self._phase != _RUNNING:
            raise RpcError(Rpc2Code.NOCONNECTION, "the client is gone")
        if not self.side_effects:
            raise RpcError(Rpc2Code.SEFAIL1, "the client bound without side effects")
        if self._broken:
            raise RpcError(Rpc2Code.SEFAIL2, "an earlier transfer of this request failed")
        if self.transfer is not None or self._outgoing is not None:
            raise RpcError(Rpc2Code.SEFAIL1, "one side effect per call")

    @property
    def _call(self) -> int:
        return (self._next - 2) & WORD

    # Time

    def on_timer(self, now: float) -> None:
        """Say BUSY, forget the saved reply, or let the transfer act."""
        transfer = self.transfer
        if transfer is not None and transfer.deadline <= now:
            transfer.on_timer(now)
        if self._busy_at <= now:
            self._busy_at = inf
            self._say_busy(self._call, self._echo(now), now)
        if self._forget_at <= now:
            self._forget_at = inf
            self._saved = None
            if self._broken:
                self.close()
                return
        self.arm()

    def arm(self) -> None:
        """Set the nearest deadline."""
        when = min(self._busy_at, self._forget_at)
        if self.transfer is not None:
            when = min(when, self.transfer.deadline)
        self.hub.timers.set(self, when)
