"""The 60 bytes in front of every packet, and the packets that are nothing but a header (rpc2.md §2, §3).

RPC2 and SFTP packets share the layout but not the meaning of some words. `Header` is the RPC2 reading,
`DATA_HEADER` the fifteen unsigned words of SFTP (sftp.md §1): its packets are too many for an object each.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.parameters import HEADER_SIZE

RPC2_VERSION = 8
SFTP_VERSION = 3
FIRST_HANDLE = 256
"""Smaller first words tell the version of a plain packet, larger ones the handle of a protected one."""

WORD = 0xFFFFFFFF
NO_HANDLE = WORD

RETRY = 0x1
SECURE_CAPABLE = 0x10
ACKME = 0x80000000

MOREDATA = 0x1
PIGGY = 0x2
ALLOVER = 0x4
FIRST = 0x10

SFTP_SUBSYSTEM = 1189
SFTP_SIDE_EFFECT = 1189


class Op(IntEnum):
    """Opcodes of packets that are not requests."""

    INIT1OPENKIMONO = -2
    INIT1AUTHONLY = -3
    INIT1HEADERSONLY = -4
    INIT1SECURE = -5
    REPLY = -8
    INIT2 = -10
    INIT3 = -11
    INIT4 = -12
    BUSY = -14
    INITMULTICAST = -15
    NAKED = -2016


class SftpOp(IntEnum):
    """Opcodes of SFTP packets."""

    START = 1
    ACK = 2
    DATA = 3
    NAK = 4
    RESET = 5
    BUSY = 6


# Plain numbers for the code that runs for every packet: an enum member costs more to look up than to compare.
OP_REPLY = int(Op.REPLY)
OP_BUSY = int(Op.BUSY)
OP_NAKED = int(Op.NAKED)
SFTP_START = int(SftpOp.START)
SFTP_ACK = int(SftpOp.ACK)
SFTP_DATA = int(SftpOp.DATA)

DATA_HEADER = struct.Struct(">15I")
_HEADER = struct.Struct(">6Ii3Ii4I")


class Header(NamedTuple):
    """An RPC2 header. `remote` is the receiver's handle, `local` the sender's, as the sender sees it."""

    version: int = RPC2_VERSION
    remote: int = 0
    local: int = 0
    flags: int = 0
    length: int = 0
    sequence: int = 0
    opcode: int = 0
    se_flags: int = 0
    se_offset: int = 0
    subsystem: int = 0
    return_code: int = 0
    lamport: int = 0
    uniquefier: int = 0
    timestamp: int = 0
    bind_time: int = 0

    def pack(self) -> bytes:
        """Return the 60 bytes."""
        return _HEADER.pack(*self)


def split(packet: bytes) -> tuple[Header, bytes]:
    """Take an RPC2 packet apart into header and body. Raises BadPacket."""
    if len(packet) < HEADER_SIZE:
        raise BadPacket(f"{len(packet)} bytes are no packet")
    header = Header._make(_HEADER.unpack_from(packet))
    end = HEADER_SIZE + header.length
    if end > len(packet):
        raise BadPacket(f"a body of {header.length} bytes in a packet of {len(packet)}")
    return header, packet[HEADER_SIZE:end]


def naked(offender: int, *, sftp: bool = False) -> bytes:
    """Return the answer to a packet for nobody, whose sender's handle is `offender` (rpc2.md §8)."""
    if sftp:
        return Header(SFTP_VERSION, offender, NO_HANDLE, opcode=SftpOp.NAK).pack()
    return Header(RPC2_VERSION, offender, NO_HANDLE, opcode=Op.NAKED).pack()


def timestamp(now: float) -> int:
    """Return a time in seconds as the microsecond clock of the wire, which is never 0."""
    return int(now * 1e6) & WORD or 1


def elapsed(now: float, stamp: int) -> float:
    """Return the seconds from a stamp of our own clock to now; negative if it lies in the future."""
    microseconds = (int(now * 1e6) - stamp) & WORD
    return (microseconds - (microseconds >> 31 << 32)) / 1e6
