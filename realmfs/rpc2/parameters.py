"""What an endpoint can be told: how long to wait, how to move files, how much state strangers may cause."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from realmfs.rpc2.errors import BadPacket

HEADER_SIZE = 60
MAX_BODY = 4226
"""Largest body (with piggybacked data) that every peer takes inside the secure layer (rpc2.md §12)."""

_BLOCK = struct.Struct(">24x5I")
BLOCK_SIZE = _BLOCK.size


@dataclass(frozen=True, slots=True)
class Timers:
    """The retransmission schedule in seconds (rpc2.md §6).

    `keepalive` is KA and `retries` is N of the documents: silence of about keepalive / 2 makes a peer dead.
    """

    keepalive: float = 60.0
    retries: int = 5
    slack: float = 0.1
    busy_after: float = 0.1
    longest_wait: float = 30.0

    def wait(self, attempt: int, rto: float) -> float:
        """How long to wait for an answer after transmission number `attempt` (0 is the first)."""
        base = rto if attempt == 0 else max(rto, self.keepalive / 4 / 2 ** (self.retries - attempt))
        return min(base + self.slack, self.longest_wait)

    def busy_wait(self, rto: float) -> float:
        """How long a peer that said BUSY is left alone before it is asked again."""
        return min(max(rto, self.keepalive / 4) + self.slack, self.longest_wait)

    @property
    def dead_after(self) -> float:
        """Silence that ends a transfer; also how long the whole schedule lasts, nearly."""
        return self.keepalive / 2

    @property
    def reply_kept(self) -> float:
        """How long a reply is saved for a retransmitted request."""
        return 2 * self.keepalive


@dataclass(frozen=True, slots=True)
class SftpParameters:
    """How files move, as negotiated field by field (sftp.md §3). `packet_size` includes the 60-byte header.

    The packet size fits an Ethernet frame inside the secure layer; on the loopback interface
    `loopback_packet_size` takes its place, in a tunnel, where each packet costs a TLS record, the largest.
    To a peer whose round trip is shorter than `near` seconds small files ride with replies of any size.
    """

    window: int = 64
    send_ahead: int = 16
    ack_point: int = 2
    packet_size: int = 1438
    dup_threshold: int = 4
    loopback_packet_size: int = 2800
    tunnel_packet_size: int = HEADER_SIZE + MAX_BODY
    near: float = 0.005

    def pack(self) -> bytes:
        """Return the block of 44 bytes."""
        return _BLOCK.pack(self.window, self.send_ahead, self.ack_point, self.packet_size, self.dup_threshold)

    @classmethod
    def unpack(cls, block: bytes) -> SftpParameters:
        """Read a block; values no transfer could work with become the nearest that can. Raises BadPacket."""
        if len(block) != BLOCK_SIZE:
            raise BadPacket(f"a parameter block of {len(block)} bytes")
        window, send_ahead, ack_point, packet_size, dup_threshold = _BLOCK.unpack(block)
        window = min(max(window, 2), 64)  # the masks of an ACK have 64 bits
        send_ahead = min(max(send_ahead, 1), window)
        return cls(
            window,
            send_ahead,
            min(max(ack_point, 1), send_ahead),
            min(max(packet_size, 240), HEADER_SIZE + MAX_BODY),
            dup_threshold,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """How much state peers may cause here, in connections."""

    half_open: int = 512
    half_open_per_host: int = 32
    connections: int = 8192
    connections_per_peer: int = 256
    half_open_for: float = 15.0
