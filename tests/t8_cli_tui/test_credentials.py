"""Names on the command line of logins."""

import getpass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cli import credentials
from realmfs.cli.failure import Failure


@pytest.mark.parametrize(
    ("who", "parts"),
    [
        (None, ("", "")),
        ("ann", ("ann", "")),
        ("ann@r.test", ("ann", "r.test")),
        ("ann@", ("ann", "")),
        ("@r.test", ("", "r.test")),
        ("a@b@r.test", ("a@b", "r.test")),
    ],
)
def test_split_at_the_last_sign(who: str | None, parts: tuple[str, str]) -> None:
    assert credentials.split(who) == parts


@given(st.text(), st.text().filter(lambda text: "@" not in text))
def test_what_is_put_together_comes_apart(user: str, realm: str) -> None:
    assert credentials.split(f"{user}@{realm}") == (user, realm)


def test_a_uid_without_a_name_must_say_who(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    with pytest.raises(Failure, match="Say who"):
        credentials._own_name()
