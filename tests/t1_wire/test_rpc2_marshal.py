"""Parameters as rp2gen's stubs pack them; and any bytes at all, which may raise BadPacket only."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "rpc2.json").read_text())["groups"]["rp2gen"]
CASES = {case["name"]: bytes.fromhex(case["body"]) for case in VECTORS["cases"]}


def scalars_request(p: Packer) -> None:
    p.i32(-2)
    p.u32(0xDEADBEEF)
    p.byte(0xDB)
    p.byte(0xEB)
    p.raw(bytes([1, 2, 3, 4, 5]))
    p.u32(7)
    p.raw(bytes.fromhex("1122334455667788"))


def scalars_response(p: Packer) -> None:
    p.u32(7)
    p.i32(-9)
    p.byte(0xAA)
    p.raw(bytes([1, 2, 3, 4, 5]))


def strings_request(p: Packer) -> None:
    p.string(b"abc")
    p.counted(b"ab\0cde")
    p.bounded(b"hello", 16)
    p.bounded(b"", 16)
    p.bounded(b"wow!!", 16)


def strings_response(p: Packer) -> None:
    p.bounded(b"zz", 16)
    p.bounded(b"wow!!", 16)


def structs_request(p: Packer) -> None:
    for word in (1, 2, 3, 7):
        p.u32(word)
    p.byte(0xB0)
    p.raw(bytes([1, 2, 3, 4, 5]))
    p.string(b"xyz")
    p.i32(-1)
    p.bounded(b"hello", 16)
    p.counted(b"ab\0cde")
    p.raw(bytes.fromhex("1122334455667788"))
    p.raw(struct.pack("<d", 1.5))


def arrays_request(p: Packer) -> None:
    for word in (2, 1, 2, 3, 4, 5, 6, 10, 20, 1, 7, 8, 9, 0x7A11):
        p.u32(word)


def arrays_response(p: Packer) -> None:
    for word in (2, 1, 2, 3, 4, 5, 6, 1, 7, 8, 9):
        p.u32(word)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("Scalars_request", scalars_request),
        ("Scalars_response", scalars_response),
        ("Strings_request", strings_request),
        ("Strings_response", strings_response),
        ("Structs_request", structs_request),
        ("Arrays_request", arrays_request),
        ("Arrays_response", arrays_response),
        ("OnlySE_request", lambda p: None),
    ],
)
def test_packs_what_the_stubs_pack(name: str, pack: Callable[[Packer], None]) -> None:
    packer = Packer()
    pack(packer)
    assert packer.done() == CASES[name].replace(b"\xee" * 3, b"\0\0\0").replace(b"\xee\xee", b"\0\0")


def test_every_case_of_the_vectors_is_known() -> None:
    assert len(CASES) == 9  # the ninth, Strings_request_stale_OUT, is what must never be sent


def test_ignores_what_stands_in_the_padding() -> None:
    unpacker = Unpacker(CASES["Strings_request"])
    assert unpacker.string() == b"abc"
    assert unpacker.counted(100) == b"ab\0cde"
    assert unpacker.bounded(100) == b"hello"
    assert unpacker.bounded(100) == b""
    assert unpacker.bounded(100) == b"wow!!"
    unpacker.finish()


def test_reads_words_back() -> None:
    unpacker = Unpacker(CASES["Scalars_request"])
    assert (unpacker.i32(), unpacker.u32(), unpacker.byte(), unpacker.byte()) == (-2, 0xDEADBEEF, 0xDB, 0xEB)
    assert unpacker.raw(5) == bytes([1, 2, 3, 4, 5])
    assert unpacker.u32() == 7
    assert unpacker.rest == bytes.fromhex("1122334455667788")


FIELDS = st.one_of(
    st.tuples(st.just("u32"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("i32"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("byte"), st.integers(0, 255)),
    st.tuples(st.just("string"), st.binary(max_size=40)),
    st.tuples(st.just("counted"), st.binary(max_size=40)),
    st.tuples(st.just("bounded"), st.binary(max_size=40)),
)


@given(st.lists(FIELDS, max_size=12))
def test_what_was_packed_comes_out_again(fields: list[tuple[str, Any]]) -> None:
    packer = Packer()
    for kind, value in fields:
        getattr(packer, kind)(value)
    body = packer.done()
    assert len(body) % 4 == 0
    unpacker = Unpacker(body)
    for kind, value in fields:
        limit = (40,) if kind in {"counted", "bounded"} else ()
        assert getattr(unpacker, kind)(*limit) == value
    unpacker.finish()


@given(
    st.binary(max_size=64), st.lists(st.sampled_from(["u32", "i32", "byte", "string", "counted", "bounded"]))
)
def test_any_bytes_raise_bad_packet_at_worst(body: bytes, kinds: list[str]) -> None:
    unpacker = Unpacker(body)
    try:
        for kind in kinds:
            getattr(unpacker, kind)(*((30,) if kind in {"counted", "bounded"} else ()))
        unpacker.finish()
    except BadPacket:
        pass
    assert len(unpacker.rest) <= len(body)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ("00000003616263ff", lambda u: u.string()),  # no NUL
        ("ffffffff", lambda u: u.string()),
        ("0000000561626364", lambda u: u.counted(10)),
        ("000000046162636400", lambda u: (u.counted(10), u.finish())),
        ("0000000461626364", lambda u: u.counted(3)),
        ("00000063000000046162636400", lambda u: u.bounded(3)),
        ("000000", lambda u: u.u32()),
    ],
)
def test_refuses(body: str, read: Callable[[Unpacker], object]) -> None:
    with pytest.raises(BadPacket):
        read(Unpacker(bytes.fromhex(body)))
