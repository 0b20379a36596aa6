"""The AES layer: each packet sealed in an ESP-like envelope (rpc2-secure.md §1, §2, §5).

    SPI (4) | sequence (4) | IV | encrypted: packet, pad, pad length (1), next header (1) | check value

A connection has one direction of sending, a sealer, and one of receiving, an opener; each has a key of its
own that the *receiving* side chose. When the handshake changes the key, sequence number and replay window
go on.
"""

from __future__ import annotations

import struct
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.kdf import BLOCK, Xcbc

AUTH_NONE = 0
AUTH_XCBC = 9
CIPHER_CBC = 12
CIPHER_CCM_8 = 14
_CCM_TAGS = {14: 8, 15: 12, 16: 16}

WINDOW = 64
LAST_SEQUENCE = 0xFFFFFFFF
_WINDOW_MASK = (1 << WINDOW) - 1
_XCBC_TAG = 12
_MAC_KEY = 16
_CCM_SALT = 3

_SPI_SEQUENCE = struct.Struct(">II")
_SPI_SEQUENCE_IV = struct.Struct(">IIQ")

# What follows a packet, by the number of pad bytes: 1, 2, ... p, then p, then the next header 0.
_TRAILERS = tuple(bytes([*range(1, p + 1), p, 0]) for p in range(256))
# The shortest trailer that fills up the last block, by the packet's size modulo 16.
_SHORTEST = tuple(_TRAILERS[(BLOCK - 2 - n) % BLOCK] for n in range(BLOCK))


class BadSeal(BadPacket):
    """The check value is wrong: damaged, forged, or sealed under another key."""


class Sealer(Protocol):
    """Protects the packets of one direction."""

    sequence: int
    """Number of the packet sealed last; numbers above LAST_SEQUENCE do not exist."""

    def seal(self, packet: bytes) -> bytes:
        """Return the datagram. Each call makes a new one, also for the same packet."""
        ...


class Opener(Protocol):
    """Takes the packets of one direction out of their envelopes."""

    window: ReplayWindow

    def open(self, datagram: bytes) -> bytes:
        """Return the packet. Raises BadPacket: repeated, too old, not ours, or (BadSeal) not authentic."""
        ...


class ReplayWindow:
    """Which of the last 64 sequence numbers have been seen. Bit n stands for `highest` - n."""

    __slots__ = ("_bits", "_highest")

    def __init__(self) -> None:
        self._highest = 0
        self._bits = 1  # number 0 is never used

    def check(self, sequence: int) -> None:
        """Raise BadPacket for a number seen before or too old to know."""
        age = self._highest - sequence
        if age >= 0 and (age >= WINDOW or self._bits >> age & 1):
            raise BadPacket("a repeated or very late packet")

    def note(self, sequence: int) -> None:
        """Remember a number, once its packet has proved authentic."""
        ahead = sequence - self._highest
        if ahead > 0:
            self._bits = (self._bits << ahead | 1) & _WINDOW_MASK if ahead < WINDOW else 1
            self._highest = sequence
        else:
            self._bits |= 1 << -ahead


def _strip(padded: bytes) -> bytes:
    """Remove pad, pad length and next header. Raises BadPacket."""
    if len(padded) < 2:
        raise BadPacket("no packet in the envelope")
    trailer = _TRAILERS[padded[-2]]
    if not padded.endswith(trailer):
        raise BadPacket("wrong padding")
    return padded[: -len(trailer)]


class CcmSealer:
    """AES-CCM (RFC 4309): one cipher object for the life of the key, the IV is a counter."""

    __slots__ = ("_encrypt", "_iv", "_salt", "_spi", "sequence")

    def __init__(self, key: bytes, tag: int, spi: int, iv: int, sequence: int) -> None:
        cipher, self._salt = _ccm(key, tag)
        self._encrypt = cipher.encrypt
        self._spi = spi
        self._iv = iv
        self.sequence = sequence

    def seal(self, packet: bytes) -> bytes:
        """Return the datagram for a packet."""
        self.sequence += 1
        self._iv = iv = (self._iv + 1) & 0xFFFFFFFFFFFFFFFF
        front = _SPI_SEQUENCE_IV.pack(self._spi, self.sequence, iv)
        padded = packet + _SHORTEST[len(packet) & 15]
        return front + self._encrypt(self._salt + front[8:], padded, front[:8])


class CcmOpener:
    """The receiving side of AES-CCM."""

    __slots__ = ("_decrypt", "_salt", "_shortest", "window")

    def __init__(self, key: bytes, tag: int, window: ReplayWindow) -> None:
        cipher, self._salt = _ccm(key, tag)
        self._decrypt = cipher.decrypt
        self._shortest = _SPI_SEQUENCE_IV.size + tag
        self.window = window

    def open(self, datagram: bytes) -> bytes:
        """Return the packet in a datagram. Raises BadPacket."""
        if len(datagram) < self._shortest:
            raise BadPacket("too short an envelope")
        sequence = int.from_bytes(datagram[4:8], "big")
        self.window.check(sequence)
        try:
            padded = self._decrypt(self._salt + datagram[8:16], datagram[16:], datagram[:8])
        except InvalidTag:
            raise BadSeal("wrong check value") from None
        self.window.note(sequence)
        return _strip(padded)


class CbcSealer:
    """AES-CBC with AES-XCBC-MAC-96; protects INIT2 only, so that speed does not matter."""

    __slots__ = ("_iv", "_key", "_mac", "_spi", "sequence")

    def __init__(self, key: bytes, spi: int, iv: int, sequence: int) -> None:
        self._mac, self._key = _cbc(key)
        self._spi = spi
        self._iv = iv
        self.sequence = sequence

    def seal(self, packet: bytes) -> bytes:
        """Return the datagram for a packet."""
        self.sequence += 1
        self._iv = (self._iv + 1) & ((1 << 128) - 1)
        first = Cipher(AES(self._key), CBC(bytes(BLOCK))).encryptor()
        iv = first.update(self._iv.to_bytes(BLOCK, "big"))  # goes out encrypted, and is used as it goes out
        body = Cipher(AES(self._key), CBC(iv)).encryptor().update(packet + _SHORTEST[len(packet) & 15])
        envelope = _SPI_SEQUENCE.pack(self._spi, self.sequence) + iv + body
        return envelope + self._mac.mac(envelope)[:_XCBC_TAG]


class CbcOpener:
    """The receiving side of AES-CBC with AES-XCBC-MAC-96."""

    __slots__ = ("_key", "_mac", "window")

    def __init__(self, key: bytes, window: ReplayWindow) -> None:
        self._mac, self._key = _cbc(key)
        self.window = window

    def open(self, datagram: bytes) -> bytes:
        """Return the packet in a datagram. Raises BadPacket."""
        envelope, tag = datagram[:-_XCBC_TAG], datagram[-_XCBC_TAG:]
        body = envelope[8 + BLOCK :]
        if len(body) < BLOCK or len(body) % BLOCK:
            raise BadPacket("an envelope of impossible size")
        sequence = int.from_bytes(datagram[4:8], "big")
        self.window.check(sequence)
        if not constant_time.bytes_eq(self._mac.mac(envelope)[:_XCBC_TAG], tag):
            raise BadSeal("wrong check value")
        self.window.note(sequence)
        return _strip(Cipher(AES(self._key), CBC(envelope[8 : 8 + BLOCK])).decryptor().update(body))


def _aes_key(material: bytes) -> bytes:
    """Return the longest AES key that fits into what is there."""
    return material[: 32 if len(material) >= 32 else 24 if len(material) >= 24 else 16]


def _ccm(key: bytes, tag: int) -> tuple[AESCCM, bytes]:
    return AESCCM(_aes_key(key[:-_CCM_SALT]), tag_length=tag), key[-_CCM_SALT:]


def _cbc(key: bytes) -> tuple[Xcbc, bytes]:
    material = key[_MAC_KEY:] if len(key) >= 2 * _MAC_KEY else key
    return Xcbc(key[:_MAC_KEY]), _aes_key(material)


def _check(auth: int, cipher: int, key: bytes) -> None:
    """Raise BadPacket for algorithms that we do not speak, and for keys that are too short for them."""
    if (auth, cipher) == (AUTH_XCBC, CIPHER_CBC):
        shortest = 16
    elif auth == AUTH_NONE and cipher in _CCM_TAGS:
        shortest = 16 + _CCM_SALT
    else:
        raise BadPacket(f"authentication {auth} with cipher {cipher} is not acceptable")
    if len(key) < shortest:
        raise BadPacket(f"a key of {len(key)} bytes; at least {shortest} are needed")


def make_sealer(auth: int, cipher: int, key: bytes, spi: int, iv: int, sequence: int = 0) -> Sealer:
    """Return a sealer to the peer whose handle is `spi`; `iv` is the random start of its counter (128 bits).

    `sequence` is the number sealed last under the key before. Raises BadPacket for algorithms or keys that
    rpc2-secure.md §2 forbids.
    """
    _check(auth, cipher, key)
    if cipher == CIPHER_CBC:
        return CbcSealer(key, spi, iv, sequence)
    return CcmSealer(key, _CCM_TAGS[cipher], spi, iv & 0xFFFFFFFFFFFFFFFF, sequence)


def make_opener(auth: int, cipher: int, key: bytes, window: ReplayWindow) -> Opener:
    """Return an opener that goes on with a replay window. Raises BadPacket as `make_sealer`."""
    _check(auth, cipher, key)
    if cipher == CIPHER_CBC:
        return CbcOpener(key, window)
    return CcmOpener(key, _CCM_TAGS[cipher], window)
