r"""Packets on a stream: what the tunnel puts before each of them (sftp.md §14).

    "magic01\0" (8) | is_retry (4) | is_init0 (4) | packet length (4) | address length (4) | address (128)

The reference fills the address with whatever it has in memory, and ignores all but magic and length; so do
we, and send zeros. It takes a TLS record for a packet, so whoever sends must seal each frame by itself.
"""

from __future__ import annotations

import struct

from realmfs.rpc2.errors import BadPacket

_PREFIX = struct.Struct(">8s4x4xI4x128x")
PREFIX_SIZE = _PREFIX.size
_MAGIC = b"magic01\0"
MAX_PACKET = 4500
"""The reference drops the connection over a longer one."""


def frame(packet: bytes) -> bytes:
    """Return a packet as it goes into the tunnel."""
    return _PREFIX.pack(_MAGIC, len(packet)) + packet


class Deframer:
    """Cuts what comes out of the tunnel into packets, wherever the pieces begin and end."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the packets that are whole by now. Raises BadPacket: no way on."""
        if self._rest:
            data = self._rest + data
        packets = []
        at, size = 0, len(data)
        while size - at >= PREFIX_SIZE:
            magic, length = _PREFIX.unpack_from(data, at)
            if magic != _MAGIC or length > MAX_PACKET:
                raise BadPacket("what comes out of the tunnel is no packet")
            end = at + PREFIX_SIZE + length
            if end > size:
                break
            packets.append(data[at + PREFIX_SIZE : end])
            at = end
        self._rest = data[at:]
        return packets
