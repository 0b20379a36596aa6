"""A daemon for all users of a machine: each reaches it, with his own rights and no more."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from realmfs.control.client import Client
from tests.t6_fuse.people import Person
from tests.t8_cli_tui.conftest import Home

ALICE, BOB = 51001, 51002
OWNERS = (
    "daemon.stop",
    "daemon.log_level",
    "changes.list",
    "hoard.list",
    "cache.list",
    "connection.disconnect",
    "writeback",
    "events.watch",
)


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that every user can pass."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become others")
def test_everybody_reaches_it_and_only_its_owner_steers_it(home: Home, room: Path) -> None:
    socket = room / "run" / "control.sock"
    home.run("mount", "--no-kernel", "--allow-other", "--socket", str(socket))
    try:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o666
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o755
        assert stat.S_IMODE(socket.with_suffix(".events").stat().st_mode) == 0o600
        with Client(socket) as client:
            pid = client.call("daemon.status")["pid"]
        for uid in (ALICE, BOB):
            person = Person(uid, socket)
            assert person.calls("daemon.status")["pid"] == pid
            assert person.calls("tokens.list")["entries"] == []
            assert person.calls("path.list", path="") == {"entries": [], "position": None}
            for method in OWNERS:
                assert person.calls(method) == "EPERM", method
        with Client(socket) as client:
            assert client.call("changes.list") == {"entries": [], "cursor": None}
    finally:
        home.run("unmount", "--socket", str(socket))
    assert not socket.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become others")
def test_a_daemon_for_one_user_is_his_alone(home: Home, room: Path) -> None:
    socket = room / "control.sock"
    home.run("mount", "--no-kernel", "--socket", str(socket))
    try:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        with pytest.raises(AssertionError, match="cannot be reached"):
            Person(ALICE, socket).calls("daemon.status")
    finally:
        home.run("unmount", "--socket", str(socket))
