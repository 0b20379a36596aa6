"""Sending a file (sftp.md §8, "Source" and "Consequences").

Packets `acked`+1 ... `sent` are on their way; `_bodies` and `_times` hold what was in them and when they
last went out, in order. The window of the peer is filled as soon as there is room for half a batch, with
ACKME on every batch.

What the peer misses is sent again when an ACK shows a hole, when START comes (a server's sink nudges), or
when nothing advances for a while; always only what has been out for longer than a round trip. An ACK that
does not advance means nothing by itself unless it says that it comes from a timer (echo 0): answering each
with data makes a storm.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.header import (
    ACKME,
    DATA_HEADER,
    MOREDATA,
    RETRY,
    SFTP_DATA,
    SFTP_SUBSYSTEM,
    SFTP_VERSION,
    timestamp,
)
from realmfs.rpc2.parameters import HEADER_SIZE, SftpParameters
from realmfs.rpc2.sftp import Transfer, chosen_size
from realmfs.rpc2.transfer import Source

if TYPE_CHECKING:
    from realmfs.rpc2.filelink import FileLink

_MASK_BITS = 64
_FIRST_RESEND = 0.15
_LONGEST_RESEND = 4.0
_YOUNG = 0.005


class SourceTransfer(Transfer):
    """The sending end. A client's waits for START, a server's is started at once."""

    def __init__(self, link: FileLink, source: Source, call: int, echo: int, now: float) -> None:
        super().__init__(link, call, echo, now)
        self._source = source
        self._size = source.size
        self._offset = 0
        self._parameters: SftpParameters | None = None
        self._data_size = 0
        self._acked = self._sent = self._first = link.number_out
        self._all_read = False
        self._bodies: list[bytes] = []
        self._times: list[float] = []
        self._mask = 0
        self._resend_after = _FIRST_RESEND
        self._advanced = now

    @property
    def started(self) -> bool:
        """Tell whether any data has gone."""
        return self._sent != self._first

    def settle(self, now: float) -> bool:
        """Tell whether everything was sent; what was not acknowledged yet has arrived, too."""
        if not self._all_read:
            return False
        self.moved = self._size
        self.link.number_out = self._sent
        return True

    def start(self, parameters: SftpParameters, now: float) -> None:
        """Begin to send."""
        self._parameters = parameters
        self._data_size = chosen_size(parameters, self.link.hub.packet_size(self.link.peer)) - HEADER_SIZE
        self.heard = self._advanced = now
        self._pump(now)

    def receive_start(self, parameters: SftpParameters | None, stamp: int, now: float) -> None:
        """Take the server's word that it is ready, or that it misses something."""
        self.heard = now
        self.echo = stamp
        if self._parameters is None:
            if parameters is not None:
                self.start(parameters, now)
        elif self._bodies and self._is_old(0, now):
            self._resend([0], now)

    def receive_ack(self, words: tuple[int, ...], now: float) -> None:
        """Take an ACK."""
        _, _, _, _, _, _, _, _, got_all, _, mask_high, mask_low, _, stamp, echo = words
        if not self._acked <= got_all <= self._sent:
            return
        self.heard = now
        self.echo = stamp
        count = got_all - self._acked
        if count:
            self._acked = got_all
            self._advanced = now
            self._resend_after = _FIRST_RESEND
            self.moved += sum(map(len, self._bodies[:count]))
            del self._bodies[:count]
            del self._times[:count]
            self.link.sample(echo, now)
            if not self._bodies and self._all_read:
                self.link.number_out = self._sent
                self.finish(now)
                return
        self._mask = mask_high << 32 | mask_low
        if not self._mask and not count and not echo and self._bodies and self._is_old(0, now):
            self._resend([0], now)

    def end_of_burst(self, now: float) -> None:
        """Fill the room that all acknowledgements of this burst have made."""
        if self._parameters is not None and not self.done:
            self._pump(now)

    def on_timer(self, now: float) -> None:
        """Send again what may be lost; give up when the peer has been silent, or idle, for too long."""
        patience = self.link.hub.schedule.dead_after
        if now - self.heard >= patience or now - self._advanced >= 2 * patience:
            self.fail(Rpc2Code.SEFAIL2, "the peer stopped taking the file", now)
            return
        missing = {index for index in self._holes() if self._is_old(index, now)}
        if now >= self._lost_at:
            self._resend_after = min(2 * self._resend_after, _LONGEST_RESEND)
            missing.add(0)
        if missing:
            self._resend(sorted(missing), now)
        self._arm(now)

    # Sending

    def _pump(self, now: float) -> None:
        """Fill the window, if it is worth while: few packets a time cost as much as many."""
        parameters = self._parameters
        assert parameters is not None
        room = parameters.window - len(self._bodies)
        if not self._all_read and 2 * room >= parameters.send_ahead:
            bodies = self._read(room, now)
            if self.done:
                return
            self._send_new(bodies, parameters.send_ahead, now)
        self._arm(now)

    def _read(self, packets: int, now: float) -> list[bytes]:
        size = self._data_size
        wanted = min(packets * size, self._size - self._offset)
        try:
            data = self._source.read(self._offset, wanted)
        except Exception as error:  # goes on as the cause
            self.fail(Rpc2Code.SEFAIL4, f"the source failed: {error}", now, error)
            return []
        if len(data) != wanted:
            self.fail(Rpc2Code.SEFAIL4, f"the source ends {wanted - len(data)} bytes early", now)
            return []
        self._offset += wanted
        self._all_read = self._offset == self._size
        return [data[start : start + size] for start in range(0, wanted, size)] or [b""]

    def _send_new(self, bodies: list[bytes], batch: int, now: float) -> None:
        link = self.link
        assert link.sealer is not None
        pack, seal = DATA_HEADER.pack, link.sealer.seal
        remote, handle, call, echo = link.identity.remote, link.identity.handle, self.call, self.echo
        stamp = timestamp(now)
        final = self._sent + len(bodies)
        datagrams = []
        for number, body in enumerate(bodies, self._sent + 1):
            ackme = ACKME if number == final or (number - self._sent) % batch == 0 else 0
            more = 0 if number == final and self._all_read else MOREDATA
            header = pack(
                SFTP_VERSION, remote, handle, ackme, len(body), number, SFTP_DATA, more, 0, SFTP_SUBSYSTEM,
                0, 0, call, stamp, echo,
            )  # fmt: skip
            datagrams.append(seal(header + body))
        self._sent = final
        self._bodies += bodies
        self._times += [now] * len(bodies)
        link.hub.send(link.peer, datagrams)

    def _resend(self, indexes: list[int], now: float) -> None:
        """Send some packets again, by their place behind `acked`; the first of them asks for an ACK."""
        link = self.link
        assert link.sealer is not None
        datagrams = []
        flags = RETRY | ACKME
        for index in indexes:
            number, body = self._acked + 1 + index, self._bodies[index]
            more = 0 if number == self._sent and self._all_read else MOREDATA
            header = DATA_HEADER.pack(
                SFTP_VERSION, link.identity.remote, link.identity.handle, flags, len(body), number, SFTP_DATA,
                more, 0, SFTP_SUBSYSTEM, 0, 0, self.call, timestamp(now), 0,
            )  # fmt: skip
            datagrams.append(link.sealer.seal(header + body))
            self._times[index] = now
            flags = RETRY
        link.hub.counters["data_resent"] += len(datagrams)
        link.hub.send(link.peer, datagrams)

    # What is missing

    def _holes(self) -> list[int]:
        """Return the places behind `acked` that the last ACK showed as missing."""
        if not self._mask:
            return []
        span = _MASK_BITS - ((self._mask & -self._mask).bit_length() - 1)
        top = _MASK_BITS - 1
        return [i for i in range(min(span, len(self._bodies))) if not self._mask >> (top - i) & 1]

    def _is_old(self, index: int, now: float) -> bool:
        return now >= self._times[index] + self._youth

    @property
    def _youth(self) -> float:
        """How long a packet may well be on its way still."""
        return max(1.25 * (self.link.host.round_trip or 0.1), _YOUNG)

    @property
    def _lost_at(self) -> float:
        """When the first packet must be believed lost if nothing advances."""
        return max(self._times[0], self._advanced) + max(self._resend_after, self.link.host.rto)

    def _arm(self, now: float) -> None:
        if not self._times:
            self.deadline = inf
            return
        self.deadline = self._lost_at
        holes = self._holes()
        if holes:
            self.deadline = min(self.deadline, min(self._times[index] for index in holes) + self._youth)
