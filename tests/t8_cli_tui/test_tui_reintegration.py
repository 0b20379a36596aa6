"""The pane of pending changes, beside a real daemon and a realm of its own."""

import asyncio
import json
from pathlib import Path

import pytest
from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp
from realmfs.tui.dialogs import Confirm
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]


def waiting(home: Home) -> list[tuple[str, str]]:
    return [(one["what"], one["path"]) for one in json.loads(home.run("changes", "--json"))]


def test_what_was_refused_is_sent_again(home: Home, served: Path) -> None:
    """Bob may write, goes off line and works; meanwhile he may not, and then he may again."""
    other = Home(home.top / "ann")
    other.top.mkdir()
    for each, user, password in ((other, "ann", PASSWORD), (home, "bob", "bobs\n")):
        start(each, served)
        each.run("login", f"{user}@{REALM}", stdin=password)
    try:
        other.run("acl", "set", REALM, "bob", "all")
        home.run("ls", REALM)
        home.run("disconnect")
        home.run("mkdir", f"{REALM}/mine")
        other.run("acl", "set", REALM, "bob", "rl")
        home.run("reconnect")

        async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
            app.action_show("reintegration")
            await until(pilot, lambda: "refused" in screen_text(app))
            await pilot.press("g")
            await until(pilot, lambda: "Not all sent" in screen_text(app))
            assert waiting(home)
            await asyncio.to_thread(other.run, "acl", "set", REALM, "bob", "all")
            await pilot.press("t")
            await until(pilot, lambda: not waiting(home))
            assert "mine" in other.run("ls", REALM)

        drive(home.socket, script, size=(110, 34))
    finally:
        other.run("unmount")


def test_changes_wait_are_discarded_exported_and_sent(
    home: Home, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home.top))
    start(home, served)
    home.run("login", f"ann@{REALM}", stdin=PASSWORD)
    home.run("ls", REALM)

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        app.action_show("reintegration")
        await until(pilot, lambda: "Everything has reached the servers" in screen_text(app))
        await pilot.press("p")
        await until(pilot, lambda: "paused" in screen_text(app))
        home.run("mkdir", f"{REALM}/keep", f"{REALM}/lose")
        await until(pilot, lambda: "2 changes wait" in screen_text(app) and "lose" in screen_text(app))
        await until(pilot, lambda: "waits for a person" in screen_text(app))
        assert [change["state"] for change in json.loads(home.run("changes", "--json"))] == ["paused"] * 2
        await pilot.press("tab", "down", "D")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "lose" in screen_text(app)
        await pilot.press("y")
        await until(pilot, lambda: "1 change waits" in screen_text(app))
        assert [path for _, path in waiting(home)] == [f"{REALM}/keep"]
        assert waiting(home), "paused"
        await pilot.press("e")
        await until(pilot, lambda: bool(list(home.top.glob("realmfs-changes-*.tar"))))
        await pilot.press("o")
        await until(pilot, lambda: "Off line: changes wait here" in screen_text(app))
        await pilot.press("g")
        await until(pilot, lambda: "disconnected by hand" in screen_text(app))
        await pilot.press("o")
        await until(pilot, lambda: "On line again" in screen_text(app))
        await until(pilot, lambda: "Everything has reached the servers" in screen_text(app))
        assert waiting(home) == []
        await pilot.press("p")
        await until(pilot, lambda: "paused" not in screen_text(app))
        home.run("mkdir", f"{REALM}/more")
        await until(pilot, lambda: not waiting(home))

    drive(home.socket, script, size=(110, 34))
    assert not json.loads(home.run("writeback", "--json"))["paused"]
