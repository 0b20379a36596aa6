"""Calling as a client (rpc2.md §5, §6).

    idle ──call──▶ calling ──REPLY──▶ idle
                      │ NAK, silence, patience over, transfer failed
                      ▼
                   closed

A request is repeated on the schedule until something is heard. BUSY means that the server lives: it is
then left alone for a quarter of the keep-alive time, and asked again; there is no limit to that but the
caller's patience. While a file moves nothing is repeated as long as SFTP packets come; once it is whole the
reply is due. After a call that failed in the transport the two ends may disagree about sequence and DATA
numbers, so the connection is not used again.
"""

from __future__ import annotations

from math import inf

from realmfs.rpc2.codes import Rpc2Code, is_fatal
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.events import CallDone
from realmfs.rpc2.filelink import FileLink, cut_piggyback
from realmfs.rpc2.header import ALLOVER, OP_BUSY, OP_NAKED, OP_REPLY, PIGGY, RETRY, WORD, Header, timestamp
from realmfs.rpc2.hub import Hub
from realmfs.rpc2.link import Identity
from realmfs.rpc2.parameters import BLOCK_SIZE, MAX_BODY, SftpParameters
from realmfs.rpc2.secure import Opener, Sealer
from realmfs.rpc2.service import Address, Reply
from realmfs.rpc2.sftp_sink import SinkTransfer
from realmfs.rpc2.sftp_source import SourceTransfer
from realmfs.rpc2.transfer import Sink, Source, read_whole


class ClientLink(FileLink):
    """A bound connection in the client role. Each call ends in one CallDone event."""

    def __init__(
        self,
        hub: Hub,
        peer: Address,
        identity: Identity,
        opener: Opener,
        sealer: Sealer,
        sequence: int,
        *,
        side_effects: bool,
    ) -> None:
        super().__init__(hub, peer, identity, opener, sealer, side_effects=side_effects)
        self.usable = True
        self.ours = False
        """Whether the server runs this very program (`handshake`)."""
        self.calling = False
        self.told_busy = False
        """Whether BUSY came in answer to this call, or the last one."""
        self._sequence = sequence
        self._announced = not side_effects
        self._opcode = 0
        self._body = b""
        self._se_flags = 0
        self._se_offset = 0
        self._piggyback: int | None = None
        self._attempt = 0
        self._sent_at = 0.0
        self._retry_at = inf
        self._give_up = inf

    def check(self, body: bytes, *, moves_file: bool) -> None:
        """Raise RpcError for a call that cannot be made: TOOLONG, SEFAIL1 (bound without side effects)."""
        if moves_file and not self.side_effects:
            raise RpcError(Rpc2Code.SEFAIL1, "the connection was bound without side effects")
        if len(body) + (BLOCK_SIZE if moves_file and not self._announced else 0) > MAX_BODY:
            raise RpcError(Rpc2Code.TOOLONG, f"{len(body)} bytes of parameters")

    def call(
        self,
        opcode: int,
        body: bytes,
        source: Source | None,
        sink: Sink | None,
        give_up: float,
        now: float,
    ) -> None:
        """Send a request. The connection must be usable and idle, and `check` must have passed.

        Raises RpcError SEFAIL4, with nothing sent, if a small source cannot be read.
        """
        self._opcode = opcode
        self._body = body
        self._se_flags = self._se_offset = 0
        self._piggyback = None
        self.transfer = None
        if not self._announced and len(body) + BLOCK_SIZE <= MAX_BODY:
            self._announce()
        if source is not None:
            self._attach(source, now)
        elif sink is not None:
            self.transfer = SinkTransfer(self, sink, self._sequence, 0, now)
        self.calling = True
        self.told_busy = False
        self._attempt = 0
        self._give_up = give_up
        self._transmit(now)

    def close(self) -> None:
        """Forget the connection; a call that is running ends without an event."""
        self.usable = self.calling = False
        self.transfer = None
        self.drop()

    def fail(self, error: RpcError) -> None:
        """End the call, if there is one, and the connection."""
        calling = self.calling
        self.close()
        if calling:
            self.hub.events.append(CallDone(self, error))

    def abandon(self, error: RpcError) -> None:
        """Close for a reason of ours."""
        self.fail(error)

    # What comes in

    def receive(self, header: Header, body: bytes, now: float) -> None:
        """Take REPLY, BUSY or NAK; all count only while a call waits. Raises BadPacket."""
        if not self.calling:
            return
        opcode = header.opcode
        if opcode == OP_NAKED:
            self.fail(RpcError(Rpc2Code.NAKED, "the server no longer knows this connection"))
        elif header.sequence != (self._sequence + 1) & WORD:
            self.hub.counters["stray_replies"] += 1
        elif opcode == OP_REPLY:
            self._receive_reply(header, body, now)
        elif opcode == OP_BUSY:
            self.hub.counters["busy"] += 1
            self.told_busy = True
            self._leave_alone(now)

    def transfer_done(self, now: float) -> None:
        """A file that cannot be read or written here ends the call; otherwise the reply does, soon."""
        transfer = self.transfer
        if transfer is None:
            return
        if transfer.failure is not None:
            self.fail(transfer.failure)
            return
        self._attempt = 0
        self._retry_at = now + self.hub.schedule.wait(0, self.host.rto)

    def _receive_reply(self, header: Header, body: bytes, now: float) -> None:
        data: bytes | None = None
        if header.se_flags & PIGGY:
            body, data = cut_piggyback(body, header.se_offset)
        if not header.flags & RETRY:
            self.sample(header.timestamp, now)
        over = bool(header.se_flags & ALLOVER)
        moved, agreed = self._settle(header.return_code, data, over, now)
        if not self.calling:  # the sink failed
            return
        self._sequence = (self._sequence + 2) & WORD
        self.calling = False
        self.transfer = None
        self._retry_at = self._give_up = inf
        if not agreed or is_fatal(header.return_code) or self.worn_out:
            self.close()
        if not agreed and header.return_code == 0:
            outcome: Reply | RpcError = RpcError(Rpc2Code.SEFAIL2, "the reply came before the file was whole")
        else:
            outcome = Reply(header.return_code, body, moved)
        self.hub.events.append(CallDone(self, outcome))

    def _settle(self, code: int, data: bytes | None, over: bool, now: float) -> tuple[int | None, bool]:
        """Bring the side effect to its end; returns bytes moved, and whether the ends still agree."""
        transfer = self.transfer
        if transfer is None:
            return (self._piggyback if code == 0 else None), True
        if data is not None and isinstance(transfer, SinkTransfer) and not transfer.started:
            transfer.take_whole(data, now)
            return transfer.moved, True
        if not transfer.started:
            return None, True
        whole = transfer.settle(now) and over
        return (transfer.moved, True) if whole else (None, False)

    # Time

    def on_timer(self, now: float) -> None:
        """Repeat the request, or give up; let the transfer look at the clock, too."""
        transfer = self.transfer
        if transfer is not None and transfer.deadline <= now:
            transfer.on_timer(now)
        if not self.calling:
            return
        if now >= self._give_up:
            self.fail(RpcError(Rpc2Code.TIMEOUT, "no reply within the caller's patience"))
        elif now >= self._retry_at:
            self._retry(now)
        else:
            self.arm()

    def arm(self) -> None:
        """Set the nearest deadline."""
        when = min(self._retry_at, self._give_up)
        if self.transfer is not None:
            when = min(when, self.transfer.deadline)
        self.hub.timers.set(self, when)

    def _retry(self, now: float) -> None:
        moving = self.transfer is not None and not self.transfer.done
        if moving and self.sftp_heard > self._sent_at:
            self._sent_at = now
            self._attempt = 0
            self._retry_at = now + self.hub.schedule.wait(1, self.host.rto)
            self.arm()
        elif self._attempt >= self.hub.schedule.retries:
            self.fail(RpcError(Rpc2Code.DEAD, "{}:{} does not answer".format(*self.peer)))
        else:
            self._attempt += 1
            self.hub.counters["retries"] += 1
            self._transmit(now)

    def _leave_alone(self, now: float) -> None:
        self._attempt = 0
        self._retry_at = now + self.hub.schedule.busy_wait(self.host.rto)
        self.arm()

    def _transmit(self, now: float) -> None:
        packet = self.packet(
            self._opcode,
            self._body,
            sequence=self._sequence,
            stamp=timestamp(now),
            flags=RETRY if self._attempt else 0,
            se_flags=self._se_flags,
            se_offset=self._se_offset,
        )
        self.transmit(packet)
        self._sent_at = now
        self._retry_at = now + self.hub.schedule.wait(self._attempt, self.host.rto)
        self.arm()

    # Side effects

    def _announce(self) -> None:
        """Attach our parameters to the first request that has room, whatever it does (sftp.md §3)."""
        own = self.hub.sftp
        send_ahead = min(own.send_ahead, own.window)  # more than the window would kill a reference server
        block = SftpParameters(
            own.window,
            send_ahead,
            min(own.ack_point, send_ahead),
            self.hub.packet_size(self.peer),
            own.dup_threshold,
        )
        self._se_flags = PIGGY
        self._se_offset = len(self._body)
        self._body += block.pack()
        self._announced = True

    def _attach(self, source: Source, now: float) -> None:
        if self._se_flags or source.size > self.room(len(self._body)):
            self.transfer = SourceTransfer(self, source, self._sequence, 0, now)
            return
        data = read_whole(source)
        self._se_flags = PIGGY
        self._se_offset = len(self._body)
        self._body += data
        self._piggyback = len(data)
