"""New keys for logins, at three servers that run: old logins go on, new ones work, revoked ones end."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.loopback import own_address
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import PASSWORD, held

REALM = "keys.test"


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def knows_ann(home: Home, data: Path) -> bool:
    return "ann" in home.run("admin", "user", "list", "--data", str(data)).split()


@pytest.fixture
def group(home: Home) -> Iterator[Path]:
    """Three servers of a realm, each a process; returns a realms file."""
    data = home.top / "server"
    data.mkdir()
    with ExitStack() as running:
        logs = []
        for number in (1, 2, 3):
            log = home.top / f"server{number}.log"
            argv = ["serve", "--realm", REALM, "--data", str(data), "--server", f"{number}/3", "-v"]
            argv += ["--address", f"{own_address(number)}:24340"]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "realmfs", *argv],
                    stdout=output, stderr=output, env=home.environment,
                )  # fmt: skip
            running.callback(process.wait, 20)
            running.callback(process.terminate)
            logs.append(log)
        until(lambda: all("serving" in log.read_text() for log in logs))
        home.run("admin", "user", "add", "--data", str(data), "--administrator", "ann", stdin=PASSWORD)
        for number in (1, 2, 3):  # each is asked who she is, in any order
            until(partial(knows_ann, home, data / f"server-{number}"))
        realms = home.top / "realms"
        realms.write_text(f"{REALM} {' '.join(f'{own_address(number)}:24340' for number in (1, 2, 3))}\n")
        yield realms


def change(home: Home, name: str) -> None:
    """Make a directory, and see it arrive: no server refuses who made it."""
    home.run("mkdir", f"{REALM}/{name}")
    until(lambda: "No change waits" in home.run("changes"))


def servers_up(home: Home) -> int:
    return [one["state"] for one in json.loads(home.run("servers", "--check", "--json"))].count("up")


def test_keys_change_while_three_servers_run(home: Home, group: Path) -> None:
    keys = ("admin", "keys", "rotate", "--data", str(home.top / "server" / "server-1"))
    home.run("mount", "--no-kernel", "--realms", str(group))
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("ls", REALM)
    until(lambda: servers_up(home) == 3)
    change(home, "before")
    home.run("login", f"ann@{REALM}", "--to-file", str(home.top / "old"), stdin=PASSWORD)
    assert "hold until" in home.run(*keys)
    change(home, "old-login-after-rotation")
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    change(home, "new-login")
    home.run("login", f"@{REALM}", "--from-file", str(home.top / "old"))
    change(home, "old-token-bound-anew")
    assert held(home) == [("", "valid")]
    assert "must log in again" in home.run(*keys, "--revoke")
    logs = [home.top / f"server{number}.log" for number in (1, 2, 3)]
    until(lambda: all("its token was revoked" in log.read_text() for log in logs))
    home.run("mkdir", f"{REALM}/revoked", status=1)
    assert held(home) == [], "refused, so dropped"
    home.run("ls", REALM)
    home.run("login", f"@{REALM}", "--from-file", str(home.top / "old"))
    home.run("mkdir", f"{REALM}/revoked", status=1)
    until(lambda: held(home) == [])
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    change(home, "after")
    names = home.run("ls", REALM).split()
    for name in ("before", "old-login-after-rotation", "new-login", "old-token-bound-anew", "after"):
        assert any(name in one for one in names), names
    assert not any("revoked" in one for one in names)
