"""Headers, handshake bodies, parameter blocks and negative acknowledgements, as the reference sends them."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.handshake import Init1, KeyOffer, pack_init4, unpack_init4
from realmfs.rpc2.header import DATA_HEADER, PIGGY, Header, Op, SftpOp, elapsed, naked, split, timestamp
from realmfs.rpc2.parameters import SftpParameters, Timers
from realmfs.rpc2.sftp import REFERENCE_PARAMETERS, negotiate

GROUPS = json.loads((Path(__file__).parents[1] / "data" / "rpc2.json").read_text())["groups"]
PACKETS = [
    pytest.param(packet, id=f"{level}-{index}-{packet['name']}")
    for level in ("66", "98")
    for index, packet in enumerate(GROUPS[f"session_level_{level}"]["packets"])
]
SESSION = GROUPS["session_level_66"]["packets"]


def number(value: int | str) -> int:
    return int(str(value), 0)


@pytest.mark.parametrize("packet", PACKETS)
def test_reads_and_makes_every_header(packet: dict[str, Any]) -> None:
    plain, fields = bytes.fromhex(packet["plaintext"]), packet["header"]
    if fields["ProtoVersion"] == 3:
        words = DATA_HEADER.unpack_from(plain)
        assert words == tuple(number(value) & 0xFFFFFFFF for value in fields.values())
        assert len(plain) == 60 + words[4]
        return
    header, body = split(plain)
    assert tuple(header) == tuple(map(number, fields.values()))
    assert header.pack() + body == plain


@pytest.mark.parametrize("case", GROUPS["nak"], ids=["rpc2", "sftp"])
def test_naks_as_the_reference_does(case: dict[str, str]) -> None:
    wire = bytes.fromhex(case["wire"])
    ours = bytearray(naked(777, sftp=wire[3] == 3))
    ours[44:48] = wire[44:48]  # the Lamport clock
    assert bytes(ours) == wire


def test_sftp_packets_before_the_seal() -> None:
    for indexes in GROUPS["sftp_clear"]["index"].values():
        for index, name in indexes:
            words = DATA_HEADER.unpack_from(bytes.fromhex(SESSION[index]["plaintext"]))
            assert "SFTP_" + SftpOp(words[6]).name == name
            assert words[9] == 1189
            # The reference writes the sequence number of the request into every packet of a transfer.
            assert words[12] in {split(bytes.fromhex(SESSION[at]["plaintext"]))[0].sequence for at in (6, 10)}


def test_init1_of_the_reference() -> None:
    header, body = split(bytes.fromhex(SESSION[0]["wire"]))
    init1 = Init1.unpack(body)
    assert init1 == Init1(1189, 66, 2, 4, bytes.fromhex("385d82a7"), b"satya\0")
    assert init1.pack() == body
    assert header.opcode == Op.INIT1SECURE
    with pytest.raises(BadPacket):
        Init1.unpack(body[:-1])


def test_key_offers_of_the_reference() -> None:
    handshake = GROUPS["session_level_66"]["handshake"]
    for index, key in ((16, "key_client_to_server"), (1, "key_server_to_client")):
        _, body = split(bytes.fromhex(SESSION[index]["plaintext"]))
        offer = KeyOffer(1, 0, 14, bytes.fromhex(handshake[key]))
        assert KeyOffer.unpack(body) == offer
        assert offer.pack() == body


def test_init4_of_the_reference() -> None:
    _, body = split(bytes.fromhex(SESSION[17]["plaintext"]))
    assert unpack_init4(body, 5) == (number(SESSION[2]["header"]["SeqNumber"]), False)
    with pytest.raises(BadPacket):
        unpack_init4(body[:23], 5)


def test_init4_tells_our_own_kind_in_this_bind_only() -> None:
    body = pack_init4(77, 5)
    assert unpack_init4(body, 5) == (77, True)
    assert unpack_init4(body, 6) == (77, False)  # left over in a buffer of the reference's


def test_parameter_blocks_of_the_reference() -> None:
    header, body = split(bytes.fromhex(SESSION[6]["plaintext"]))
    assert header.se_flags & PIGGY
    block = body[header.se_offset :]
    start = bytes.fromhex(SESSION[29]["plaintext"])[60:]
    for theirs in (block, start):  # the first 24 bytes are an unused port identifier
        assert SftpParameters.unpack(theirs).pack()[24:] == theirs[24:] == REFERENCE_PARAMETERS.pack()[24:]


@given(*[st.integers(0, 2**32 - 1)] * 5)
def test_negotiation_never_gives_what_cannot_work(
    window: int, send_ahead: int, ack_point: int, packet_size: int, threshold: int
) -> None:
    theirs = SftpParameters.unpack(
        SftpParameters(window, send_ahead, ack_point, packet_size, threshold).pack()
    )
    agreed = negotiate(SftpParameters(), theirs, 1438)
    # A reference server dies of a window below what is sent at once (sftp.md §3).
    assert 1 <= agreed.ack_point <= agreed.send_ahead <= agreed.window <= 64
    assert agreed.window >= 2
    assert 240 <= agreed.packet_size <= 1438
    assert agreed.packet_size == 1438 or agreed.packet_size == theirs.packet_size < 1084


@given(st.binary(max_size=300))
def test_any_bytes_raise_bad_packet_at_worst(body: bytes) -> None:
    for read in (
        split,
        Init1.unpack,
        KeyOffer.unpack,
        lambda body: unpack_init4(body, 1),
        SftpParameters.unpack,
    ):
        with suppress(BadPacket):
            read(body)


def test_a_body_longer_than_the_packet_is_refused() -> None:
    with pytest.raises(BadPacket):
        split(Header(length=5).pack() + b"four")
    assert split(Header(length=3).pack() + b"four")[1] == b"fou"


@given(st.floats(0, 1e9), st.floats(0, 60))
def test_time_stamps_survive_the_wrap(now: float, later: float) -> None:
    stamp = timestamp(now)
    assert 0 < stamp < 2**32
    assert elapsed(now + later, stamp) == pytest.approx(later, abs=1e-4)


def test_the_schedule_of_the_reference() -> None:
    timers = Timers(keepalive=60, retries=5)
    waits = [timers.wait(attempt, 0.01) for attempt in range(6)]
    assert waits == pytest.approx([0.11, 1.0375, 1.975, 3.85, 7.6, 15.1])
    assert timers.busy_wait(0.01) == pytest.approx(15.1)
