"""The tree of realms, beside a real daemon and a realm of its own."""

from pathlib import Path

from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp
from realmfs.tui.tree import TreeOfRealms
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until
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
        await pilot.press("backspace", "backspace", "escape")
        await until(pilot, lambda: f"{directory}/Pear" in names(app))
        home.run("rm", f"{directory}/apple")
        home.run("mkdir", f"{directory}/fig")
        await pilot.press("r")
        await until(pilot, lambda: f"{directory}/fig" in names(app))
        assert f"{directory}/apple" not in names(app)
        await pilot.press("h")
        await until(pilot, lambda: f"{directory}/plum" not in names(app))

    drive(home.socket, script, size=(110, 30))
