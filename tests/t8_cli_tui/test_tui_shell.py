"""The interface around its panes: the line to the daemon, the banner, the events."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import RichLog, Static

from realmfs.control.client import NoDaemonError
from realmfs.control.protocol import VERSION, ControlError
from realmfs.tui.app import RealmfsApp
from realmfs.tui.link import BATCH_LIMIT, Link
from realmfs.tui.pane import Pane
from realmfs.tui.panes.events import KEPT, REWRITTEN, EventsPane
from realmfs.tui.starting import Banner
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until

NOWHERE = ("--dns", "127.0.0.1:9")


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.events: list[str] = []
        self.lost = 0
        self.news = asyncio.Event()

    def link_up(self) -> None:
        self.heard.append("up")
        self.news.set()

    def link_down(self, reason: str) -> None:
        self.heard.append(reason)
        self.news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what is told until the condition holds; at most ten seconds."""
        async with asyncio.timeout(10):
            while not condition():
                await self.news.wait()
                self.news.clear()

    def link_events(self, events: object, lost: int) -> None:
        assert isinstance(events, list)
        self.events += [event["line"] for event in events]
        self.lost += lost
        self.news.set()


def test_without_a_daemon_it_says_so_and_starts_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    config = home.top / "config.toml"
    config.write_text('dns = "127.0.0.1:9"\nmount_point = "/proc/nowhere"\n')

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Banner).display)
        assert "no daemon" in screen_text(app)
        await until(pilot, lambda: "S starts it and mounts on /proc/nowhere" in screen_text(app))
        config.write_text(f'dns = "127.0.0.1:9"\nmount_point = "{home.top / "mnt"}"\n')
        (home.top / "mnt").mkdir()
        await pilot.press("S")
        await until(pilot, lambda: app.link.up)
        await until(pilot, lambda: "no server yet" in screen_text(app))
        assert not app.query_one(Banner).display

    drive(home.socket, script, config=config)
    assert home.daemon_pid()


def test_a_start_that_fails_says_why(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    config = home.top / "config.toml"
    config.write_text('no_such_key = "x"\n')

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Banner).display)
        await pilot.press("S")
        await until(pilot, lambda: "no_such_key" in screen_text(app))

    drive(home.socket, script, config=config, size=(120, 40))


def test_the_daemon_killed_and_started_again(home: Home) -> None:
    home.run("mount", "--no-kernel", *NOWHERE)

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.link.up)
        os.kill(home.daemon_pid(), signal.SIGKILL)
        await until(pilot, lambda: app.query_one(Banner).display)
        assert not app.link.up
        await asyncio.to_thread(home.run, "mount", "--no-kernel", *NOWHERE)
        await until(pilot, lambda: app.link.up and not app.query_one(Banner).display)

    drive(home.socket, script)


def test_events_are_filtered_paused_and_exported(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home.top))

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        await pilot.press(*str(1 + [pane.key for pane in app.query(EventsPane)].index("events")))
        app.action_show("events")
        await pilot.pause()
        app.link_events([{"line": f"kind::event {n}", "kind": "kind", "time": 0} for n in range(12)], 0)
        await until(pilot, lambda: "event 11" in screen_text(app))
        await pilot.press("slash", *"event !1", "enter")
        await until(pilot, lambda: "event 11" not in screen_text(app) and "event 2" in screen_text(app))
        await pilot.press("space")
        app.link_events([{"line": "kind::event 22", "kind": "kind", "time": 0}], 0)
        await until(pilot, lambda: "paused" in screen_text(app))
        assert "event 22" not in screen_text(app)
        await pilot.press("e")
        await until(pilot, lambda: bool(list(home.top.glob("realmfs-events-*.jsonl"))))
        await pilot.press("space")
        await until(pilot, lambda: "event 22" in screen_text(app))
        assert "event !1" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "event 11" in screen_text(app) and "event !1" not in screen_text(app))
        await pilot.press("slash", *"event !1", "enter")
        await until(pilot, lambda: "event 11" not in screen_text(app))

    drive(home.socket, script)
    (exported,) = home.top.glob("realmfs-events-*.jsonl")
    lines = [json.loads(line)["line"] for line in exported.read_text().splitlines()]
    assert lines == [f"kind::event {n}" for n in (0, 2, 3, 4, 5, 6, 7, 8, 9, 22)]


def test_thousands_of_events_are_not_written_again_at_each_key(tmp_path: Path) -> None:
    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        app.action_show("events")
        pane = app.query_one(EventsPane)
        app.link_events([{"line": f"kind::event {n}", "kind": "kind", "time": 0} for n in range(KEPT)], 0)
        await until(pilot, lambda: f"event {KEPT - 1}" in screen_text(app))
        log = app.query_one("#events-log", RichLog)
        assert len(log.lines) == KEPT
        pane.action_filter()
        await pilot.press("e")
        await until(pilot, lambda: len(log.lines) == REWRITTEN)
        assert f"event {KEPT - 1}" in screen_text(app)
        assert "5 000 events kept" in screen_text(app)

    drive(tmp_path / "none", script)


WELCOME = b'{"id": SERIAL, "result": {"protocol": %d, "version": "0"}}\n' % VERSION


async def _serve(path: Path, answers: list[list[bytes]]) -> asyncio.Server:
    """A daemon that answers each connection's lines with the next of `answers`, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers.pop(0) if answers else [b""]:
            request = json.loads(await reader.readline())
            writer.write(answer.replace(b"SERIAL", str(request["id"]).encode()))
            await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(serve, str(path))


@pytest.mark.parametrize(
    "nonsense", [b"", b"nonsense\n", b"[1]\n", b'{"id": SERIAL, "error": 5}\n', b"\xff\n", b"{" * 3000000]
)
def test_a_line_that_breaks_is_made_again(
    tmp_path: Path, nonsense: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realmfs.tui.link.RETRY", 0.01)

    async def run() -> None:
        ear = Ear()
        link = Link(tmp_path / "socket", ear)
        server = await _serve(tmp_path / "socket", [[nonsense], [WELCOME, b'{"id": SERIAL, "result": {}}\n']])
        task = asyncio.create_task(link.run())
        async with server:
            await ear.until(lambda: "up" in ear.heard)
        task.cancel()
        assert len(ear.heard) >= 2
        assert ear.heard[0] != "up"

    asyncio.run(run())


def test_a_daemon_of_another_version_is_one_until_it_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the interface would offer to start one, whenever it tries again."""
    monkeypatch.setattr("realmfs.tui.link.RETRY", 0.01)

    async def run() -> None:
        asked, ended, greetings = asyncio.Event(), asyncio.Event(), 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal greetings
            greetings += 1
            request = json.loads(await reader.readline())
            if greetings == 1:
                writer.write(b'{"id": %d, "result": {"version": "9.9"}}\n' % request["id"])
            else:
                asked.set()
                await reader.read()
                ended.set()
            writer.close()

        link = Link(tmp_path / "socket", Ear())
        async with await asyncio.start_unix_server(serve, str(tmp_path / "socket")):
            task = asyncio.create_task(link.run())
            await asked.wait()
            assert link.foreign
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ended.wait()

    asyncio.run(run())


def test_calls_under_way_fail_when_the_daemon_goes(tmp_path: Path) -> None:
    async def run() -> None:
        ear = Ear()
        link = Link(tmp_path / "socket", ear)
        with pytest.raises(NoDaemonError):
            await link.call("daemon.status")
        server = await _serve(tmp_path / "socket", [[WELCOME, b'{"id": SERIAL, "result": {}}\n']])
        task = asyncio.create_task(link.run())
        async with server:
            await ear.until(lambda: link.up or "up" in ear.heard)
            with pytest.raises((NoDaemonError, ControlError)):
                await link.call("daemon.status")
        task.cancel()

    asyncio.run(run())


def test_a_flood_of_events_is_cut_and_counted(tmp_path: Path) -> None:
    flood = b'{"id": SERIAL, "result": {}}\n' + b"".join(
        b'{"method": "event", "params": {"line": "%d"}}\n' % n for n in range(BATCH_LIMIT + 100)
    )

    async def run() -> None:
        ear = Ear()
        link = Link(tmp_path / "socket", ear)
        server = await _serve(tmp_path / "socket", [[WELCOME, flood]])
        task = asyncio.create_task(link.run())
        async with server:
            await ear.until(lambda: len(ear.events) + ear.lost == BATCH_LIMIT + 100)
        task.cancel()
        assert ear.events[:3] == ["0", "1", "2"]

    asyncio.run(run())


class Slow(Pane):
    """A pane whose answer comes after it has been cleared away."""

    key = "slow"

    def compose(self) -> ComposeResult:
        yield Static(id="shown")

    async def late(self, gone: asyncio.Event) -> None:
        await gone.wait()
        self.query_one("#shown", Static).update("too late")


def test_an_answer_that_comes_when_the_interface_closes_is_no_failure(tmp_path: Path) -> None:
    class Host(App[None]):
        def compose(self) -> ComposeResult:
            yield Slow(Link(tmp_path / "none", Ear()))

    async def run() -> None:
        app, gone = Host(), asyncio.Event()
        async with app.run_test() as pilot:
            pane = app.query_one(Slow)
            pane.ask(pane.late, gone)
            await pilot.pause()
            await pane.query_one("#shown").remove()
            gone.set()
            await app.workers.wait_for_complete()

    asyncio.run(run())
