"""What is said of conflicts to people."""

import pwd
from types import SimpleNamespace
from typing import Any

import pytest

from realmfs.control.conflictwords import author, local_author, why_refused
from realmfs.vice.errors import Code


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (Code.ENOENT, "removed, or replaced by another of its name"),
        (Code.EEXIST, "something else was given this name"),
        (Code.ENOTEMPTY, "was put into the directory"),
        (Code.EINCOMPATIBLE, "changed on the servers meanwhile"),
        (Code.EACCES, "does not allow it"),
    ],
)
def test_a_refusal_says_what_others_did(code: Code, said: str) -> None:
    assert said in why_refused(code)
    assert why_refused(code).endswith(f"({code.name})")


def test_who_made_a_version() -> None:
    known = pwd.getpwall()[0]
    assert local_author(known.pw_uid) == pwd.getpwuid(known.pw_uid).pw_name
    assert local_author(3_999_999_999) == "uid 3999999999"
    token = SimpleNamespace(clear=SimpleNamespace(vice_id=7))
    held: Any = [SimpleNamespace(realm="r", user=user, token=token) for user in ("", "ann")]
    assert author(7, "r", held) == "ann (7)"
    assert author(7, "other", held) == "id 7"
    assert author(8, "r", held) == "id 8"
    assert author(0xFFFFFFFE, "r", held) == "somebody not logged in"
