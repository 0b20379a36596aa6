"""Taking a file (sftp.md §8, "Sink" and "Consequences").

`contiguous` is the number up to which everything has come; `held` what came early. Data is written once per
burst, and ACK goes out then, after:

* a packet that asked for one (ACKME), or a window full of packets without;
* the last missing packet;
* a hole that opened: not more often than once per round trip;
* a duplicate that asked for one: its ACK must have been lost. At most every 50 ms, because each such ACK
  provokes the next duplicate at a reference source, and unlimited they become a storm that feeds itself.

A reference source sends one batch for each ACK that advances, and would have no more than one on its way. So
the packets of a burst are acknowledged one by one, from the last ones, until the source has been allowed as
many batches as its window holds, but for one: while the window is full it repeats its first packet for any
ACK. `released` is the number up to which it may have sent. Bursts are fewer and larger then, and cost less. A
source that fills its window by itself is ahead of that, and gets one ACK.

The server's sink asks with START until data comes. When data stops it sends an ACK that says so (echo 0)
*and* START again: a reference source has no timer and resends only for a START.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.header import ACKME, MOREDATA, PIGGY, SFTP_ACK, SFTP_START
from realmfs.rpc2.parameters import HEADER_SIZE, SftpParameters
from realmfs.rpc2.sftp import Transfer
from realmfs.rpc2.transfer import Sink

if TYPE_CHECKING:
    from realmfs.rpc2.filelink import FileLink

_MASK_BITS = 64
_DUPLICATE_ACKS = 0.05
_FIRST_NUDGE = 0.15
_LONGEST_NUDGE = 4.0


class SinkTransfer(Transfer):
    """The receiving end."""

    def __init__(
        self,
        link: FileLink,
        sink: Sink,
        call: int,
        echo: int,
        now: float,
        *,
        limit: int | None = None,
        start: SftpParameters | None = None,
    ) -> None:
        super().__init__(link, call, echo, now)
        self._sink = sink
        self._limit = limit
        self._start = start
        self._first = self.contiguous = link.number_in
        self._end: int | None = None
        self._held: dict[int, bytes] = {}
        self._parts: list[bytes] = []
        self._ack_wanted = False
        self._acknowledged = self._first
        self._released = self._first + link.parameters.send_ahead
        self._next_duplicate_ack = 0.0
        self._next_hole_ack = 0.0
        self._nudge = _FIRST_NUDGE
        if start is not None:
            self._send_start(now)

    @property
    def started(self) -> bool:
        """Tell whether any data has come."""
        return self.contiguous != self._first or bool(self._held)

    @property
    def complete(self) -> bool:
        """Tell whether everything has come."""
        return self.contiguous == self._end

    def settle(self, now: float) -> bool:
        """Write what came in this burst; tell whether the file is whole."""
        if not self.done:
            self._write(now)
        return self.complete

    def take_whole(self, data: bytes, now: float) -> None:
        """Take a file that came piggybacked."""
        self._parts.append(data)
        self._end = self.contiguous
        self._write(now)

    def receive_data(self, words: tuple[int, ...], packet: bytes, now: float) -> None:
        """Take a DATA packet."""
        _, _, _, flags, length, number, _, se_flags, _, _, _, _, _, stamp, _ = words
        self.echo = stamp
        self.heard = now
        ahead = number - self.contiguous
        if ahead == 1 and self._end is None:
            self._parts.append(packet[HEADER_SIZE : HEADER_SIZE + length])
            self.contiguous = number
            if not se_flags & MOREDATA:
                self._end = number
            elif self._held:
                self._join_held()
        elif ahead <= 0 or number in self._held:
            self._duplicate(flags, now)
            return
        elif ahead > _MASK_BITS or (self._end is not None and number > self._end):
            self.link.hub.counters["out_of_window"] += 1
            return
        else:
            self._hold(number, packet[HEADER_SIZE : HEADER_SIZE + length], se_flags, now)
        if number > self._released:
            self._released = number
        if flags & ACKME or self.complete or number - self._acknowledged >= self.link.parameters.window:
            self._ack_wanted = True

    def end_of_burst(self, now: float) -> None:
        """Acknowledge first, write after: the peer need not wait for our disk."""
        if self._ack_wanted:
            self._release(now)
            self._acknowledge(now)
        if self.done:
            return
        if self._start is not None:
            self._nudge = _FIRST_NUDGE
            self.deadline = now + max(self._nudge, self.link.host.rto)
        self._write(now)

    def on_timer(self, now: float) -> None:
        """Ask again, as the server; a client's sink has no deadline, its server resends."""
        if now - self.heard >= self.link.hub.schedule.dead_after:
            self.fail(Rpc2Code.SEFAIL2, "the client stopped sending", now)
            return
        self._nudge = min(2 * self._nudge, _LONGEST_NUDGE)
        self.link.hub.counters["nudges"] += 1
        if self.started:
            self._acknowledge(now, echo=0)
        self._send_start(now)

    def _hold(self, number: int, body: bytes, se_flags: int, now: float) -> None:
        self._held[number] = body
        if not se_flags & MOREDATA:
            self._end = number
        if number == self.contiguous + 1:
            self._join_held()
        elif now >= self._next_hole_ack:
            self._next_hole_ack = now + max(self.link.host.round_trip or 0.0, 0.005)
            self._ack_wanted = True

    def _join_held(self) -> None:
        while (body := self._held.pop(self.contiguous + 1, None)) is not None:
            self._parts.append(body)
            self.contiguous += 1

    def _duplicate(self, flags: int, now: float) -> None:
        self.link.hub.counters["duplicates"] += 1
        if flags & ACKME and now >= self._next_duplicate_ack:
            self._next_duplicate_ack = now + _DUPLICATE_ACKS
            self._ack_wanted = True

    def _release(self, now: float) -> None:
        """Send the ACKs of a burst but for the last: one for each batch that there is room for."""
        batch, window = self.link.parameters.send_ahead, self.link.parameters.window
        room = window - batch - (self._released - self.contiguous)
        more = min(room // batch, self.contiguous - self._acknowledged) - 1
        if more > 0 and not self._held and not self.complete:
            self._released += more * batch
            for number in range(self.contiguous - more, self.contiguous):
                self.control(SFTP_ACK, now, echo=self.echo, got_all=number & 0xFFFFFFFF)

    def _acknowledge(self, now: float, echo: int | None = None) -> None:
        self._ack_wanted = False
        if self.contiguous > self._acknowledged:
            self._acknowledged = self.contiguous
            self._released += self.link.parameters.send_ahead
        mask = 0
        for number in self._held:
            mask |= 1 << (_MASK_BITS - (number - self.contiguous))
        echo = self.echo if echo is None else echo
        self.control(SFTP_ACK, now, echo=echo, got_all=self.contiguous & 0xFFFFFFFF, mask=mask)

    def _send_start(self, now: float) -> None:
        assert self._start is not None
        self.control(SFTP_START, now, echo=self.echo, se_flags=PIGGY, body=self._start.pack())
        self.deadline = now + max(self._nudge, self.link.host.rto)

    def _write(self, now: float) -> None:
        """Hand over what is in order; with the last of it the transfer is done."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self.moved += len(data)
            if self._limit is not None and self.moved > self._limit:
                self.fail(Rpc2Code.SEFAIL3, f"more than the {self._limit} bytes that may come", now)
                return
            try:
                self._sink.write(data)
            except Exception as error:  # goes on as the cause
                self.fail(Rpc2Code.SEFAIL3, f"the sink failed: {error}", now, error)
                return
        if self.complete:
            self.link.number_in = self.contiguous
            self.finish(now)
