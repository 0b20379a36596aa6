"""`quota` and `mountpoint` at an embedded realm."""

import json
from pathlib import Path

from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]  # a fixture


def test_a_quota_is_shown_and_set_by_administrators(home: Home, served: Path) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    assert "its server's disk: " in home.run("quota", REALM)
    assert "quota 20.0 MiB" in home.run("quota", REALM, "--set", "20M")
    assert json.loads(home.run("quota", REALM, "--json"))["max_quota"] == 20 << 10
    home.run("mkdir", f"{REALM}/after")
    assert "no limit" in home.run("quota", f"{REALM}/after", "--set", "none")
    assert "must be a size" in home.run("quota", REALM, "--set", "much", status=2)
    home.run("quota", REALM, "--set", "5000G", status=1)
    home.run("logout")
    home.run("login", f"bob@{REALM}", stdin="bobs\n")
    assert "administrators" in home.run("quota", REALM, "--set", "1G", status=1)
    assert "no limit" in home.run("quota", REALM)


def test_mount_points(home: Home, served: Path) -> None:
    start(home, served)
    home.run("admin", "volume", "create", "--data", str(home.top / "server"), "--no-mount", "src")
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    made = home.run("mountpoint", "make", f"{REALM}/code", "src")
    assert made == f"{REALM}/code: volume src@{REALM}\n"
    home.run("mkdir", f"{REALM}/code/in-it")
    assert json.loads(home.run("stat", "--json", f"{REALM}/code"))["details"]["volume"] == "src"
    assert json.loads(home.run("mountpoint", "show", "--json", f"{REALM}/code"))["text"] == "#src."
    assert "no mount point" in home.run("mountpoint", "show", f"{REALM}/code/in-it", status=1)
    assert "No such file" in home.run("mountpoint", "show", f"{REALM}/nothing", status=1)
    assert "can be named" in home.run("mountpoint", "make", f"{REALM}/x", "a/b@c", status=1)
    home.run("mountpoint", "make", f"{REALM}/src")
    assert "in-it" in home.run("ls", f"{REALM}/src")
    home.run("mountpoint", "remove", f"{REALM}/src")
    assert "src" not in home.run("ls", REALM)
    assert "no mount point" in home.run("mountpoint", "remove", f"{REALM}/code/in-it", status=1)
    assert "by themselves" in home.run("mountpoint", "remove", REALM, status=1)
    assert "in-it" in home.run("ls", f"{REALM}/code")
