"""The reference's event socket: what its codacon says and hears."""

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from realmfs.control.eventsocket import EventSocket
from realmfs.control.listening import SocketError
from realmfs.venus.events import CallMade, EventStream, VolumeChanged

STATES = [VolumeChanged("/", "r.test", "reachable", 3, ("tokens",))]


class Stream(EventStream):
    """Tells when somebody watches; knows the clients."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[trio.SocketStream] = []

    async def until(self, watchers: int) -> None:
        while len(self._watchers) != watchers:  # noqa: ASYNC110
            await trio.sleep(0.001)


@pytest.fixture
async def stream(tmp_path: Path) -> AsyncIterator[Stream]:
    events = Stream()
    async with trio.open_nursery() as nursery:
        await nursery.start(EventSocket(tmp_path / "e", events, lambda: STATES).run)
        yield events
        for client in events.clients:
            client.socket.close()
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "e").exists()


class Reader:
    """A client: sends commands, takes lines."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def line(self) -> str:
        while b"\n" not in self._buffer:
            data = await self.stream.receive_some()
            assert data
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


async def connect(events: Stream, path: Path) -> Reader:
    watched = len(events._watchers)
    reader = Reader(await trio.open_unix_socket(os.fspath(path)))
    events.clients.append(reader.stream)
    await events.until(watched + 1)
    return reader


async def test_codacon_gets_what_it_asks_for(stream: Stream, tmp_path: Path) -> None:
    one = await connect(stream, tmp_path / "e")
    stream.publish(CallMade("Fetch", "before"))
    await one.stream.send_all(b"set:volstate\n")
    assert await one.line() == "volstate::/@r.test reachable 3 unauth"
    await one.stream.send_all(b"set:fe")
    await one.stream.send_all(b"tch\nfrobnicate\n")
    assert "not known" in await one.line()
    stream.publish(CallMade("Fetch", "a\nname"))
    assert await one.line() == "fetch::Fetch a?name", "a name cannot make a line of its own"
    await one.stream.send_all(b"clear:fetch\nfrobnicate\n")
    assert "not known" in await one.line()
    stream.publish(CallMade("Fetch", "unwanted"))
    stream.publish(VolumeChanged("v", "r.test", "unreachable", 0))
    assert await one.line() == "volstate::v@r.test unreachable 0"
    await one.stream.send_all(b"quit\n")
    assert await one.stream.receive_some() == b""
    await stream.until(0)


async def test_a_slow_reader_loses_lines_and_is_told(stream: Stream, tmp_path: Path) -> None:
    one = await connect(stream, tmp_path / "e")
    one.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await one.stream.send_all(b"set:fetch\nx\n")
    assert "not known" in await one.line()
    for number in range(20_000):
        stream.publish(CallMade("Fetch", f"{number} {'x' * 200}"))
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
    got = lost = 0
    while got + lost < 20_000:
        line = await one.line()
        if line.startswith("dropped "):
            lost += int(line.split()[1])
        else:
            got += 1
        stream.publish(CallMade("Fetch", "brings the word about what was lost"))
    assert lost > 10_000


async def test_long_commands_and_a_crowd_are_refused(stream: Stream, tmp_path: Path) -> None:
    one = await connect(stream, tmp_path / "e")
    await one.stream.send_all(b"x" * 5000)
    with pytest.raises((AssertionError, trio.BrokenResourceError)):
        await one.line()
    await stream.until(0)
    with pytest.raises(SocketError, match="already listens"):
        await EventSocket(tmp_path / "e", stream, lambda: STATES).run()


@pytest.mark.logs("refused a connection")
async def test_no_more_than_can_be_served(stream: Stream, tmp_path: Path) -> None:
    readers = [await connect(stream, tmp_path / "e") for _ in range(25)]
    late = await trio.open_unix_socket(os.fspath(tmp_path / "e"))
    stream.clients.append(late)
    assert await late.receive_some() == b""
    for reader in readers:
        await reader.stream.aclose()
    await stream.until(0)
