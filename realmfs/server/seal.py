"""A seal on the passwords of a realm, whose key is in nobody's store: it comes from a passphrase by scrypt.

A login server needs each password's 8 bytes as they are (auth.md §2.1), so it cannot keep a hash in their
place. It need not keep them in the clear, though: what lies on the disk, and in backups, can be sealed under
a key that the running server alone has. That key is made by a memory-hard function, since whoever steals the
disk will try passphrases.

    setting `seal`    16 bytes of salt, then a known text sealed: so a wrong passphrase is known as such
    password.key      8 bytes as they are; or sealed: nonce (12), then key and tag (8 + 16), bound to the user
                      (all zeros and all ones, an account that is closed, are never sealed)

All servers of a realm have the same seal: it travels with the passwords, and each needs the passphrase.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT: Final = 16
_NONCE: Final = 12
_COST: Final = 1 << 16
_BLOCK: Final = 8
"""128 * _COST * _BLOCK bytes: 64 MiB for each guess, and some 0.2 s."""
_KNOWN: Final = b"realmfs: passwords are sealed"


class SealError(Exception):
    """What is sealed cannot be opened; the text says why."""


class Seal:
    """A seal whose key is known."""

    def __init__(self, passphrase: bytes, stored: bytes | None = None) -> None:
        """Make a new seal, or open the one that is stored. Raises SealError for a wrong passphrase."""
        salt = secrets.token_bytes(_SALT) if stored is None else stored[:_SALT]
        key = hashlib.scrypt(
            passphrase, salt=salt, n=_COST, r=_BLOCK, p=1, maxmem=256 * _COST * _BLOCK, dklen=32
        )
        self._cipher = AESGCM(key)
        if stored is None:
            stored = salt + self._close(_KNOWN, b"seal")
        elif self._open(stored[_SALT:], b"seal") != _KNOWN:
            raise SealError("this is no seal")
        self.stored = stored
        """What is kept of it; no secret."""

    def close(self, key: bytes, user: int) -> bytes:
        """Seal a user's key."""
        return self._close(key, b"%d" % user)

    def open(self, sealed: bytes, user: int) -> bytes:
        """Return a user's key. Raises SealError."""
        return self._open(sealed, b"%d" % user)

    def _close(self, data: bytes, purpose: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data, purpose)

    def _open(self, sealed: bytes, purpose: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose)
        except (InvalidTag, ValueError):
            raise SealError("the passphrase is wrong") from None
