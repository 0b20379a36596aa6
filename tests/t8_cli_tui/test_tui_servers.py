"""The pane of servers and tokens, beside a real daemon and a realm of its own; and what it is built of."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp
from realmfs.tui.dialogs import Confirm, Form
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
