"""Each screen in each state against its golden frame (tests/data/tui), and what holds for all screens."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Footer, Tab

from realmfs.tui.app import PANES, RealmfsApp
from realmfs.tui.help import Help, keys_of
from realmfs.tui.keypage import keys_page
from realmfs.tui.panes.browse import SETTLE
from realmfs.tui.panes.reintegration import ReintegrationPane
from realmfs.tui.tree import TreeOfRealms
from tests.t8_cli_tui.fakedaemon import FakeDaemon, compare, drive_fake
from tests.t8_cli_tui.pilot import drive, screen_text, until
from tests.t8_cli_tui.scenes import BUSY, EVENTS, REALM, SCENES

SMALL, WIDE = (80, 24), (130, 36)
ALL = tuple(pane.key for pane in PANES)
CHOSEN = dict.fromkeys(("busy", "offline"), f"{REALM}/paper.txt") | {"conflict": f"{REALM}/plan.txt"}
"""What the cursor goes to in Browse: at once, for what it rests on is asked about, and told better then."""
CASES = [
    *((state, SMALL, ALL) for state in ("empty", "busy", "offline", "error", "conflict")),
    ("busy", WIDE, ALL),
    ("walking", SMALL, ("hoard",)),
    ("ready", SMALL, ("hoard",)),
]


@pytest.fixture(autouse=True)
def always_the_same(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("realmfs.tui.panes.servers.HISTORY", 1)  # else a bar more at each load
    monkeypatch.setattr(ReintegrationPane, "_next_second", lambda pane: None)  # else the bars move on
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def settled(app: RealmfsApp, pilot: Pilot[None]) -> None:
    """Wait until nothing is asked, nothing is to be shown, and the cursor has rested."""
    await until(pilot, lambda: app.link.up)
    await pilot.pause(SETTLE + 0.05)
    await until(
        pilot, lambda: not any(one.group in ("load", "ask", "details", "versions") for one in app.workers)
    )
    await pilot.pause()


@pytest.mark.parametrize(("state", "size", "panes"), CASES, ids=str)
def test_screens_look_as_their_frames(
    state: str, size: tuple[int, int], panes: tuple[str, ...], tmp_path: Path
) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        for pane in panes:
            app.clear_notifications()
            app.action_show(pane)
            await settled(app, pilot)
            if pane == "browse" and state in CHOSEN:
                await pilot.press("j", "l")
                await settled(app, pilot)
                assert await app.query_one(TreeOfRealms).reveal(CHOSEN[state])
            await compare(f"{pane}-{state}-{size[0]}x{size[1]}", app, pilot)

    events = EVENTS if state == "busy" else []
    drive_fake(tmp_path, SCENES[state], script, size=size, events=events)


def test_without_a_daemon(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "Start it" in screen_text(app))
        seen = screen_text(app)
        assert "no daemon" in seen
        assert seen.count("\n") + 1 == SMALL[1]

    drive(tmp_path / "none", script)


def test_the_offer_to_start_a_daemon_may_come_when_the_screen_has_gone(tmp_path: Path) -> None:
    app = RealmfsApp(tmp_path / "none")
    app._offer("there is no screen yet, or none any more")
    assert not app.screen_stack


def test_keys_are_all_told(tmp_path: Path) -> None:
    """Every key has words in the help, and the footer fits 80 columns."""

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await until(pilot, lambda: app.link.up)
        for pane in PANES:
            app.action_show(pane.key)
            await pilot.pause()
            assert app.query_one(Footer).virtual_size.width <= SMALL[0]
            await pilot.press("question_mark")
            await until(pilot, lambda: isinstance(app.screen, Help))
            keys = [*keys_of(pane), *keys_of(RealmfsApp)]
            assert all(key.text for key in keys)
            assert len({key.keys for key in keys}) == len(keys)
            text = keys[0].text[:40]
            await until(pilot, lambda text=text: text in screen_text(app))  # type: ignore[misc]  # bound now
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Help))
            commands = [command.title for command in app.get_system_commands(app.screen)]
            assert {f"{pane.title}: {key.name}" for key in keys_of(pane)} <= set(commands)

    drive_fake(tmp_path, BUSY, script)


def test_a_command_of_the_palette_goes_to_its_pane_and_acts(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await settled(app, pilot)
        await pilot.press("ctrl+p")
        await pilot.pause(0.2)
        await pilot.press(*"Check now", "enter")
        await until(pilot, lambda: ("servers.list", {"check": True, "cursor": None}) in daemon.calls)
        assert app.pane.key == "servers"

    drive_fake(tmp_path, BUSY, script)


def test_the_theme_is_remembered(tmp_path: Path) -> None:
    async def choose(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        app.theme = "ansi-light"
        await pilot.pause()

    async def see(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        assert app.theme == "ansi-light"

    drive_fake(tmp_path, BUSY, choose)
    (tmp_path / "socket").unlink(missing_ok=True)
    drive_fake(tmp_path, BUSY, see)
    (tmp_path / "tui.json").write_text("nonsense")
    (tmp_path / "socket").unlink(missing_ok=True)

    async def usual(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        assert app.theme == "textual-dark"

    drive_fake(tmp_path, BUSY, usual)


def test_the_mouse_reaches_every_pane_and_opens_directories(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await settled(app, pilot)
        for pane in reversed(PANES):
            await pilot.click(app.query_one(f"Tab#{pane.key}", Tab))
            await pilot.pause()
            assert app.pane.key == pane.key
        tree = app.query_one(TreeOfRealms)
        await pilot.click(tree, offset=(8, 1))
        await until(pilot, lambda: tree.last_line > 3)
        await pilot.click(app.query_one("Tab#hoard", Tab))
        await settled(app, pilot)
        table = app.query_one("#hoard-entries")
        await pilot.click(table, offset=(5, 2))
        await pilot.press("e")
        await until(pilot, lambda: "It comes from the profile" in screen_text(app))

    drive_fake(tmp_path, BUSY, script)


def test_without_colours_the_words_say_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        app.action_show("servers")
        await settled(app, pilot)
        assert app.no_color
        assert "● up" in screen_text(app)
        assert "valid" in screen_text(app)

    drive_fake(tmp_path, BUSY, script)


def test_the_page_of_keys_is_what_the_bindings_are() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "keys.md"
    assert page.read_text() == keys_page(), "run scripts/record_tui.py"
