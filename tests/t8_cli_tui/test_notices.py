"""Notices on the desktop: what is news, how it is shown, and that the daemon tells of a real conflict."""

import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from jeepney import HeaderFields, message_bus, new_method_return
from jeepney.io.trio import DBusConnection, open_dbus_connection

from realmfs.host.notices import (
    AGAIN,
    LONG,
    LONG_OFF_LINE,
    Backlog,
    Bulletin,
    Desktop,
    Login,
    Notice,
    Standing,
    plain,
)
from tests.logind import BUS
from tests.seeds import first_seed
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.test_login import served
from tests.t8_cli_tui.test_tui_conflicts import quarrel

__all__ = ["quarrel", "served"]

NOW = 1_800_000_000.0
SERVICE = "org.freedesktop.Notifications"


def test_a_conflict_is_told_once_and_told_again_when_another_comes() -> None:
    bulletin = Bulletin()
    (first,) = bulletin.news(NOW, Standing({1: "/r/a"}))
    assert first.urgent
    assert "/r/a" in first.body
    assert bulletin.news(NOW, Standing({1: "/r/a"})) == []
    (more,) = bulletin.news(NOW, Standing({1: "/r/a", 2: "/r/b", 3: "/r/c"}))
    assert (more.topic, more.summary) == (first.topic, "3 conflicts wait for you")
    assert "/r/b and 1 more" in more.body
    assert bulletin.news(NOW, Standing({2: "/r/b"})) == []
    assert len(bulletin.news(NOW, Standing({1: "/r/a", 2: "/r/b"}))) == 1, "settled, and come back"


def test_the_end_of_a_login_is_told_an_hour_and_ten_minutes_before_and_when_it_is_there() -> None:
    bulletin = Bulletin()
    told = [
        (minute, notice)
        for minute in range(-90, 30)
        for notice in bulletin.news(NOW + 60 * minute, Standing(logins=[Login("r.test", NOW, 3)]))
    ]
    assert [minute for minute, _ in told] == [-60, -10, 0]
    assert [notice.summary for _, notice in told] == [
        "Your login in r.test ends in 60 minutes",
        "Your login in r.test ends in 10 minutes",
        "Your login in r.test has ended",
    ]
    assert "3 changes wait for it" in told[-1][1].body
    assert bulletin.news(NOW, Standing(logins=[Login("r.test", NOW + 90000)])) == []
    assert len(bulletin.news(NOW + 90000, Standing(logins=[Login("r.test", NOW + 90000)]))) == 1


def test_a_log_that_stays_is_told_after_an_hour_and_once_a_day() -> None:
    bulletin = Bulletin()

    def told(age: float, *, off_line: bool = False) -> list[Notice]:
        one = Backlog("u@r.test", 12, NOW, "no server answers", off_line)
        return bulletin.news(NOW + age, Standing(backlogs=[one]))

    assert told(LONG - 1) == []
    assert told(LONG, off_line=True) == []
    (notice,) = told(LONG)
    assert "12 wait, the oldest for 1 h. Why: no server answers." in notice.body
    assert told(LONG + AGAIN - 1) == []
    assert len(told(LONG + AGAIN)) == 1
    assert bulletin.news(NOW, Standing()) == []
    assert told(LONG_OFF_LINE - 1, off_line=True) == []
    assert len(told(LONG_OFF_LINE, off_line=True)) == 1, "all had been sent between"


def test_nothing_is_told_twice_while_nothing_changes() -> None:
    seed = first_seed()
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(100):
        now = NOW + chance.randrange(100000)
        standing = Standing(
            {key: f"/r/{key}" for key in range(chance.randrange(4))},
            [Login(f"r{key}", NOW + chance.randrange(100000)) for key in range(3)],
            [Backlog(f"v{key}", 1, NOW - chance.randrange(100000)) for key in range(3)],
        )
        bulletin = Bulletin()
        told = bulletin.news(now, standing)
        assert len({notice.topic for notice in told}) == len(told)
        assert bulletin.news(now, standing) == []


def test_names_from_servers_do_nothing_to_the_desktop() -> None:
    assert plain("a\x1b[2J\nb" + "x" * 1000).startswith("a�[2J�b")
    assert len(plain("x" * 1000)) == 300


# the bus


@contextmanager
def session_bus(tmp_path: Path) -> Iterator[str]:
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon")
    (tmp_path / "session.conf").write_text(BUS.format(path=tmp_path / "session"))
    command = ["dbus-daemon", f"--config-file={tmp_path / 'session.conf'}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the bus listens"
        try:
            yield f"unix:path={tmp_path / 'session'}"
        finally:
            process.terminate()


@asynccontextmanager
async def pretended_desktop(address: str) -> AsyncIterator[trio.MemoryReceiveChannel[tuple[Any, ...]]]:
    """A notification service that numbers what it is asked to show, and hands it on."""
    send, receive = trio.open_memory_channel[tuple[Any, ...]](10)
    connection = await open_dbus_connection(address)
    async with connection.router() as router:
        await router.send_and_get_reply(message_bus.RequestName(SERVICE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer, connection, send)
        yield receive
        nursery.cancel_scope.cancel()
    connection.socket.close()


async def _answer(connection: DBusConnection, send: trio.MemorySendChannel[tuple[Any, ...]]) -> None:
    number = 0
    while True:
        message = await connection.receive()
        if message.header.fields.get(HeaderFields.member) == "Notify":
            number += 1
            await send.send(message.body)
            await connection.send(new_method_return(message, "u", (number,)))


async def test_a_notice_replaces_the_one_before_on_its_topic(tmp_path: Path) -> None:
    with session_bus(tmp_path) as address:
        async with pretended_desktop(address) as shown:
            desktop = Desktop(address)
            assert await desktop.show(Notice("one", "First", "<b>&", urgent=True))
            assert await desktop.show(Notice("two", "Other", ""))
            assert await desktop.show(Notice("one", "Second", ""))
            bodies = [await shown.receive() for _ in range(3)]
    assert [(body[0], body[1], body[3]) for body in bodies] == [
        ("realmfs", 0, "First"),
        ("realmfs", 0, "Other"),
        ("realmfs", 1, "Second"),
    ]
    assert bodies[0][4] == "&lt;b&gt;&amp;"
    assert bodies[0][6]["urgency"] == ("y", 2)


async def test_without_a_desktop_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    assert not await Desktop().show(Notice("one", "First", ""))
    assert not await Desktop(f"unix:path={tmp_path / 'none'}").show(Notice("one", "First", ""))
    with session_bus(tmp_path) as address:
        assert not await Desktop(address).show(Notice("one", "First", "")), "a bus, but no service on it"


async def test_the_daemon_tells_of_conflicts(quarrel: Home) -> None:
    """Three real conflicts, in a daemon that is started on a desktop."""
    realms = str(quarrel.top / "realms")
    await trio.to_thread.run_sync(quarrel.run, "unmount")
    with session_bus(quarrel.top) as address:
        async with pretended_desktop(address) as shown:
            os.environ["DBUS_SESSION_BUS_ADDRESS"] = address
            try:
                await trio.to_thread.run_sync(quarrel.run, "mount", "--no-kernel", "--realms", realms)
            finally:
                del os.environ["DBUS_SESSION_BUS_ADDRESS"]
            with trio.fail_after(15):
                body = await shown.receive()
    assert body[3] == "3 conflicts wait for you"
    assert "home.test/" in body[4]
