"""AES-XCBC-MAC, and the key derivation that rests on it (rpc2-secure.md §2, §3).

The derivation is PBKDF2 by name only: the reference clears the input of every inner iteration before
reading it, so that 10 000 of them come down to one constant. A genuine PBKDF2 does not interoperate.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

BLOCK = 16


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(BLOCK, "big")


def _block_cipher(key: bytes) -> CipherContext:
    return Cipher(AES(key), ECB()).encryptor()  # single blocks only; the mode around them is ours


class Xcbc:
    """AES-XCBC-MAC (RFC 3566) under one key of 16 bytes."""

    def __init__(self, key: bytes) -> None:
        cipher = _block_cipher(key)
        first, self._full, self._padded = (cipher.update(bytes([n]) * BLOCK) for n in (1, 2, 3))
        self._chain = _block_cipher(first)

    def mac(self, message: bytes) -> bytes:
        """Return the 16 bytes; users cut off what they need."""
        last = (len(message) - 1) // BLOCK * BLOCK if message else 0
        state = bytes(BLOCK)
        for offset in range(0, last, BLOCK):
            state = self._chain.update(_xor(state, message[offset : offset + BLOCK]))
        tail = message[last:]
        if len(tail) == BLOCK:
            tail = _xor(tail, self._full)
        else:
            tail = _xor((tail + b"\x80").ljust(BLOCK, b"\0"), self._padded)
        return self._chain.update(_xor(state, tail))


def derive_key(secret: bytes, salt: bytes, length: int = 48) -> bytes:
    """Derive `length` bytes of key from a shared secret, as the reference really does it."""
    if len(secret) > BLOCK:
        secret = Xcbc(bytes(BLOCK)).mac(secret)
    prf = Xcbc(secret.ljust(BLOCK, b"\0"))
    constant = prf.mac(bytes(BLOCK))
    count = -(-length // BLOCK)
    blocks = (_xor(prf.mac(salt + n.to_bytes(4, "big")), constant) for n in range(1, count + 1))
    return b"".join(blocks)[:length]
