"""The pane of servers and tokens, beside a real daemon and a realm of its own; and what it is built of."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from rich.text import Text
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp
from realmfs.tui.dialogs import Confirm, Form
from realmfs.tui.groups import group_rows
from realmfs.tui.statusline import login
from realmfs.tui.table import Rows
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until
from tests.t8_cli_tui.test_login import PASSWORD, REALM, held, served, start

__all__ = ["served"]


def test_log_in_and_out(home: Home, served: Path) -> None:
    start(home, served)
    home.run("ls", REALM)

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        app.action_show("servers")
        await until(pilot, lambda: "● up" in screen_text(app))
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press("shift+tab", "ctrl+u", *"ann", "enter", *"wrong", "enter")
        await until(pilot, lambda: "password is wrong" in screen_text(app))
        assert held(home) == []
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, Form))
        assert "wrong" not in screen_text(app).replace("password is wrong", "")
        await pilot.press("shift+tab", "ctrl+u", *"ann", "enter", *PASSWORD, "enter")
        await until(pilot, lambda: "valid" in screen_text(app))
        assert held(home) == [("ann", "valid")]
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert held(home) == [("ann", "valid")]
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "valid" not in screen_text(app))
        assert held(home) == []

    drive(home.socket, script, size=(120, 40))


def test_check_now_asks_the_servers(home: Home, served: Path) -> None:
    start(home, served)
    home.run("ls", REALM)

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        app.action_show("servers")
        await until(pilot, lambda: "● up" in screen_text(app))
        (server,) = json.loads(await asyncio.to_thread(home.run, "servers", "--json"))
        await pilot.pause(1.2)
        await pilot.press("c")
        (after,) = json.loads(await asyncio.to_thread(home.run, "servers", "--json"))
        assert after["last_heard"] < server["last_heard"] + 1.2

    drive(home.socket, script)


class Table(App[None]):
    """An application of one table."""

    def compose(self) -> ComposeResult:
        yield Rows(("one", "two"), id="rows")


@pytest.mark.parametrize("seed", random.sample(range(1 << 30), 2))
def test_a_table_shows_what_it_was_told_last(seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)

    async def run() -> None:
        app = Table()
        async with app.run_test() as pilot:
            table = app.query_one(Rows)
            for _ in range(25):
                keys = chance.sample("abcdefgh", chance.randrange(8))
                if chance.random() < 0.7:
                    keys.sort()
                rows = {key: (key, str(chance.randrange(3))) for key in keys}
                chosen = table.chosen
                table.show_rows(rows)
                await pilot.pause()
                shown = [tuple(str(cell) for cell in table.get_row_at(row)) for row in range(table.row_count)]
                assert shown == list(rows.values())
                if chosen in rows:
                    assert table.chosen == chosen
                table.move_cursor(row=chance.randrange(8))
                await pilot.pause()

    asyncio.run(run())


def volume(name: str, *places: int, state: str = "reachable") -> dict[str, object]:
    return {
        "realm": "r",
        "name": name,
        "servers": [f"10.0.0.{place}:2432" for place in places],
        "state": state,
    }


def test_groups_say_who_holds_what_and_how_many_are_there() -> None:
    servers = [
        {"realm": "r", "address": f"10.0.0.{place}:2432", "name": f"s{place}.r", "state": state}
        for place, state in ((1, "up"), (2, "down"), (3, "up"))
    ]
    volumes = [volume("b", 1, 2, 3), volume("a", 3, 2, 1), volume("one", 2), volume("w", 1, 3)]
    volumes.append(volume("lost", 9))
    rows = [tuple(str(cell) for cell in row) for row in group_rows(volumes, servers).values()]
    assert rows == [
        ("r", "s1, s2, s3", "◐ 2 of 3", "2 volumes: a, b"),
        ("r", "s1, s3", "● 2 of 2", "1 volume: w"),
        ("r", "s2", "○ 0 of 1", "1 volume: one"),
        ("r", "10.0.0.9", "○ 0 of 1", "1 volume: lost"),
    ]
    (row,) = group_rows([volume("x", 1, 3, state="resolving")], servers).values()
    assert str(row[2]) == "◐ 2 of 2, resolving"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([], ""),
        ([{"state": "valid", "ends": 3700.0}], ""),
        ([{"state": "valid", "ends": None}], ""),
        (
            [{"state": "valid", "ends": 9000.0}, {"state": "valid", "ends": 2400.0}],
            "login ends in 40 min: 5, l",
        ),
        ([{"state": "valid", "ends": 2400.0}, {"state": "expired", "ends": 0.0}], "! log in: 5, l"),
        ([{"state": "missing", "ends": None}], "! log in: 5, l"),
    ],
)
def test_the_line_at_the_top_says_when_somebody_must_log_in(
    tokens: list[dict[str, object]], said: str
) -> None:
    assert Text.from_markup(login(tokens, 0.0)).plain == said
