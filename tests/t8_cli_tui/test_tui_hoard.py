"""The pane of the hoard, beside a real daemon and a realm with a small tree."""

import json
from typing import Any

import pytest
from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp
from realmfs.tui.dialogs import Confirm
from realmfs.tui.table import Rows
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until
from tests.t8_cli_tui.test_hoard import FILES, REALM, serving

SRC = f"{REALM}/src"


def entries(home: Home) -> list[tuple[str, str]]:
    return [(one["path"], one["attributes"]) for one in json.loads(home.run("hoard", "list", "--json"))]


def status(home: Home) -> dict[str, Any]:
    told = json.loads(home.run("hoard", "status", "--json"))
    assert isinstance(told, dict)
    return told


def profile(home: Home) -> None:
    folder = home.top / "config" / "realmfs" / "hoard"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "office").write_text(f"add /coda/{SRC}/d1 300:c+\n")


async def ready(app: RealmfsApp, pilot: Pilot[None], word: str) -> None:
    await until(pilot, lambda: word in screen_text(app))


def test_entries_are_edited_planned_and_walked(home: Home) -> None:
    profile(home)
    with serving(home) as realms:
        home.run("mount", "--no-kernel", "--realms", str(realms))
        home.run("hoard", "off")

        async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
            app.action_show("hoard")
            await ready(app, pilot, "Nothing is hoarded")
            await pilot.press("a", *f"/coda/{SRC}", "enter", "ctrl+u", *"600:d+", "enter")
            await ready(app, pilot, "Not ready")
            assert entries(home) == [(f"/{SRC}", "600:d+")]
            await pilot.press("p")
            await ready(app, pilot, f"Plan: fetch {FILES}")
            await pilot.press("w")
            await ready(app, pilot, "Ready to unplug")
            assert (status(home)["ready"], status(home)["missing"]) == (True, 0)
            await pilot.press("plus", "plus")
            await ready(app, pilot, "620")
            await pilot.press("minus", "c")
            await ready(app, pilot, "children")
            await until(pilot, lambda: entries(home) == [(f"/{SRC}", "610:c+")])
            await pilot.press("d")
            await until(pilot, lambda: entries(home) == [(f"/{SRC}", "610:d+")])
            await pilot.press("d")
            await until(pilot, lambda: entries(home) == [(f"/{SRC}", "610")])
            await pilot.press("e", "ctrl+u", *"50", "enter")
            await until(pilot, lambda: entries(home) == [(f"/{SRC}", "50")])
            await pilot.press("e", "ctrl+u", *"6:x", "enter")
            await ready(app, pilot, "no attribute")
            assert entries(home) == [(f"/{SRC}", "50")]
            await pilot.press("o")
            await until(pilot, lambda: status(home)["on"])
            await edit_profiles(app, pilot, home)
            await pilot.press("D")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await ready(app, pilot, "Nothing is hoarded")
            assert entries(home) == []

        drive(home.socket, script, size=(110, 30))


def test_a_walk_is_stopped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = home.top / "hold"
    monkeypatch.setenv("REALMFS_HOLD", str(hold))
    with serving(home, "tests.t8_cli_tui.holdingserver") as realms:
        home.run("mount", "--no-kernel", "--realms", str(realms))
        home.run("hoard", "off")
        home.run("hoard", "add", f"/coda/{SRC}", "600:d+")

        async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
            app.action_show("hoard")
            await ready(app, pilot, "Not ready")
            hold.touch()
            await pilot.press("w")
            await until(pilot, lambda: status(home)["walking"] and status(home)["phase"] == "data")
            await until(pilot, lambda: app.query_one("#hoard-progress").display)
            await pilot.press("w")
            await until(pilot, lambda: not status(home)["walking"])
            told = status(home)
            assert (told["last"]["complete"], told["last"]["files"], told["missing"]) == (False, 0, FILES)
            await until(pilot, lambda: not app.query_one("#hoard-progress").display)
            hold.unlink()
            await pilot.press("w")
            await ready(app, pilot, "Ready to unplug")
            assert status(home)["last"]["complete"]

        drive(home.socket, script, size=(110, 30))


async def edit_profiles(app: RealmfsApp, pilot: Pilot[None], home: Home) -> None:
    """Enable the profile, fail to edit its entry, disable it; the cursor ends on the entry of our own."""
    app.query_one("#hoard-profiles", Rows).focus()
    await pilot.press("space")
    await until(pilot, lambda: (f"/{SRC}/d1", "300:c+") in entries(home))
    await ready(app, pilot, "300")
    app.query_one("#hoard-entries", Rows).focus()
    await pilot.press("up", "D")
    await ready(app, pilot, "edit its file")
    app.query_one("#hoard-profiles", Rows).focus()
    await pilot.press("space")
    await until(pilot, lambda: len(entries(home)) == 1)
    app.query_one("#hoard-entries", Rows).focus()
    await until(pilot, lambda: app.query_one("#hoard-entries", Rows).row_count == 1)
