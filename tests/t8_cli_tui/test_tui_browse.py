"""The tree of realms, beside a real daemon and a realm of its own."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp
from realmfs.tui.facts import facts, why_here
from realmfs.tui.tree import TreeOfRealms
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until
from tests.t8_cli_tui.test_hoard import serving
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]


def names(app: RealmfsApp) -> list[str]:
    """The paths of all lines of the tree."""
    tree = app.query_one(TreeOfRealms)
    lines = [tree.get_node_at_line(number) for number in range(tree.last_line + 1)]
    return [line.data.path for line in lines if line is not None and line.data is not None]


def test_a_tree_is_opened_filtered_and_asked_again(home: Home, served: Path) -> None:
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("mkdir", f"{REALM}/d", f"{REALM}/empty")
    text = home.top / "text"
    text.write_text("what the file says\n")
    for name in ("apple", "Pear", "plum"):
        home.run("put", str(text), f"{REALM}/d/{name}")

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: names(app) == ["", REALM])
        await pilot.press("j", "l")
        await until(pilot, lambda: f"{REALM}/empty" in names(app))
        await pilot.press("j", "l")
        directory = f"{REALM}/d"
        await until(pilot, lambda: f"{directory}/plum" in names(app))
        inside = [f"{directory}/{name}" for name in ("apple", "Pear", "plum")]
        assert names(app) == ["", REALM, directory, *inside, f"{REALM}/empty"]
        await pilot.press("j")
        await until(pilot, lambda: "what the file says" in screen_text(app))
        assert f"/coda/{directory}/apple" in screen_text(app)
        await pilot.press("slash", "p", "l")
        await until(pilot, lambda: f"{directory}/Pear" not in names(app))
        assert f"{directory}/apple" in names(app)
        await pilot.press("enter", "j")
        assert not app.query_one("#browse-filter").display, "the directory says what its filter is"
        assert "[filter: pl]" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: f"{directory}/Pear" in names(app))
        assert "[filter" not in screen_text(app)
        await pilot.press("slash", "p", "l", "u", "enter")
        await until(pilot, lambda: f"{directory}/Pear" not in names(app))
        await pilot.press("slash", "backspace")
        await until(pilot, lambda: f"{directory}/apple" in names(app))
        await pilot.press("escape")
        await until(pilot, lambda: f"{directory}/Pear" in names(app))
        await pilot.press("slash", "p", "l", "enter")
        await until(pilot, lambda: f"{directory}/Pear" not in names(app))
        await pilot.press("g", *f"{directory}/Pear", "enter")
        await until(pilot, lambda: f"/coda/{directory}/Pear\n" in screen_text(app))
        assert f"{directory}/Pear" in names(app), "a filter that hides what was asked for goes"
        home.run("rm", f"{directory}/apple")
        home.run("mkdir", f"{directory}/fig")
        await pilot.press("r")
        await until(pilot, lambda: f"{directory}/fig" in names(app))
        assert f"{directory}/apple" not in names(app)
        await pilot.press("h", "h")
        await until(pilot, lambda: f"{directory}/plum" not in names(app))

    drive(home.socket, script, size=(110, 30))


def test_objects_are_fetched_dropped_and_hoarded(home: Home) -> None:
    with serving(home) as realms:
        home.run("mount", "--no-kernel", "--realms", str(realms))

        def stat(path: str) -> dict[str, str]:
            told = json.loads(home.run("stat", "--json", path))["details"]
            assert isinstance(told, dict)
            return told

        async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
            await until(pilot, lambda: app.link.up)
            await pilot.press("g", *f"/coda/{REALM}/src/d1/f1", "enter")
            await until(pilot, lambda: f"/coda/{REALM}/src/d1/f1\n" in screen_text(app))
            await pilot.press("f")
            await until(pilot, lambda: "Here now" in screen_text(app))
            assert [stat(f"{REALM}/src/d1/f{n}")["state"] for n in (1, 4)] == ["cached", "absent"]
            app.clear_notifications()
            await pilot.press("g", *f"/coda/{REALM}/src", "enter")
            await until(pilot, lambda: f"/coda/{REALM}/src\n" in screen_text(app))
            await pilot.press("F")
            await until(pilot, lambda: "Here now" in screen_text(app))
            assert stat(f"{REALM}/src/d1/f1")["state"] == "cached"
            await until(pilot, lambda: "used lately" in screen_text(app))
            await pilot.press("H")
            await until(pilot, lambda: "100:d+" in screen_text(app))
            assert stat(f"{REALM}/src")["hoard"] == "100:d+"
            await pilot.press("H")
            await until(pilot, lambda: "No longer hoarded" in screen_text(app))
            assert json.loads(home.run("hoard", "list", "--json")) == []
            await pilot.press("x")
            await until(pilot, lambda: "Dropped of" in screen_text(app))
            assert stat(f"{REALM}/src/d1/f1")["state"] == "absent"
            await pilot.press("y")
            await until(pilot, lambda: "Copied" in screen_text(app))
            assert app.clipboard.endswith(f"/{REALM}/src")

        drive(home.socket, script, size=(110, 34))


def told(**details: str) -> dict[str, Any]:
    attributes = {"type": "file", "mode": 0o644, "size": 5, "mtime": 0}
    return {"attributes": attributes, "target": None, "details": details}


@pytest.mark.parametrize(
    ("vv", "said"),
    [
        ("[3 3 3][1.2]", "all 3 have this version"),
        ("[3 2 3][1.2]", "2 of 3 have it, the others are behind"),
        ("[3][1.2]", "1 of 3 have it, the others are behind"),
        ("", "not known yet"),
        ("[?][1.2]", "not known yet"),
    ],
)
def test_the_agreement_of_replicas_is_told(vv: str, said: str) -> None:
    shown = facts(
        told(vv=vv, servers="10.0.0.1 10.0.0.2 10.0.0.3"), [{"address": "10.0.0.2:2432", "state": "up"}]
    )
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(shown)
    assert re.search(rf"replicas\s+{said}\s*\n", capture.get())
    assert capture.get().count("●") == 1


def test_why_something_is_here() -> None:
    assert why_here({"state": "absent", "hoard": "5"}) == ""
    assert why_here({"state": "cached", "pending": "2", "hoard": "5"}) == "changes of it wait to be sent"
    assert why_here({"state": "cached", "hoard": "5:d+"}) == "hoarded: 5:d+"
    assert why_here({"state": "partial", "hoard": "5"}) == "hoarded, priority 5"
    assert why_here({"state": "cached", "hoard": "0", "priority": "7"}) == "used lately (priority 7)"
