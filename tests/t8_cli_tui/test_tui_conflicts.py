"""The pane of conflicts, with real ones: two daemons change the same files of one realm."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from textual.pilot import Pilot

from realmfs.control.client import Client, NoDaemonError
from realmfs.tui.app import RealmfsApp
from realmfs.tui.dialogs import Confirm
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until
from tests.t8_cli_tui.test_login import PASSWORD, REALM, served, start

__all__ = ["served"]

NAMES = ("one", "two", "three")


@pytest.fixture
def quarrel(home: Home, served: Path) -> Iterator[Home]:
    """A home whose changes of three files are refused: somebody else has changed them meanwhile."""
    other = Home(home.top / "other")
    other.top.mkdir()
    for each in (home, other):
        start(each, served)
        each.run("login", f"ann@{REALM}", stdin=PASSWORD)
    write(home, "as it was\n")
    home.run("disconnect")
    write(home, "ours\nthe same\n")
    write(other, "theirs\nthe same\n")
    home.run("reconnect")
    limit = time.monotonic() + 30
    while len(json.loads(home.run("conflicts", "list", "--json"))) < len(NAMES):
        assert time.monotonic() < limit
    yield home
    with suppress(NoDaemonError), Client(other.socket, timeout=5) as client:
        client.call("daemon.stop", force=True)


def write(home: Home, text: str) -> None:
    for name in NAMES:
        source = home.top / "source"
        source.write_text(f"{name} {text}")
        home.run("put", str(source), f"{REALM}/{name}")
    limit = time.monotonic() + 30
    while "off line" not in home.run("status") and json.loads(home.run("changes", "--json")):
        assert time.monotonic() < limit


def conflicts(home: Home) -> list[tuple[str, list[str]]]:
    return [(one["path"], one["changes"]) for one in json.loads(home.run("conflicts", "list", "--json"))]


async def settled(pilot: Pilot[None], app: RealmfsApp) -> None:
    """Say yes, and wait until it is done."""
    await until(pilot, lambda: isinstance(app.screen, Confirm))
    await pilot.press("y")
    await until(pilot, lambda: not isinstance(app.screen, Confirm))
    await until(pilot, lambda: not any(one.group == "ask" for one in app.workers))


def test_conflicts_are_shown_and_settled(quarrel: Home) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        app.action_show("conflicts")
        await until(pilot, lambda: all(f"/{REALM}/{name}" in screen_text(app) for name in NAMES))
        await until(pilot, lambda: "has been changed on the servers meanwhile" in screen_text(app))
        await pilot.press("space", "s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        await pilot.press("o")  # the one marked above
        await settled(pilot, app)
        await until(pilot, lambda: len(conflicts(quarrel)) == 2)
        await pilot.press("r", "b")
        await settled(pilot, app)
        await until(pilot, lambda: len(conflicts(quarrel)) == 1)
        while conflicts(quarrel):
            await pilot.press("a", "s")
            await settled(pilot, app)
            await pilot.press("r")
        await until(pilot, lambda: "No conflicts" in screen_text(app))

    drive(quarrel.socket, script, size=(110, 30))
    listed = quarrel.run("ls", REALM).split()
    print(listed)
    contents = [quarrel.run("cat", f"{REALM}/{name}").splitlines()[0] for name in listed]
    assert sorted(line.split()[1] for line in contents) == ["ours", "ours", "theirs", "theirs"]
    assert json.loads(quarrel.run("changes", "--json")) == []
