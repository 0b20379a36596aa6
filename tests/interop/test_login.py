"""Logging in at real auth2 servers, what that lets one do, and token files both ways with the reference."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.process import StepError
from bench.rig import Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until
from tests.interop.people import SENT_WITHIN, Person


@pytest.fixture
def hers(persons: dict[str, Person], alice: Place) -> Iterator[str]:
    """A new directory that alice made through our mount, where only she may write."""
    persons["alice"].login()
    path = f"alice/t{os.urandom(4).hex()}"
    persons["alice"].place.run("mkdir", path)
    yield path
    persons["alice"].login()
    persons["alice"].place.run("rm", "-rf", path)
    seconds_until(lambda: not alice.below(path).exists(), SENT_WITHIN)


def test_all_log_in(persons: dict[str, Person]) -> None:
    for name, person in persons.items():
        assert f"Logged in to {REALM} as {name} (" in person.login()
    for name, person in persons.items():
        assert person.tokens() == [(name, "valid")], "each sees his own only"


def test_a_wrong_password_is_called_that_soon(persons: dict[str, Person]) -> None:
    start = time.monotonic()
    with pytest.raises(StepError, match="the password is wrong"):
        persons["alice"].login("nonsense")
    spent = time.monotonic() - start
    print(f"a wrong password was called that after {spent:.2f} s")
    assert spent < 3
    with pytest.raises(StepError, match="knows this user"):
        persons["alice"].realmfs("login", f"nobody-here@{REALM}", stdin="nonsense\n")


def test_alice_may_write_and_bob_may_not(persons: dict[str, Person], hers: str, alice: Place) -> None:
    persons["bob"].login()
    here = persons["alice"].place.below(hers)
    here.write("ours", b"from realmfs")
    there = alice.below(hers)
    seconds_until(lambda: there.exists() and there.names() == ["ours"], SENT_WITHIN)
    assert there.read("ours") == b"from realmfs"
    for name in ("bob", "admin"):
        if name == "bob":
            with pytest.raises(StepError, match="Permission denied"):
                persons[name].place.below(hers).write("his", b"")
            assert persons[name].place.below(hers).read("ours") == b"from realmfs"
    persons["alice"].realmfs("logout")
    with pytest.raises(StepError, match="Permission denied"):
        here.write("late", b"")
    assert here.read("ours") == b"from realmfs"


def test_a_token_file_of_the_reference_logs_in_here(rig: Rig, persons: dict[str, Person], room: Path) -> None:
    file = room / "theirs"
    shell = f"umask 0; clog -pipe -tofile {file} alice@{REALM}"
    room.chmod(0o777)
    try:
        rig.shell("client", shell, user="alice", stdin=PASSWORDS["alice"] + "\n")
    finally:
        room.chmod(0o755)
    persons["alice"].realmfs("login", f"@{REALM}", "--from-file", os.fspath(file))
    assert persons["alice"].tokens() == [("", "valid")]
    path = f"alice/t{os.urandom(4).hex()}"
    persons["alice"].place.run("mkdir", path)
    persons["alice"].place.run("rmdir", path)


def test_a_token_file_of_ours_logs_the_reference_in(rig: Rig, persons: dict[str, Person], room: Path) -> None:
    file = room / "ours"
    room.chmod(0o777)
    try:
        argv = ("login", f"alice@{REALM}", "--to-file", os.fspath(file))
        persons["alice"].realmfs(*argv, stdin=PASSWORDS["alice"] + "\n")
    finally:
        room.chmod(0o755)
    assert file.stat().st_mode & 0o777 == 0o600
    rig.exec("client2", "cunlog", f"@{REALM}", user="alice")
    rig.exec("client2", "clog", "-fromfile", os.fspath(file), f"@{REALM}", user="alice")
    assert "xpiration" in rig.exec("client2", "ctokens", f"@{REALM}", user="alice")
    there = Place(rig, "client2", f"/coda/{REALM}", "alice")
    path = f"alice/t{os.urandom(4).hex()}"
    there.run("mkdir", path)
    there.run("rmdir", path)
    there.below("alice").integrate()
