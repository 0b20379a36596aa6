"""`find`: what is mounted, not cached, changed or hoarded below a directory."""

import json
from pathlib import Path

from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]  # a fixture


def found(home: Home, *options: str) -> list[str]:
    return [line.removeprefix(f"/{REALM}/") for line in home.run("find", REALM, *options).splitlines()]


def test_find(home: Home, served: Path) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("mkdir", f"{REALM}/d", f"{REALM}/d/e")
    home.run("admin", "volume", "create", "--data", str(home.top / "server"), "--no-mount", "other")
    home.run("mountpoint", "make", f"{REALM}/d/other", "other")
    (home.top / "x").write_text("x")
    home.run("put", "x", f"{REALM}/d/e/here.txt")
    home.run("changes", "send")
    assert found(home) == ["d", "d/e", "d/other  (volume other)", "d/e/here.txt"]
    assert found(home, "--mounts") == ["d/other  (volume other)"]
    assert found(home, "--name", "*.txt", "--type", "file") == ["d/e/here.txt"]
    home.run("cache", "flush", f"{REALM}/d/e/here.txt")
    assert found(home, "--uncached", "--type", "file") == ["d/e/here.txt"]
    home.run("hoard", "add", f"{REALM}/d/e", "500:d+")
    assert "d/e" in found(home, "--hoarded")
    home.run("disconnect")
    home.run("mkdir", f"{REALM}/d/new")
    assert "d/new" in found(home, "--dirty", "--here")
    (one,) = json.loads(home.run("find", f"{REALM}/d", "--name", "new", "--here", "--json"))
    assert (one["path"], one["type"], one["state"]) == (f"{REALM}/d/new", "directory", "dirty")
    said = home.run("find", f"{REALM}/nosuch", status=1)
    assert "No such file" in said
