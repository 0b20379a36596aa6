"""The bodies of the four packets that bind (rpc2.md §4.1, §4.2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.header import Op
from realmfs.rpc2.service import Level

VERSION_TEXT = b"Version 15.0: JH, 10 Dec 1998, 12:00"
SECURE_VERSION = 1
SALT_SIZE = 8
SHORTEST_KEY = 19
LONGEST_KEY = 35
"""Key bytes for AES-CCM: 16 or 32 of AES key and 3 of salt."""

XOR_ENCRYPTION = 2
"""The legacy encryption type that every INIT1 but an open one must name; nothing uses it."""

OPCODE_OF_LEVEL = {
    Level.OPENKIMONO: Op.INIT1OPENKIMONO,
    Level.AUTHONLY: Op.INIT1AUTHONLY,
    Level.HEADERSONLY: Op.INIT1HEADERSONLY,
    Level.SECURE: Op.INIT1SECURE,
}
LEVEL_OF_OPCODE = {int(opcode): level for level, opcode in OPCODE_OF_LEVEL.items()}

_INIT1 = struct.Struct(">5I4x4s92x4xII4x96s")
_KEY_OFFER = struct.Struct(">3I")
_INIT4 = struct.Struct(">I8s8sI")
_MARK = b"realmfs\1"
"""In INIT4, in bytes that others leave to chance: a server of our own kind, version 1. The uniquefier of the
bind follows, so that a mark which lies about in a reference server's buffer is not taken for one."""


@dataclass(frozen=True, slots=True)
class Init1:
    """What a client says first, in the clear."""

    side_effect: int
    level: int
    encryption_type: int
    auth_type: int
    xrandom: bytes
    ident: bytes
    secure_version: int = SECURE_VERSION
    key_length: int = 0
    version_text: bytes = VERSION_TEXT

    def pack(self) -> bytes:
        """Return the body."""
        fixed = _INIT1.pack(
            self.side_effect,
            self.level,
            self.encryption_type,
            self.auth_type,
            len(self.ident),
            self.xrandom,
            self.secure_version,
            self.key_length,
            self.version_text,
        )
        return fixed + self.ident

    @classmethod
    def unpack(cls, body: bytes) -> Init1:
        """Read the body. Raises BadPacket."""
        if len(body) < _INIT1.size:
            raise BadPacket("a short INIT1")
        side_effect, level, encryption, auth, size, xrandom, version, key_length, text = _INIT1.unpack_from(
            body
        )
        ident = body[_INIT1.size : _INIT1.size + size]
        if len(ident) != size:
            raise BadPacket("the identity is cut off")
        return cls(
            side_effect,
            level,
            encryption,
            auth,
            xrandom,
            ident,
            version,
            key_length,
            text.partition(b"\0")[0],
        )


def salt(xrandom: bytes, uniquefier: int) -> bytes:
    """Return what salts the derivation of the key for INIT2."""
    return xrandom + uniquefier.to_bytes(4, "big")


@dataclass(frozen=True, slots=True, repr=False)
class KeyOffer:
    """INIT2 and INIT3: the key that the receiver of this body shall send with."""

    version: int
    auth: int
    cipher: int
    key: bytes

    def pack(self) -> bytes:
        """Return the body."""
        return _KEY_OFFER.pack(self.version, self.auth, self.cipher) + self.key

    @classmethod
    def unpack(cls, body: bytes) -> KeyOffer:
        """Read the body. Raises BadPacket."""
        if len(body) < _KEY_OFFER.size:
            raise BadPacket("a short key offer")
        version, auth, cipher = _KEY_OFFER.unpack_from(body)
        return cls(version, auth, cipher, body[_KEY_OFFER.size :])


def pack_init4(first_sequence: int, uniquefier: int) -> bytes:
    """Return the body of INIT4; its session key is a relic, and zero."""
    return _INIT4.pack(first_sequence, bytes(8), _MARK, uniquefier)


def unpack_init4(body: bytes, uniquefier: int) -> tuple[int, bool]:
    """Return the number of the first request, and whether the server is of our own kind. Raises BadPacket."""
    if len(body) < _INIT4.size:
        raise BadPacket("a short INIT4")
    sequence, _, mark, echo = _INIT4.unpack_from(body)
    return sequence, mark == _MARK and echo == uniquefier
