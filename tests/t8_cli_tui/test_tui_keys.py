"""What each key asks the daemon for: all bindings of all panes, and the mouse on what they open.

The panes' own tests look at what becomes of it in a real daemon; here no key can be forgotten.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Button, Footer
from textual.widgets._footer import FooterKey

from realmfs.control.protocol import HELLO, METHOD_NOT_FOUND, VERSION, ControlError
from realmfs.tui.app import PANES, RealmfsApp
from realmfs.tui.dialogs import Confirm, Form
from realmfs.tui.panes.events import EventsPane
from realmfs.tui.starting import Banner
from realmfs.tui.tree import TreeOfRealms
from tests.t8_cli_tui.fakedaemon import SILENCE, FakeDaemon, drive_fake
from tests.t8_cli_tui.pilot import screen_text, until
from tests.t8_cli_tui.scenes import BUSY, CONFLICTS, EVENTS, READY, REALM, WALKING, entry

Asked = tuple[str, Mapping[str, Any]]

FILE = f"{REALM}/paper.txt"
ASKS: dict[tuple[str, str], tuple[tuple[str, ...], Asked]] = {
    ("browse", "f"): ((), ("cache.fetch", {"path": FILE, "recursive": False})),
    ("browse", "F"): ((), ("cache.fetch", {"path": FILE, "recursive": True})),
    ("browse", "x"): ((), ("cache.flush", {"path": FILE})),
    ("browse", "H"): ((), ("hoard.add", {"path": FILE, "attributes": "100"})),
    ("browse", "g"): ((*"a.b/c", "enter"), ("path.stat", {"path": "a.b/c"})),
    ("hoard", "w"): ((), ("hoard.walk", {})),
    ("hoard", "p"): ((), ("hoard.plan", {})),
    ("hoard", "a"): ((*"x.y/z", "enter", "enter"), ("hoard.add", {"path": "x.y/z", "attributes": "100:d+"})),
    ("hoard", "e"): (
        ("ctrl+u", *"5", "enter"),
        ("hoard.add", {"path": f"{REALM}/alice/thesis", "attributes": "5"}),
    ),
    ("hoard", "D"): (("y",), ("hoard.remove", {"path": f"{REALM}/alice/thesis"})),
    ("hoard", "plus"): ((), ("hoard.add", {"path": f"{REALM}/alice/thesis", "attributes": "610:d+"})),
    ("hoard", "minus"): ((), ("hoard.add", {"path": f"{REALM}/alice/thesis", "attributes": "590:d+"})),
    ("hoard", "c"): ((), ("hoard.add", {"path": f"{REALM}/alice/thesis", "attributes": "600:c+"})),
    ("hoard", "d"): ((), ("hoard.add", {"path": f"{REALM}/alice/thesis", "attributes": "600"})),
    ("hoard", "space"): ((), ("hoard.profile", {"name": "travel", "enabled": False})),
    ("hoard", "o"): ((), ("hoard.switch", {"on": False})),
    ("reintegration", "g"): (
        (),
        ("changes.send", {"volume": f"u.alice@{REALM}", "retry": False, "within": 50.0}),
    ),
    ("reintegration", "t"): (
        (),
        ("changes.send", {"volume": f"u.alice@{REALM}", "retry": True, "within": 50.0}),
    ),
    ("reintegration", "p"): ((), ("writeback", {"paused": True})),
    ("reintegration", "D"): (("y",), ("changes.discard", {"sequence": None, "volume": f"u.alice@{REALM}"})),
    ("reintegration", "e"): ((), ("changes.export", {})),
    ("reintegration", "o"): ((), ("connection.disconnect", {})),
    ("conflicts", "o"): (("y",), ("conflicts.settle", {"id": 1, "keep": "local", "server": None})),
    ("conflicts", "s"): (("y",), ("conflicts.settle", {"id": 1, "keep": "server", "server": None})),
    ("conflicts", "b"): (("y",), ("conflicts.settle", {"id": 1, "keep": "both", "server": None})),
    ("servers", "c"): ((), ("servers.list", {"check": True})),
    ("servers", "l"): (
        (*"pw", "enter"),
        ("tokens.login", {"realm": REALM, "user": "alice", "password": "pw"}),
    ),
    ("servers", "o"): (("y",), ("tokens.logout", {"realm": REALM})),
}
"""By pane and key: what is pressed after it, and what the daemon is then asked."""
ONLY_HERE = {
    "browse": {"slash", "exclamation_mark", "y", "h", "l", "j", "k", "escape"},
    "conflicts": {"space", "a"},
    "events": {"slash", "space", "e", "x", "escape"},
}
"""Keys that ask the daemon for nothing; test_tui_browse, _conflicts and _shell see what they do."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "alice")


async def ready(app: RealmfsApp, pilot: Pilot[None], pane: str) -> None:
    """Go to a pane, and wait until it has asked what it asks by itself."""
    await until(pilot, lambda: app.link.up)
    app.action_show(pane)
    await pilot.pause(0.1)
    await until(pilot, lambda: not any(one.group == "load" for one in app.workers))
    if pane == "browse":
        await until(pilot, lambda: len(app.query_one(TreeOfRealms).root.children) > 0)
        assert await app.query_one(TreeOfRealms).reveal(FILE)
        await pilot.pause()


def test_every_key_is_in_the_table() -> None:
    keys = {
        (pane.key, binding.key) for pane in PANES for binding in pane.BINDINGS if isinstance(binding, Binding)
    }
    assert keys == set(ASKS) | {(pane, key) for pane, own in ONLY_HERE.items() for key in own}


@pytest.mark.parametrize("pane", ["browse", "hoard", "reintegration", "conflicts", "servers"])
def test_keys_ask_the_daemon_for_what_they_say(pane: str, tmp_path: Path) -> None:
    sought = [(key, after, asked) for (of, key), (after, asked) in ASKS.items() if of == pane]

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, pane)
        for key, after, (method, params) in sought:
            if (pane, key) == ("hoard", "space"):
                app.query_one("#hoard-profiles").focus()
            daemon.calls.clear()
            await pilot.press(key)
            if after:
                await until(pilot, lambda: isinstance(app.screen, Confirm | Form))
                await pilot.press(*after)

            def asked(method: str = method, params: Mapping[str, Any] = params) -> bool:
                return any(did == method and params.items() <= told.items() for did, told in daemon.calls)

            await until(pilot, asked, wanted=f"{key}: {method} {params}, not {daemon.calls}")
            await until(pilot, lambda: not any(one.group in ("load", "ask") for one in app.workers))
            if pane == "hoard":  # the fake has changed nothing: ask again
                await pilot.press("r")
                await pilot.pause(0.1)
                await until(pilot, lambda: not any(one.group == "load" for one in app.workers))

    answers = BUSY | {
        "cache.fetch": {"objects": 1, "bytes": 18, "problems": [], "count": 0},
        "cache.flush": {"files": 1, "bytes": 18},
        "changes.send": [],
        "tokens.login": {"ends": 2e9},
        "hoard.profile": {},
        "changes.discard": {"file": "kept.tar"},
    }
    drive_fake(tmp_path, answers, script)


def test_a_walk_is_shown_though_what_is_missing_is_told_only_at_its_end(tmp_path: Path) -> None:
    """The daemon looks what is missing before a walk or after it: who asks when one has begun must wait."""

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "hoard")
        await until(pilot, lambda: "Ready to unplug" in screen_text(app))
        asked = daemon.calls.count(("hoard.verify", {}))
        daemon.answers = {**daemon.answers, "hoard.verify": SILENCE}
        await pilot.press("r")
        await until(pilot, lambda: daemon.calls.count(("hoard.verify", {})) > asked)
        daemon.answers = {**daemon.answers, "hoard.status": WALKING["hoard.status"]}
        await until(pilot, lambda: "Walking" in screen_text(app))
        daemon.answers = {**daemon.answers, "hoard.status": READY["hoard.status"]}
        daemon.answers = {**daemon.answers, "hoard.verify": READY["hoard.verify"]}
        await until(pilot, lambda: "Ready to unplug" in screen_text(app))

    drive_fake(tmp_path, READY, script)


def test_a_walk_under_way_is_stopped(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "hoard")
        await until(pilot, lambda: "Walking" in screen_text(app))
        await pilot.press("w")
        await until(pilot, lambda: ("hoard.stop", {}) in daemon.calls)
        assert ("hoard.walk", {}) not in daemon.calls

    drive_fake(tmp_path, WALKING, script)


def test_where_the_servers_differ_one_is_named(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "conflicts")
        await pilot.press("j", "s")
        await until(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press(*"coda1", "enter")
        wanted = {"id": 2, "keep": "server", "server": "coda1"}
        await until(pilot, lambda: ("conflicts.settle", wanted) in daemon.calls)

    drive_fake(tmp_path, BUSY, script)


def test_the_mouse_answers_dialogs_and_presses_keys_of_the_footer(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "conflicts")
        for button, settled in (("#no", 0), ("#yes", 1)):
            await click_key(app, pilot, "o")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.pause(0.1)
            await pilot.click(app.screen.query_one(button, Button))
            await until(pilot, lambda: not isinstance(app.screen, Confirm))
            await until(pilot, lambda: not any(one.group == "ask" for one in app.workers))
            assert sum(method == "conflicts.settle" for method, _ in daemon.calls) == settled
        app.action_show("servers")
        await pilot.pause(0.2)
        await click_key(app, pilot, "l")
        await until(pilot, lambda: isinstance(app.screen, Form))
        await pilot.pause(0.1)
        await pilot.click(app.screen.query(Button).first())
        await until(pilot, lambda: not isinstance(app.screen, Form))
        assert not any(method == "tokens.login" for method, _ in daemon.calls)

    drive_fake(tmp_path, BUSY | {"conflicts.list": CONFLICTS}, script)


async def click_key(app: RealmfsApp, pilot: Pilot[None], key: str) -> None:
    """Click a key of the footer."""

    def found() -> list[FooterKey]:
        return [each for each in app.query_one(Footer).query(FooterKey) if each.key == key]

    await until(pilot, lambda: bool(found()) and found()[0].region.width > 0)
    await pilot.click(found()[0])


def test_a_shell_is_opened_in_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / REALM / "alice"
    directory.mkdir(parents=True)
    shell = tmp_path / "shell"
    shell.write_text(f"#!/bin/sh\npwd >> {tmp_path}/been\n")
    shell.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))

    @contextmanager
    def suspended() -> Iterator[None]:
        yield

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "browse")
        await pilot.press("exclamation_mark")
        await until(pilot, lambda: "no terminal here" in screen_text(app))
        monkeypatch.setattr(app, "suspend", suspended)
        await pilot.press("exclamation_mark")
        assert await app.query_one(TreeOfRealms).reveal(f"{REALM}/alice")
        await pilot.pause()
        await pilot.press("exclamation_mark")
        assert (tmp_path / "been").read_text().split() == [str(directory.parent), str(directory)]
        os.rmdir(directory)
        await pilot.press("exclamation_mark")
        await until(pilot, lambda: "No such file" in screen_text(app))

    status = BUSY["daemon.status"] | {"mount_point": str(tmp_path)}
    drive_fake(tmp_path, BUSY | {"daemon.status": status}, script)


def test_events_are_forgotten(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "events")
        await until(pilot, lambda: "unreachable coda1" in screen_text(app))
        await pilot.press("x")
        await until(pilot, lambda: "unreachable coda1" not in screen_text(app))
        assert not app.query_one(EventsPane).kept

    drive_fake(tmp_path, BUSY, script, events=EVENTS)


def test_a_failed_question_stands_above_the_pane_until_it_is_answered(tmp_path: Path) -> None:
    answers = dict(BUSY)
    answers["servers.list"] = ControlError(-1, "the database is damaged")

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await ready(app, pilot, "servers")
        await until(pilot, lambda: "! the database is damaged" in screen_text(app))
        daemon.answers = {**daemon.answers, "servers.list": BUSY["servers.list"]}
        await pilot.press("r")
        await until(pilot, lambda: "damaged" not in screen_text(app) and "coda1" in screen_text(app))

    drive_fake(tmp_path, answers, script)


@pytest.mark.parametrize(
    "hello",
    [
        {"protocol": VERSION + 1, "version": "9.9"},
        {"version": "9.9"},
        ControlError(METHOD_NOT_FOUND, "there is no method hello"),
    ],
)
def test_a_daemon_of_another_version_is_named_and_not_started_over(hello: Any, tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await until(pilot, lambda: "do not understand each other" in " ".join(screen_text(app).split()))
        assert "realmfs unmount" in " ".join(screen_text(app).split())
        assert "Start it" not in screen_text(app)
        assert not app.link.up
        await pilot.press("S")
        assert "Starting" not in screen_text(app)
        daemon.answers = {**daemon.answers, HELLO: {"protocol": VERSION, "version": "0"}}
        await until(pilot, lambda: app.link.up and not app.query_one(Banner).display)

    drive_fake(tmp_path, BUSY | {HELLO: hello}, script)


def test_what_waits_for_a_person_is_marked_everywhere(tmp_path: Path) -> None:
    status = BUSY["daemon.status"] | {"conflicts": 2}

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await until(pilot, lambda: "! 2 conflicts" in screen_text(app) and "4 Conflicts!" in screen_text(app))
        daemon.answers = {**daemon.answers, "daemon.status": BUSY["daemon.status"]}
        await until(pilot, lambda: "4 Conflicts " in screen_text(app) and "! 2" not in screen_text(app))

    drive_fake(tmp_path, BUSY | {"daemon.status": status}, script)


def test_go_to_arrives_although_the_tree_is_filled_anew_on_the_way(tmp_path: Path) -> None:
    """A listing without status takes what nobody has looked at for a file: it jumps, and comes back."""
    file, directory = {"kind": "file", "attributes": None}, {"kind": "directory"}

    def listing(params: Mapping[str, Any]) -> Any:
        more = directory if params["attributes"] else file
        names = {"": [REALM], REALM: ["a", "b", "c"], f"{REALM}/b": ["d"], f"{REALM}/b/d": ["e"]}
        found = [entry(name) | (more if name != "a" else {}) for name in names.get(params["path"], [])]
        return {"entries": found, "position": None}

    def stat(params: Mapping[str, Any]) -> Any:
        told = BUSY["path.stat"](params)
        return told | {"attributes": told["attributes"] | {"type": "directory"}}

    async def script(app: RealmfsApp, pilot: Pilot[None], daemon: FakeDaemon) -> None:
        await until(pilot, lambda: app.link.up)
        await pilot.pause(0.2)
        await pilot.press("g", *f"{REALM}/b/d/e", "enter")
        tree = app.query_one(TreeOfRealms)

        def path() -> str:
            node = tree.cursor_node
            return node.data.path if node is not None and node.data is not None else ""

        await until(pilot, lambda: path() == f"{REALM}/b/d/e")
        node = tree.node_at([REALM, "b"])
        assert node is not None
        await pilot.press("r")
        await pilot.pause(0.2)
        await until(pilot, lambda: not any(one.group == "load" for one in app.workers))
        assert tree.node_at([REALM, "b"]) is node, "nothing has changed: nothing is made anew"

    drive_fake(tmp_path, BUSY | {"path.list": listing, "path.stat": stat}, script)
