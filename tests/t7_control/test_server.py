"""The socket: who may speak, how much, and what becomes of those who misbehave."""

import errno
import json
import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from realmfs import __version__
from realmfs.control import server
from realmfs.control.client import Client, NoDaemonError
from realmfs.control.listening import SocketError
from realmfs.control.protocol import LINE_LIMIT, VERSION, ControlError, Kind, Request, other_version
from realmfs.control.server import ControlServer
from realmfs.control.service import Session
from realmfs.venus.events import CallMade, EventStream
from realmfs.venus.face import Caller
from tests.memoryfs import MemoryFiles
from tests.t7_control.conftest import Control, Line, SomeEvent, SomeEvents, SomeFacts, SomeLogins


async def test_the_socket_is_the_owners(control: Control) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600


async def test_a_method_answers(control: Control) -> None:
    line = await control.connect()
    answer = await line.call("daemon.status")
    assert answer["result"]["requests"] == {"lookup": 4}
    answer = await line.call("realms.list")
    assert answer["result"]["entries"][0]["name"] == "example.org"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"no json\n", -32700),
        (b"[]\n", -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"daemon.status"}\n', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"no.such"}\n', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"daemon.status","params":[1]}\n', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"daemon.status","params":{"x":1}}\n', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"path.list","params":{"path":1}}\n', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"path.list"}\n', -32602),
    ],
)
async def test_a_bad_line_is_answered_and_the_next_is_served(
    control: Control, data: bytes, code: int
) -> None:
    line = await control.connect()
    await line.send(data)
    answer = await line.receive()
    assert answer["error"]["code"] == code
    assert (await line.call("daemon.status"))["result"]["pid"] == 1


@pytest.mark.logs("the request volumes.list failed")
async def test_a_defect_is_an_answer(control: Control) -> None:
    line = await control.connect()
    answer = await line.call("volumes.list")
    assert answer["error"]["code"] == -32603
    assert "on purpose" not in answer["error"]["message"]
    assert (await line.call("daemon.status"))["result"]["pid"] == 1


async def test_an_endless_line_ends_the_connection(control: Control) -> None:
    line = await control.connect()
    with trio.fail_after(10):
        await line.send(b"x" * (LINE_LIMIT + (64 << 10)))
        answer = await line.receive()
    assert answer["error"]["code"] == -32600
    other = await control.connect()
    assert "result" in await other.call("daemon.status")


async def _send_until_closed(line: Line, data: bytes) -> None:
    while True:
        await line.send(data)


async def test_a_notification_has_no_answer(control: Control) -> None:
    line = await control.connect()
    await line.send(b'{"jsonrpc":"2.0","method":"daemon.stop"}\n{"jsonrpc":"2.0","method":"no.such"}\n')
    assert (await line.call("daemon.status"))["id"] == 2, "the greeting was the first"
    assert control.facts.stopped == [False]


async def test_a_client_that_takes_no_answers_is_held_up_then_cut_off(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_TAKE_WITHIN", 0.2)
    line = await control.connect()
    for number in range(200):
        await line.call("path.mkdir", path=f"{number:0200}")
    request = b'{"jsonrpc": "2.0", "id": 9, "method": "path.list", "params": {"path": ""}}\n'
    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
        await _send_until_closed(line, request * 50)
    before = control.files.calls["readdir"]
    assert before < 100, "reading stopped long before all requests were served"
    other = await control.connect()
    assert "result" in await other.call("daemon.status")


async def test_events_reach_those_who_watch(control: Control) -> None:
    first, second, third = [await control.connect() for _ in range(3)]
    assert "result" in await first.call("events.watch")
    assert "result" in await first.call("events.watch"), "asking twice changes nothing"
    assert "result" in await second.call("events.watch")
    assert (await third.call("events.watch"))["error"]["data"]["errno"] == "EUSERS"
    for watcher in control.events.watchers:
        watcher.send_nowait(SomeEvent(7))
    for line in (first, second):
        event = await line.receive()
        assert (event["method"], event["params"]) == ("event", {"number": 7, "line": "test::7"})
    await first.stream.aclose()
    await third.call("daemon.status")
    with trio.fail_after(5):
        while len(control.events.watchers) == 2:
            await third.call("daemon.status")


async def test_one_server_per_socket_and_dead_ones_are_replaced(control: Control, tmp_path: Path) -> None:
    second = ControlServer(control.path, MemoryFiles(), SomeFacts(), SomeLogins(), SomeEvents())
    with pytest.raises(SocketError, match="already listens"):
        await second.run()
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(dead, MemoryFiles(), SomeFacts(), SomeLogins(), SomeEvents()).run)
        nursery.cancel_scope.cancel()
    assert not dead.exists()
    with pytest.raises(SocketError, match="too long"):
        await ControlServer(
            tmp_path / ("x" * 200), MemoryFiles(), SomeFacts(), SomeLogins(), SomeEvents()
        ).run()


async def test_before_hello_there_is_only_an_end(control: Control) -> None:
    """An old client says no hello: it must hear why, not get answers in a form it does not know."""
    line = await control.connect(greet=False)
    refused = (await line.call("daemon.status"))["error"]
    assert refused["data"]["kind"] == "version"
    assert "realmfs unmount" in refused["message"]
    assert "result" in await line.call("daemon.stop")
    wrong = (await line.call("hello", protocol=VERSION + 1, version="9.1", more={"from": "later"}))["error"]
    assert "realmfs 9.1 (control protocol" in wrong["message"]
    assert "error" in await line.call("daemon.status")
    welcome = (await line.call("hello", protocol=VERSION, version="0"))["result"]
    assert welcome == {"protocol": VERSION, "version": __version__, "pid": os.getpid()}
    assert "result" in await line.call("daemon.status")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"error": {"code": -32601, "message": "there is no method 'hello'"}}, "the daemon is older"),
        ({"error": other_version("realmfs 9", "realmfs 7").to_json()}, "realmfs 9"),
        ({"result": {"protocol": VERSION + 1, "version": "9.1"}}, "realmfs 9.1"),
        ({"result": None}, "protocol None"),
        ({}, "protocol None"),
    ],
)
async def test_the_client_says_which_versions_do_not_fit(
    tmp_path: Path, answer: dict[str, object], said: str
) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as lines:
            request = json.loads(lines.readline())
            connection.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            with pytest.raises(ControlError, match=said) as caught:
                await trio.to_thread.run_sync(Client, tmp_path / "s")
    assert caught.value.kind is Kind.VERSION


async def test_the_blocking_client(control: Control) -> None:
    def use() -> None:
        with Client(control.path, timeout=5) as client:
            assert client.call("daemon.status")["pid"] == 1
            with pytest.raises(ControlError) as caught:
                client.call("path.stat", path="absent")
            assert caught.value.number == 2
            assert "/absent" in caught.value.text
            client.call("path.mkdir", path="new")
            assert client.call("path.stat", path="new")["attributes"]["type"] == "directory"

    await trio.to_thread.run_sync(use)


def test_no_daemon_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NoDaemonError, match="realmfs mount"):
        Client(tmp_path / "absent")


async def test_steering_the_daemon_is_for_its_owner() -> None:
    """Where every local user may connect, another's files are a matter of rights, the daemon is not."""
    facts = SomeFacts()
    stranger = Session(MemoryFiles(), facts, SomeLogins(), Caller(os.geteuid() + 4711, 4711, 1, kernel=False))
    for method in ("daemon.stop",):
        with pytest.raises(ControlError) as caught:
            await stranger.call(Request(1, method, {}))
        assert caught.value.number == errno.EPERM
    result, then = await stranger.call(Request(2, "daemon.status", {}))
    assert result.pid == 1
    assert then is None
    assert facts.stopped == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.logs("came into other hands")
async def test_a_connection_in_other_hands_is_closed(control: Control) -> None:
    """Half a request by its owner, the rest by somebody who has inherited the descriptor: no answer."""
    line = await control.connect()
    assert "result" in await line.call("tokens.list")
    await line.send(b'{"jsonrpc": "2.0", "id": 7, "method": ')
    child = os.fork()
    if child == 0:
        os.setresuid(51001, 51001, 51001)
        os.write(line.stream.socket.fileno(), b'"tokens.list", "params": {}}\n')
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222  # it has one line to write
    assert await line.receive() is None
    again = await control.connect()
    assert "result" in await again.call("tokens.list")


async def test_who_reads_events_slowly_is_told_how_many_he_lost(tmp_path: Path) -> None:
    events = EventStream()
    async with trio.open_nursery() as nursery:
        files = MemoryFiles()
        await nursery.start(ControlServer(tmp_path / "s", files, SomeFacts(), SomeLogins(), events).run)
        slow, other = [Line(await trio.open_unix_socket(os.fspath(tmp_path / "s"))) for _ in range(2)]
        for line in (slow, other):
            await line.call("hello", protocol=VERSION)
        assert "result" in await slow.call("events.watch")
        sent = 20_000
        for number in range(sent):
            events.publish(CallMade("Fetch", f"{number} {'x' * 100}"))
            if number % 1000 == 0:
                assert "result" in await other.call("daemon.status"), "nobody else waits for him"
        got: list[str] = []
        lost = 0
        while len(got) + lost < sent:
            event = (await slow.receive())["params"]
            if event["event"] == "Dropped":
                lost += event["count"]
            else:
                got.append(event["object"])
            events.publish(CallMade("Fetch", "brings the word about what was lost"))
        assert lost > sent // 2
        numbers = [int(text.split()[0]) for text in got if text[0].isdigit()]
        assert numbers == sorted(numbers)
        for line in (slow, other):
            line.stream.socket.close()
        nursery.cancel_scope.cancel()
