"""`acl get` and `acl set` at an embedded realm."""

import json
from pathlib import Path

from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]  # a fixture


def test_access_lists(home: Home, served: Path) -> None:
    start(home, served)
    data = str(home.top / "server")
    home.run("admin", "group", "add", "--data", data, "team")
    home.run("admin", "group", "join", "--data", data, "team", "bob")
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("mkdir", f"{REALM}/d")
    said = home.run("acl", "set", f"{REALM}/d", "ann", "all", "team", "rlidw", "System:AnyUser", "none")
    entries = [line.split() for line in said.splitlines()]
    assert ["ann", "rlidwka"] in entries
    assert ["team", "rlidw"] in entries
    assert "AnyUser" not in said
    home.run("acl", "set", "-negative", f"{REALM}/d", "bob", "w")
    shown = home.run("acl", "get", f"{REALM}/d")
    assert "bob  -w" in shown
    found = json.loads(home.run("acl", "get", "--json", f"{REALM}/d"))
    assert found["negative"] == [{"name": "bob", "rights": "w"}]
    (home.top / "list").write_text(shown.replace("team  rlidw", "team  rl"))
    again = home.run("acl", "set", f"{REALM}/d", "--file", str(home.top / "list"))
    assert "team  rl\n" in again
    assert "bob  -w" in again
    assert home.run("acl", "set", f"{REALM}/d", "--clear", "ann", "all").split() == ["ann", "rlidwka"]
    assert "know no user" in home.run("acl", "set", f"{REALM}/d", "zoe", "rl", status=1)
    assert "no set of rights" in home.run("acl", "set", f"{REALM}/d", "bob", "xyz", status=1)
    assert "only directories" in home.run("acl", "get", "/", status=1)
    home.run("acl", "set", f"{REALM}/d", "ann", status=2)
    home.run("acl", "set", "--clear", "--negative", f"{REALM}/d", "ann", "r", status=2)
    home.run("logout")
    assert "logged in" in home.run("acl", "set", f"{REALM}/d", "ann", "rl", status=1)
    assert home.run("ls", f"{REALM}/d", status=1)


def test_access_lists_of_trees(home: Home, served: Path) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("mkdir", f"{REALM}/d", f"{REALM}/d/e", f"{REALM}/copy", f"{REALM}/copy/e")
    home.run("acl", "set", "-R", f"{REALM}/d", "bob", "rl")
    assert "bob  rl" in home.run("acl", "get", f"{REALM}/d/e")
    home.run("acl", "set", f"{REALM}/d/e", "bob", "rlidwk")
    home.run("acl", "save", f"{REALM}/d", "lists")
    saved = json.loads((home.top / "lists").read_text())
    assert list(saved) == [".", "e"]
    assert "bob rlidwk" in saved["e"]
    differ = [f"/{REALM}/copy", f"/{REALM}/copy/e"]
    assert home.run("acl", "restore", "--dry-run", f"{REALM}/copy", "lists").split() == differ
    assert home.run("acl", "restore", f"{REALM}/copy", "lists").split() == differ
    assert home.run("acl", "restore", f"{REALM}/copy", "lists") == ""
    assert "bob  rlidwk" in home.run("acl", "get", f"{REALM}/copy/e")
    (home.top / "lists").write_text(json.dumps({"nosuch": ["ann all"], "e": ["bob l"]}))
    said = home.run("acl", "restore", f"{REALM}/copy", "lists", status=1)
    assert "nosuch" in said
    assert "1 directories are left" in said
    assert "bob  l\n" in home.run("acl", "get", f"{REALM}/copy/e")
    (home.top / "lists").write_text("rubbish")
    assert "acl save" in home.run("acl", "restore", f"{REALM}/copy", "lists", status=1)
