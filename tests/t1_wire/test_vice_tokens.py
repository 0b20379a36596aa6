"""Tokens: those that the reference made and accepted, and all that it must refuse."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.errors import BadPacket
from realmfs.vice import tokens
from realmfs.vice.auth import (
    AuthCode,
    ChangePassword,
    ChangeUser,
    DeleteUser,
    GetTokens,
    NameToId,
    NewUser,
    password_key,
)
from realmfs.vice.tokens import (
    BadToken,
    ClearToken,
    Token,
    TokenKey,
    format_token_file,
    parse_token_file,
    verify,
)
from realmfs.vice.wire import Request
from tests.t1_wire.strategies import u32
from tests.t1_wire.vectors import load

CASES = load("tokens")
KEY = TokenKey(b"ABCDEFGH")
IV = bytes(range(16))


def unhex(case: dict[str, Any], *names: str) -> list[bytes]:
    """Return some hexadecimal fields of a case."""
    return [bytes.fromhex(case[name]) for name in names]


@pytest.mark.parametrize("case", CASES["tokens"]["vectors"])
def test_tokens_are_the_reference_ones(case: dict[str, Any]) -> None:
    contents, handshake_key, iv = unhex(case, "auth2_tk", "handshake_key", "secret_iv")
    key = TokenKey(contents)
    issued = case["begin"] + 900
    token = key.mint(case["vice_id"], issued, handshake_key=handshake_key, iv=iv)
    assert token.clear.pack().hex() == case["clear_token"]
    assert token.secret.hex() == case["secret_token"]
    assert token.clear.end == case["end"]
    bearer = verify(token.secret, [TokenKey(b"another"), key], issued)
    assert (bearer.vice_id, bearer.handshake_key, bearer.end) == (case["vice_id"], handshake_key, case["end"])


@pytest.mark.parametrize("case", CASES["token_files"], ids=lambda case: case["how"])
def test_token_files_are_the_reference_ones(case: dict[str, Any]) -> None:
    contents = base64.b64decode(case["file_base64"])
    token = parse_token_file(contents)
    assert format_token_file(token) == contents
    assert len(contents) == case["file_length"]
    assert token.clear.pack().hex() == case["clear_token"]
    assert token.secret.hex() == case["secret_token"]
    assert token.clear == ClearToken(
        bytes.fromhex(case["handshake_key"]), case["vice_id"], case["begin"], case["end"]
    )
    assert TokenKey(bytes.fromhex(case["auth2_tk"])).open(token.secret).vice_id == case["vice_id"]


def test_a_token_that_a_real_file_server_took() -> None:
    case = CASES["fileserver_bind"]
    secret, handshake_key = unhex(case, "secret_token", "handshake_key")
    bearer = TokenKey(bytes.fromhex(case["auth2_tk"])).open(secret)
    assert (bearer.vice_id, bearer.handshake_key) == (501, handshake_key)


@given(bit=st.integers(0, 56 * 8 - 1))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    secret = bytearray(KEY.mint(501, 1_000_000, handshake_key=b"k" * 8, iv=IV).secret)
    secret[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadToken):
        KEY.open(bytes(secret))


@given(secret=st.binary(max_size=70))
def test_hostile_tokens_raise_bad_token_and_nothing_else(secret: bytes) -> None:
    with pytest.raises(BadToken):
        verify(secret, [KEY], 0)
    with pytest.raises(BadToken):
        verify(secret, [], 0)
    assert issubclass(BadToken, BadPacket)


@given(
    vice_id=u32,
    now=st.integers(900, 2**31),
    lifetime=st.integers(0, 10**6),
    handshake_key=st.binary(min_size=8, max_size=8),
)
def test_tokens_hold_until_they_end(vice_id: int, now: int, lifetime: int, handshake_key: bytes) -> None:
    token = KEY.mint(vice_id, now, handshake_key=handshake_key, iv=IV, lifetime=lifetime)
    end = now + lifetime
    assert verify(token.secret, [KEY], end - 0.5).vice_id == vice_id
    assert token.seconds_left(end - 0.5) == 0.5
    with pytest.raises(BadToken, match="expired"):
        verify(token.secret, [KEY], end)


@pytest.mark.parametrize("plain", ["key size", "id size", "no digits", "magic", "padding"])
def test_a_token_of_another_form_is_refused(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the realm that makes odd tokens must not get them past ours."""
    vice_id: Any = 501
    if plain == "key size":
        monkeypatch.setattr(tokens, "KEY_SIZE", 7)
    elif plain == "magic":
        monkeypatch.setattr(tokens, "_MAGIC", b"\xc0\xdb")
    elif plain == "padding":
        monkeypatch.setattr(tokens, "_padding", lambda size: bytes(16 - size))
    elif plain == "id size":
        vice_id = 12345678901
    elif plain == "no digits":
        vice_id = -5
    secret = KEY.mint(vice_id, 1_000_000, handshake_key=b"k" * 8, iv=IV).secret
    monkeypatch.undo()
    with pytest.raises(BadToken, match="made under this key"):
        KEY.open(secret)


def test_no_text_form_shows_a_key() -> None:
    token = KEY.mint(501, 1_000_000, handshake_key=b"SECRETS!", iv=IV)
    requests: list[Request[Any]] = [
        ChangePassword(vice_id=1, password=b"SECRETS!"),
        ChangeUser(vice_id=1, key=b"SECRETS!"),
        NewUser(vice_id=1, key=b"SECRETS!"),
    ]
    shown = f"{token!r} {token.clear!r} {KEY.open(token.secret)!r} {KEY!r} {token.reply()!r} {requests!r}"
    assert "SECRET" not in shown
    assert repr(token.secret) not in shown


def test_auth2_answers_both_parts() -> None:
    token = KEY.mint(501, 1_000_000, handshake_key=b"k" * 8, iv=IV)
    body = token.reply().pack()
    assert body == token.secret + token.clear.pack()
    assert Token.from_reply(GetTokens.Reply.unpack(body)) == token


@given(contents=st.binary(max_size=200))
def test_hostile_token_files_raise_bad_packet_and_nothing_else(contents: bytes) -> None:
    with pytest.raises(BadPacket):
        parse_token_file(contents)


def test_token_files_are_read_with_any_line_breaks() -> None:
    token = KEY.mint(501, 1_000_000, handshake_key=b"k" * 8, iv=IV)
    header, first, second = format_token_file(token).splitlines()
    text = first + second
    lines = [text[start : start + 10] for start in range(0, len(text), 10)]
    assert parse_token_file(b"what ever\r\n" + b"\r\n".join(lines)) == token
    assert header == b"*** Coda Token ***"
    with pytest.raises(BadPacket):
        parse_token_file(header + b"\n" + base64.b64encode(bytes(79)))


@pytest.mark.parametrize("case", CASES["password_to_key"])
def test_passwords_become_keys_as_in_the_reference(case: dict[str, str]) -> None:
    assert password_key(case["password"].encode()).hex() == case["key"]


def test_return_codes_are_those_of_auth2() -> None:
    assert {str(int(code)): f"AUTH_{code.name}" for code in AuthCode} == CASES["return_codes"]


@pytest.mark.parametrize(
    ("index", "request_", "garbage"),
    [
        (0, NameToId(name=b"alice"), 2),
        (1, NameToId(name=b"nosuch"), 1),
        (2, ChangePassword(vice_id=501, password=b"Alice123\xf0\xd6\xfe\xfc\xfc\x7f"), 1),
        (3, ChangePassword(vice_id=500, password=b"Chg1ng"), 1),
        (4, ChangePassword(vice_id=500, password=b"hacked"), 1),
        (5, ChangeUser(vice_id=503, key=password_key(b"bobpw"), info=b"bobby"), 2),
        (6, NewUser(vice_id=501, key=password_key(b"x"), info=b"dup"), 0),
        (7, DeleteUser(vice_id=503), 0),
    ],
)
def test_auth2_requests_are_the_reference_ones(index: int, request_: Request[Any], garbage: int) -> None:
    """All but the last `garbage` bytes, which pad and are not cleared in the reference."""
    body = bytes.fromhex(CASES["requests"]["calls"][index]["request"])
    assert CASES["requests"]["calls"][index]["op"] == request_.OPCODE
    assert type(request_).unpack(body) == request_
    ours = request_.pack()
    assert ours[: len(body) - garbage] == body[: len(body) - garbage]
    assert ours[len(body) - garbage :] == bytes(garbage)
