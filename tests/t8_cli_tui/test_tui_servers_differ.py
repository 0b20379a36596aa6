"""The pane of conflicts, where two servers of a realm have different files of one name."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from textual.pilot import Pilot

from realmfs.control.client import Client, NoDaemonError
from realmfs.tui.app import RealmfsApp
from realmfs.tui.dialogs import Form
from tests.t2b_server.test_processes import EVERYBODY, REALM, Processes
from tests.t8_cli_tui.conftest import Home
from tests.t8_cli_tui.pilot import drive, screen_text, until

FILE = f"{REALM}/file"
ONE, TWO = "written to server 1\n", "written to server 2\n"


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Processes]:
    directory = tmp_path / "servers"
    directory.mkdir()
    found = Processes(directory)
    try:
        for number in EVERYBODY:
            found.start(number, "--anyuser", "rlidwk")
        wait_for(found.online)
        yield found
    finally:
        found.stop()


@pytest.fixture
def other(home: Home) -> Iterator[Home]:
    """Another client."""
    found = Home(home.top / "other")
    found.top.mkdir()
    yield found
    with suppress(NoDaemonError), Client(found.socket, timeout=5) as client:
        client.call("daemon.stop", force=True)


def write(home: Home, text: str) -> None:
    source = home.top / "source"
    source.write_text(text)
    home.run("put", str(source), FILE)
    wait_for(lambda: not json.loads(home.run("changes", "--json")))


def in_conflict(home: Home) -> bool:
    with suppress(AssertionError):  # it refuses to be read
        home.run("cat", FILE)
    return [one["kind"] for one in json.loads(home.run("conflicts", "list", "--json"))] == ["server"]


def test_one_servers_version_is_chosen(home: Home, other: Home, servers: Processes) -> None:
    realms = home.top / "realms"
    realms.write_text(" ".join([REALM, *("{}:{}".format(*servers.places[n]) for n in EVERYBODY)]) + "\n")
    home.run("mount", "--no-kernel", "--realms", str(realms))
    for number in (2, 3):
        servers.kill(number)
    write(home, ONE)
    servers.kill(1)
    servers.start(2)
    other.run("mount", "--no-kernel", "--realms", str(realms))
    write(other, TWO)
    servers.start(1)
    wait_for(lambda: in_conflict(home))

    async def script(app: RealmfsApp, pilot: Pilot[None]) -> None:
        app.action_show("conflicts")
        await until(pilot, lambda: "cannot merge them" in screen_text(app))  # the root, which has the name
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press(*servers.places[2][0], "enter")
        await until(pilot, lambda: "No conflicts" in screen_text(app))

    drive(home.socket, script, size=(110, 30))
    assert home.run("cat", FILE) == other.run("cat", FILE) == TWO
    assert json.loads(home.run("conflicts", "list", "--json")) == []
