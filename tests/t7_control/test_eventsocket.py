"""The reference's event socket: what its codacon says and hears."""

import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from realmfs.control.eventsocket import EventSocket
from realmfs.control.listening import SocketError
from realmfs.control.loopback import HOST, user_in
from realmfs.venus.events import CallMade, EventStream, VolumeChanged

STATES = [VolumeChanged("/", "r.test", "reachable", 3, ("tokens",))]


class Stream(EventStream):
    """Tells when somebody watches; knows the clients."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[trio.SocketStream] = []
        self.states = [*STATES]

    async def until(self, watchers: int) -> None:
        while len(self._watchers) != watchers:  # noqa: ASYNC110
            await trio.sleep(0.001)


@pytest.fixture
async def stream(tmp_path: Path) -> AsyncIterator[Stream]:
    events = Stream()
    async with trio.open_nursery() as nursery:
        await nursery.start(EventSocket(tmp_path / "e", events, lambda: events.states).run)
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
    stream.states.append(VolumeChanged("v", "r.test", "unreachable", 0))
    stream.publish(stream.states[-1])
    assert await one.line() == "volstate::v@r.test unreachable 0"
    await one.stream.send_all(b"quit\n")
    assert await one.stream.receive_some() == b""
    await stream.until(0)


async def test_states_of_volumes_are_told_when_they_change(stream: Stream, tmp_path: Path) -> None:
    """gcodacon shows how many changes wait: no event tells of each, but what it heard last must be true."""
    one = await connect(stream, tmp_path / "e")
    await one.stream.send_all(b"set:volstate\n")
    assert await one.line() == "volstate::/@r.test reachable 3 unauth"
    stream.publish(stream.states[0])
    stream.states = [
        VolumeChanged("/", "r.test", "reachable", 0),
        VolumeChanged("v", "r.test", "reachable", 1),
    ]
    assert await one.line() == "volstate::/@r.test reachable 0", "found out without an event"
    assert await one.line() == "volstate::v@r.test reachable 1"
    stream.states = stream.states[:1]
    assert await one.line() == "volstate::v@r.test deleted 0"
    await one.stream.send_all(b"set:volstate\n")
    assert await one.line() == "volstate::/@r.test reachable 0", "asked for anew"


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


# `codacon -tcp`


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A port of the loopback where events are told."""
    events = Stream()
    listening = EventSocket(tmp_path / "e", events, lambda: events.states, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening.run)
        assert listening.port
        yield listening.port
        nursery.cancel_scope.cancel()


async def test_the_owner_is_served_at_the_port(port: int) -> None:
    async with await trio.open_tcp_stream(HOST, port) as stream:
        one = Reader(stream)
        await stream.send_all(b"set:volstate\n")
        assert await one.line() == "volstate::/@r.test reachable 3 unauth"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.logs("refused a connection of uid 51001")
async def test_another_user_of_the_machine_is_not(port: int) -> None:
    child = os.fork()
    if child == 0:
        os.setresuid(51001, 51001, 51001)
        with socket.create_connection((HOST, port), timeout=30) as line:
            os._exit(len(line.recv(1)))
    assert (await trio.to_thread.run_sync(os.waitpid, child, 0))[1] == 0


async def test_a_port_in_use_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(SocketError, match=rf"port {number} .*in use.* --event-port"):
            await EventSocket(tmp_path / "e", Stream(), list, number).run()
    assert not (tmp_path / "e").exists()


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {0} {1} {2} 00000000:00000000 00:00000000 00000000  1000        0 12345 1 ffff 20 4 30 10 -1
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is as the memory of other machines")
@pytest.mark.parametrize(
    ("line", "uid"),
    [
        (("0100007F:C001", "0100007F:097E", "01"), 1000),
        (("0100007F:097E", "0100007F:C001", "01"), None),  # our own end
        (("0100007F:C001", "0100007F:097E", "04"), None),  # he has closed it: root's, it would say
        (("0200007F:C001", "0100007F:097E", "01"), None),
    ],
)
def test_who_is_at_the_other_end_of_a_connection(line: tuple[str, ...], uid: int | None) -> None:
    assert user_in(TABLE.format(*line), ("127.0.0.1", 0xC001), ("127.0.0.1", 2430)) == uid
