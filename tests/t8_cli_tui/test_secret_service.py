"""Logins kept in a real Secret Service, that of GNOME, on a session bus of its own; or skipped.

dbus-run-session ── sh ─┬─ gnome-keyring-daemon, unlocked; its files in the test's directory
                        └─ waits until its standard input ends: then the bus ends, and the keyring with it
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import PASSWORD, REALM, held, served, start, stop

pytest.importorskip("secretstorage")
pytestmark = pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="there is no Secret Service here (dbus-run-session, gnome-keyring-daemon)",
)
__all__ = ["served"]

SESSION = """
printf session-password | gnome-keyring-daemon --unlock --components=secrets > /dev/null || exit 1
until dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
    string:org.freedesktop.secrets | grep -q true; do sleep 0.05; done
echo "$DBUS_SESSION_BUS_ADDRESS"
read end
"""


@pytest.fixture
def keyrings(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A desktop's keyring, unlocked; returns where it keeps its files."""
    data, run = home.top / "data", home.top / "desktop"
    data.mkdir()
    run.mkdir(mode=0o700)
    own = os.environ | {"XDG_DATA_HOME": str(data), "XDG_RUNTIME_DIR": str(run), "HOME": str(home.top)}
    argv = ["dbus-run-session", "--", "sh", "-c", SESSION]
    log = home.top / "desktop.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            argv, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as desktop,
    ):
        assert desktop.stdin is not None
        assert desktop.stdout is not None
        address = desktop.stdout.readline().strip()
        if not address:
            pytest.skip(f"no Secret Service starts here: {log.read_text()[-300:]}")
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
        monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)
        yield data
        desktop.stdin.close()
        desktop.wait(10)


def login_is(home: Home, expected: list[tuple[str, str]]) -> bool:
    """Wait until one is logged in so; the daemon does not wait for the keyring at its start."""
    limit = time.monotonic() + 15
    while held(home) != expected and time.monotonic() < limit:
        time.sleep(0.05)
    return held(home) == expected


def test_a_login_kept_in_the_desktops_keyring_lasts_over_a_restart(
    home: Home, served: Path, keyrings: Path
) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", "--keep", "keyring", "--to-file", str(home.top / "t"), stdin=PASSWORD)
    base64 = "".join((home.top / "t").read_text().splitlines()[1:])
    (home.top / "t").unlink()
    stop(home)
    start(home, served)
    assert login_is(home, [("ann", "valid")])
    home.run("mkdir", f"{REALM}/kept")
    assert any(path.is_file() for path in keyrings.rglob("*")), "the keyring has written it down"
    for path in (path for kind in ("data", "state", "cache", "run") for path in (home.top / kind).rglob("*")):
        if path.is_file():
            assert base64[:40].encode() not in path.read_bytes(), f"{path} has the token as it is"
    home.run("logout")
    index = home.top / "state" / "realmfs" / "tokens" / "keyring"
    limit = time.monotonic() + 15
    while index.exists():  # it goes when the keyring has removed the entry
        assert time.monotonic() < limit
        time.sleep(0.05)
