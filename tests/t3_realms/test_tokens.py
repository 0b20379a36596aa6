"""Tokens held and kept: one for each realm and user, private on the disk, gone when they should be."""

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms.tokens import MAX_TOKENS, Held, News, Tokens, TooManyTokensError
from realmfs.vice.tokens import ClearToken, Token, parse_token_file


def held(token: Token, realm: str = "r.test", uid: int = 1000, user: str = "alice") -> Held:
    return Held(realm, uid, user, token)


def test_each_user_has_one_in_each_realm(token: Token) -> None:
    tokens = Tokens()
    told: list[tuple[int, News]] = []
    tokens.listener = lambda one, news: told.append((one.uid, news))
    for realm, uid in (("r.test", 1), ("r.test", 2), ("s.test", 1)):
        tokens.put(held(token, realm, uid))
    other = replace(token, secret=bytes(56))
    tokens.put(held(other))
    tokens.put(held(other, uid=1))
    assert [(one.realm, one.uid) for one in tokens.all()] == [
        ("r.test", 1), ("r.test", 2), ("r.test", 1000), ("s.test", 1),
    ]  # fmt: skip
    found = tokens.get("r.test", 1)
    assert found is not None
    assert found.token is other
    assert found.identity == "1001@r.test"
    tokens.drop("r.test", 1, News.REFUSED)
    assert tokens.drop("r.test", 1) is None
    assert tokens.get("r.test", 1) is None
    assert tokens.get("r.test", 2) is not None
    assert told == [(1, News.TAKEN), (2, News.TAKEN), (1, News.TAKEN), (1000, News.TAKEN), (1, News.TAKEN),
                    (1, News.REFUSED)]  # fmt: skip


def test_their_number_is_bounded(token: Token) -> None:
    tokens = Tokens()
    for uid in range(MAX_TOKENS):
        tokens.put(held(token, uid=uid))
    with pytest.raises(TooManyTokensError):
        tokens.put(held(token, uid=MAX_TOKENS))
    tokens.put(held(token, uid=0))


def test_kept_ones_come_back_and_are_private(tmp_path: Path, token: Token) -> None:
    directory = tmp_path / "tokens"
    directory.mkdir(mode=0o755)
    tokens = Tokens(directory, keep=True)
    tokens.put(held(token))
    tokens.put(held(token, "s.test", 7, ""))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert sorted(os.listdir(directory)) == ["1000@r.test", "7@s.test"]
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert parse_token_file(path.read_bytes()) == token, "the form of the reference's tools"
    assert Tokens(directory, keep=True).all() == tokens.all()
    again = Tokens(directory, keep=True)
    again.drop("r.test", 1000)
    assert os.listdir(directory) == ["7@s.test"]
    assert Tokens(directory, keep=False).all() == []
    assert os.listdir(directory) == [], "who switched keeping off wants none to lie about"


def test_nothing_is_written_unasked(tmp_path: Path, token: Token) -> None:
    Tokens(tmp_path / "tokens").put(held(token))
    Tokens().put(held(token))
    assert os.listdir(tmp_path) == []


@pytest.mark.logs("it is removed")
@pytest.mark.parametrize("harm", ["mode", "link", "short", "uid", "pipe"])
def test_a_file_that_may_not_be_ours_is_not_used(tmp_path: Path, token: Token, harm: str) -> None:
    Tokens(tmp_path, keep=True).put(held(token))
    path = tmp_path / "1000@r.test"
    if harm == "mode":
        path.chmod(0o640)
    elif harm == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif harm == "short":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "uid":
        path.rename(tmp_path / "alice@r.test")
    else:
        path.unlink()
        os.mkfifo(path, 0o600)
    assert Tokens(tmp_path, keep=True).all() == []
    assert not [name for name in os.listdir(tmp_path) if "@" in name]


def test_an_expired_one_is_shown_but_neither_used_nor_kept(
    tmp_path: Path, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(tmp_path, keep=True)
    tokens.put(held(token))
    assert tokens.all()[0].usable
    monkeypatch.setattr(time, "time", lambda: token.clear.end - 59.0)
    assert not tokens.all()[0].usable
    assert Tokens(tmp_path, keep=True).all() == []
    assert os.listdir(tmp_path) == []


@pytest.mark.logs("the token is not kept")
def test_a_full_disk_costs_nothing_but_the_keeping(tmp_path: Path, token: Token) -> None:
    (tmp_path / "tokens").touch()
    tokens = Tokens(tmp_path / "tokens", keep=True)
    tokens.put(held(token))
    assert tokens.all()


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=56, max_size=56))
def test_no_secret_is_in_a_repr(key: bytes, secret: bytes) -> None:
    text = repr(Held("r.test", 1, "alice", Token(ClearToken(key, 1001, 0, 1), secret)))
    assert repr(key)[2:-1] not in text or len(set(key)) < 4
    assert repr(secret)[2:-1] not in text
