"""The secure layer against what the reference library really sent, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.kdf import Xcbc, derive_key
from realmfs.rpc2.secure import (
    BadSeal,
    CbcSealer,
    Opener,
    ReplayWindow,
    Sealer,
    make_opener,
    make_sealer,
)

GROUPS = json.loads((Path(__file__).parents[1] / "data" / "rpc2.json").read_text())["groups"]
PROTECTED = [
    pytest.param(packet, id=f"{level}-{index}-{packet['name']}")
    for level in ("66", "98")
    for index, packet in enumerate(GROUPS[f"session_level_{level}"]["packets"])
    if "security" in packet
]
ALGORITHMS = [(0, 14), (0, 15), (0, 16), (9, 12)]


def key_of(security: dict[str, Any]) -> bytes:
    """Return the key material as the packets of the handshake carry it."""
    return bytes.fromhex(security.get("key") or security["mac_key"] + security["cipher_key"])


@pytest.mark.parametrize(
    "case", GROUPS["aes_xcbc_mac"], ids=lambda case: f"{len(case['message']) // 2} bytes"
)
def test_xcbc(case: dict[str, str]) -> None:
    assert Xcbc(bytes.fromhex(case["key"])).mac(bytes.fromhex(case["message"]))[:12].hex() == case["mac96"]


def test_key_derivation_is_the_collapsed_one() -> None:
    collapsed, odd, genuine = GROUPS["kdf"]
    key = derive_key(bytes.fromhex(collapsed["password"]), bytes.fromhex(collapsed["salt"]))
    assert key.hex() == collapsed["output"]
    assert key[:16].hex() != genuine["not_this_output"]
    # An odd count of rounds leaves the first one alone: the constant is what makes the difference.
    constant = Xcbc(bytes.fromhex(odd["password"]).ljust(16, b"\0")).mac(bytes(16))
    assert bytes(a ^ b for a, b in zip(key, constant * 3, strict=True)).hex() == odd["output"]


@pytest.mark.parametrize("level", ["66", "98"])
def test_key_of_init2(level: str) -> None:
    handshake = GROUPS[f"session_level_{level}"]["handshake"]
    secret = bytes.fromhex("62616e616e617300") if level == "66" else bytes(8)
    assert derive_key(secret, bytes.fromhex(handshake["init1_salt"])).hex() == handshake["derived_key_48"]


@pytest.mark.parametrize("packet", PROTECTED)
def test_opens_every_packet_of_the_reference(packet: dict[str, Any]) -> None:
    security = packet["security"]
    opener = make_opener(security["auth"], security["encr"], key_of(security), ReplayWindow())
    assert opener.open(bytes.fromhex(packet["wire"])).hex() == packet["plaintext"]


@pytest.mark.parametrize("packet", PROTECTED)
def test_seals_every_packet_as_the_reference_did(
    packet: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    security = packet["security"]
    iv, key, spi = bytes.fromhex(security["wire_iv"]), key_of(security), int(security["spi"], 16)
    if security["encr"] == 12:
        iv = decrypted_block(key, iv)  # the counter that encrypts to the IV on the wire
    counter = int.from_bytes(iv, "big") - 1
    sealer = make_sealer(security["auth"], security["encr"], key, spi, counter, security["sequence"] - 1)
    assert sealer.seal(bytes.fromhex(packet["plaintext"])).hex() == packet["wire"]


def decrypted_block(key: bytes, block: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    return Cipher(AES(key[16:]), ECB()).decryptor().update(block)


def pair(auth: int, cipher: int, key: bytes = bytes(range(48)), spi: int = 4711) -> tuple[Sealer, Opener]:
    """Return both ends of one direction."""
    return make_sealer(auth, cipher, key, spi, 5), make_opener(auth, cipher, key, ReplayWindow())


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=200), st.integers(0, 2), st.integers(0))
def test_opens_what_it_sealed_and_nothing_that_was_touched(
    algorithms: tuple[int, int], packet: bytes, extra: int, where: int
) -> None:
    key = bytes(range((48, 19, 35)[extra] if algorithms[0] == 0 else (48, 16, 32)[extra]))
    sealer, opener = pair(*algorithms, key)
    datagram = bytearray(sealer.seal(packet))
    whole = bytes(datagram)
    datagram[where % len(datagram)] ^= 1 << where % 8
    if where % len(datagram) not in range(4):  # the handle is protected, too, but not replay-checked first
        with pytest.raises(BadPacket):
            opener.open(bytes(datagram))
    assert opener.open(whole) == packet
    with pytest.raises(BadPacket, match="repeated"):
        opener.open(whole)


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=120))
def test_any_bytes_raise_bad_packet_at_worst(algorithms: tuple[int, int], datagram: bytes) -> None:
    _, opener = pair(*algorithms)
    with pytest.raises(BadPacket):
        opener.open(datagram)


def test_the_same_packet_is_never_sealed_the_same_way() -> None:
    for algorithms in ALGORITHMS:
        sealer, opener = pair(*algorithms)
        datagrams = {sealer.seal(b"again") for _ in range(100)}
        assert len(datagrams) == 100
        assert sealer.sequence == 100
        assert opener.open(max(datagrams)) == b"again"


def test_a_forged_packet_does_not_move_the_window() -> None:
    sealer, opener = pair(0, 14)
    forged = bytearray(sealer.seal(b"x"))
    forged[4:8] = (1 << 30).to_bytes(4, "big")
    with pytest.raises(BadSeal):
        opener.open(bytes(forged))
    assert opener.open(sealer.seal(b"y")) == b"y"


def test_accepts_any_padding_that_is_well_formed() -> None:
    for pad in (0, 1, 2, 15, 16, 100, 255):
        opener = make_opener(0, 14, bytes(19), ReplayWindow())
        assert opener.open(seal_padded(b"packet", bytes([*range(1, pad + 1), pad, 0]))) == b"packet"
    for bad in (b"\1\2\2\1", b"\1\3\2\0", b"\xff\0"):
        with pytest.raises(BadPacket, match="padding"):
            make_opener(0, 14, bytes(19), ReplayWindow()).open(seal_padded(b"packet", bad))


def seal_padded(packet: bytes, trailer: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM

    front = (300).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(8)
    return front + AESCCM(bytes(16), tag_length=8).encrypt(bytes(11), packet + trailer, front[:8])


@given(st.lists(st.integers(1, 300), max_size=200))
def test_the_replay_window_against_a_set(numbers: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for number in numbers:
        try:
            window.check(number)
        except BadPacket:
            assert number in seen or number <= max(seen) - 64
        else:
            assert number not in seen
            assert not seen or number > max(seen) - 64
            window.note(number)
            seen.add(number)


@pytest.mark.parametrize(
    ("auth", "cipher", "size"),
    [(0, 11, 48), (0, 12, 48), (9, 14, 48), (0, 13, 48), (0, 14, 18), (9, 12, 15), (1, 14, 48)],
)
def test_refuses_algorithms_and_short_keys(auth: int, cipher: int, size: int) -> None:
    with pytest.raises(BadPacket):
        make_sealer(auth, cipher, bytes(size), 300, 0)
    with pytest.raises(BadPacket):
        make_opener(auth, cipher, bytes(size), ReplayWindow())


def test_a_cbc_key_without_room_for_two_serves_for_both() -> None:
    sealer = make_sealer(9, 12, bytes(16), 300, 0)
    assert isinstance(sealer, CbcSealer)
    assert make_opener(9, 12, bytes(16), ReplayWindow()).open(sealer.seal(b"abc")) == b"abc"
