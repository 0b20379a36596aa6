"""Tokens: what a user gets by logging in, and shows to file servers (auth.md §4, §7).

A token has two parts. The *clear* part is for its owner: a key for the handshake with file servers, who he
is, and how long it lasts. The *secret* part is for the servers alone: the same, encrypted under a key that
auth2 shares with them. The client hands it over as it got it.

    secret token, 56 bytes: initialisation vector 16 | two blocks under AES-256-CBC 32 | MAC over both, 8
    the two blocks: C0 DA | key length 8 | id length n | end 4 | handshake key 8 | id, n digits | 01 02 03 ...

Nothing here reads a clock or draws random numbers: both come from the caller. No `repr` shows a key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.kdf import Xcbc, derive_key
from realmfs.vice.auth import CLEAR_TOKEN_SIZE, KEY_SIZE, SECRET_TOKEN_SIZE, GetTokens

LIFETIME: Final = 25 * 3600
"""Seconds for which auth2 issues tokens."""
HEAD_START: Final = 900
"""Seconds by which a token begins before it is issued."""
IV_SIZE: Final = 16
FILE_HEADER: Final = b"*** Coda Token ***\n"

_CLEAR: Final = struct.Struct(">i8sIII")
_HEAD: Final = struct.Struct(">2sBBI8s")
_MAGIC: Final = b"\xc0\xda"
_MAC_SIZE: Final = 8
_CIPHER_SIZE: Final = 32
_ID_ROOM: Final = 16
_LONGEST_ID: Final = 10
_NO_HANDLE: Final = -1
_LINE: Final = 72


class BadToken(BadPacket):
    """A secret token that no key opens, or that has expired. The text is for the log, not for the client."""


@dataclass(frozen=True, slots=True)
class ClearToken:
    """The part of a token that its owner reads: 24 bytes."""

    handshake_key: bytes = field(repr=False)
    """The shared secret for binds to file servers, 8 bytes."""
    vice_id: int
    begin: int
    """Seconds since 1970; no server looks at it."""
    end: int
    """Seconds since 1970. Send nothing on the token's connections from a minute before (auth.md §4.5)."""

    def pack(self) -> bytes:
        """Return the 24 bytes."""
        return _CLEAR.pack(_NO_HANDLE, self.handshake_key, self.vice_id, self.begin, self.end)

    @classmethod
    def unpack(cls, data: bytes) -> ClearToken:
        """Read 24 bytes. Raises BadPacket."""
        if len(data) != CLEAR_TOKEN_SIZE:
            raise BadPacket(f"a clear token of {len(data)} bytes")
        _handle, handshake_key, vice_id, begin, end = _CLEAR.unpack(data)
        return cls(handshake_key, vice_id, begin, end)


@dataclass(frozen=True, slots=True)
class Token:
    """Both parts of a token."""

    clear: ClearToken
    secret: bytes = field(repr=False)
    """56 bytes that only servers can read."""

    @classmethod
    def from_reply(cls, reply: GetTokens.Reply) -> Token:
        """Read what auth2 answered. Raises BadPacket."""
        return cls(ClearToken.unpack(reply.clear), reply.secret)

    def reply(self) -> GetTokens.Reply:
        """Return what auth2 answers."""
        return GetTokens.Reply(secret=self.secret, clear=self.clear.pack())

    def seconds_left(self, now: float) -> float:
        """Return how long the token still holds; negative if it has expired."""
        return self.clear.end - now


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who a file server talks to, by a token that it has verified."""

    vice_id: int
    handshake_key: bytes = field(repr=False)
    end: int


class TokenKey:
    """The key that auth2 shares with the file servers, ready for use."""

    __slots__ = ("_cipher_key", "_mac")

    def __init__(self, contents: bytes) -> None:
        """Take the contents of a token key file, of which 8 bytes count (auth.md §4.4)."""
        keys = derive_key(contents[:KEY_SIZE].ljust(KEY_SIZE, b"\0"), b"", 48)
        self._cipher_key = keys[:32]
        self._mac = Xcbc(keys[32:])

    def mint(
        self, vice_id: int, now: int, *, handshake_key: bytes, iv: bytes, lifetime: int = LIFETIME
    ) -> Token:
        """Make a token. `handshake_key` (8 bytes) and `iv` (16 bytes) must be freshly drawn at random."""
        end = now + lifetime
        identity = b"%d" % vice_id
        head = _HEAD.pack(_MAGIC, KEY_SIZE, len(identity), end, handshake_key)
        encryptor = Cipher(AES(self._cipher_key), CBC(iv)).encryptor()
        sealed = iv + encryptor.update(head + identity + _padding(len(identity))) + encryptor.finalize()
        secret = sealed + self._mac.mac(sealed)[:_MAC_SIZE]
        return Token(ClearToken(handshake_key, vice_id, now - HEAD_START, end), secret)

    def open(self, secret: bytes) -> Bearer:
        """Return who a secret token is for, expired or not. Raises BadToken (auth.md §4.2)."""
        if len(secret) != SECRET_TOKEN_SIZE:
            raise BadToken(f"{len(secret)} bytes")
        sealed, mac = secret[:-_MAC_SIZE], secret[-_MAC_SIZE:]
        if not hmac.compare_digest(self._mac.mac(sealed)[:_MAC_SIZE], mac):
            raise BadToken("not made under this key")
        decryptor = Cipher(AES(self._cipher_key), CBC(sealed[:IV_SIZE])).decryptor()
        plain = decryptor.update(sealed[IV_SIZE:]) + decryptor.finalize()
        magic, key_size, id_size, end, handshake_key = _HEAD.unpack_from(plain)
        identity = plain[_HEAD.size : _HEAD.size + id_size]
        if (
            magic != _MAGIC
            or key_size != KEY_SIZE
            or not 1 <= id_size <= _LONGEST_ID
            or not identity.isdigit()
        ):
            raise BadToken("made under this key, but of another form")
        if plain[_HEAD.size + id_size :] != _padding(id_size):
            raise BadToken("made under this key, but badly padded")
        return Bearer(int(identity), handshake_key, end)


def verify(secret: bytes, keys: Iterable[TokenKey], now: float) -> Bearer:
    """Return who a secret token is for, if one of the keys opens it and it still holds. Raises BadToken."""
    reason = BadToken("there is no key")
    for key in keys:
        try:
            bearer = key.open(secret)
        except BadToken as error:
            reason = error
            continue
        if bearer.end <= now:
            raise BadToken(f"the token of {bearer.vice_id} expired {now - bearer.end:.0f} s ago")
        return bearer
    raise reason


def _padding(id_size: int) -> bytes:
    return bytes(range(1, _ID_ROOM - id_size + 1))


def format_token_file(token: Token) -> bytes:
    """Return the contents of a token file, as `clog -tofile` writes it. Create it with mode 0600."""
    text = base64.b64encode(token.clear.pack() + token.secret)
    lines = [text[start : start + _LINE] + b"\n" for start in range(0, len(text), _LINE)]
    return FILE_HEADER + b"".join(lines)


def parse_token_file(contents: bytes) -> Token:
    """Read a token file, however its lines are broken and whatever the first one says. Raises BadPacket."""
    _header, _newline, body = contents.partition(b"\n")
    try:
        data = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise BadPacket("a token file that is no base64") from None
    if len(data) != CLEAR_TOKEN_SIZE + SECRET_TOKEN_SIZE:
        raise BadPacket(f"a token file of {len(data)} bytes")
    return Token(ClearToken.unpack(data[:CLEAR_TOKEN_SIZE]), data[CLEAR_TOKEN_SIZE:])
