"""What both ends of a file transfer have in common (sftp.md §1-§3).

A transfer lives inside one call. DATA packets are numbered per direction for the life of the connection,
and the side that takes the file answers with ACK: the highest number up to which all arrived, and a mask of
64 bits for those behind it. Only the server end has START, to say that it is ready to take a file.

    fetch    client: request           server: DATA ... DATA      client: ACK ...      server: reply
    store    client: request  server: START  client: DATA ...     server: ACK ...      server: reply
"""

# ruff: noqa: B027  # what one kind of transfer has no use for is empty on purpose
from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.header import DATA_HEADER, SFTP_SUBSYSTEM, SFTP_VERSION, timestamp
from realmfs.rpc2.parameters import SftpParameters

if TYPE_CHECKING:
    from realmfs.rpc2.filelink import FileLink

REFERENCE_PARAMETERS = SftpParameters(window=32, send_ahead=8, ack_point=8, packet_size=1084, near=0.0)
REFERENCE_PACKET = 1084
"""The packet size of everybody who never thought about it; a smaller one is meant."""


def negotiate(own: SftpParameters, theirs: SftpParameters, packet_size: int) -> SftpParameters:
    """Return what a server works with: the minimum of both sides, but for the packet size.

    Reference peers take any size that a packet can have [sftp.md §3], so ours (`packet_size`) holds unless
    the client asks for less than the default. The window never falls below what is sent at once: the
    reference dies of it.
    """
    window = min(own.window, theirs.window)
    send_ahead = min(own.send_ahead, theirs.send_ahead, window)
    return SftpParameters(
        window,
        send_ahead,
        min(own.ack_point, theirs.ack_point, send_ahead),
        chosen_size(theirs, packet_size),
        min(own.dup_threshold, theirs.dup_threshold),
    )


def chosen_size(theirs: SftpParameters, packet_size: int) -> int:
    """Return the packet size to send with towards a peer that named its own."""
    return packet_size if theirs.packet_size >= REFERENCE_PACKET else theirs.packet_size


class Transfer(ABC):
    """One end of one transfer. Ends with `done`; `failure` tells how if not well."""

    def __init__(self, link: FileLink, call: int, echo: int, now: float) -> None:
        self.link = link
        self.call = call
        """Sequence number of the request that this transfer belongs to."""
        self.echo = echo
        """Time stamp of the newest packet from the peer."""
        self.deadline = inf
        self.done = False
        self.failure: RpcError | None = None
        self.moved = 0
        self.began = now
        self.heard = now

    @property
    @abstractmethod
    def started(self) -> bool:
        """Tell whether any data has gone or come."""

    @abstractmethod
    def settle(self, now: float) -> bool:
        """The reply says that the side effect is over: tell whether it is so here."""

    def receive_data(self, words: tuple[int, ...], packet: bytes, now: float) -> None:
        """Take a DATA packet; sources ignore it."""

    def receive_ack(self, words: tuple[int, ...], now: float) -> None:
        """Take an ACK; sinks ignore it."""

    def receive_start(self, parameters: SftpParameters | None, stamp: int, now: float) -> None:
        """Take a START; sinks ignore it."""

    def end_of_burst(self, now: float) -> None:
        """Do what is done once for all packets that came together."""

    def on_timer(self, now: float) -> None:
        """Act on the deadline."""

    def finish(self, now: float) -> None:
        """End well."""
        self.done = True
        self.deadline = inf
        self.link.host.moved(self.moved, now - self.began)
        self.link.transfer_done(now)

    def fail(self, code: Rpc2Code, text: str, now: float, cause: BaseException | None = None) -> None:
        """End badly: after this the two ends no longer agree about numbers."""
        self.done = True
        self.deadline = inf
        self.failure = RpcError(code, text)
        self.failure.__cause__ = cause
        self.link.transfer_done(now)

    def control(
        self,
        opcode: int,
        now: float,
        *,
        echo: int,
        se_flags: int = 0,
        got_all: int = 0,
        mask: int = 0,
        body: bytes = b"",
    ) -> None:
        """Send a START or an ACK."""
        link = self.link
        link.control_number += 1
        header = DATA_HEADER.pack(
            SFTP_VERSION,
            link.identity.remote,
            link.identity.handle,
            0,
            len(body),
            link.control_number & 0xFFFFFFFF,
            opcode,
            se_flags,
            got_all,
            SFTP_SUBSYSTEM,
            mask >> 32,
            mask & 0xFFFFFFFF,
            self.call,
            timestamp(now),
            echo,
        )
        link.transmit(header + body)
