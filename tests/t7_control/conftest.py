"""A control server over a file system in memory, its events and facts made up."""

import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.control import messages
from realmfs.control.messages.pages import Paged, VolumePage
from realmfs.control.protocol import VERSION
from realmfs.control.server import ControlServer
from tests.memoryfs import MemoryFiles

STATUS = messages.Status("0", 1, 2.0, None, "/c", 100, 50, 3, 10, 1, 1, 0, 0, 0, {"lookup": 4}, [], [], [])


@dataclass
class SomeFacts:
    """Facts that are right for nobody."""

    stopped: list[bool] = field(default_factory=list)

    def status(self) -> messages.Status:
        return STATUS

    def realms(self) -> Sequence[messages.RealmInfo]:
        return [messages.RealmInfo("example.org", ["192.0.2.1:2432"], True)]

    async def servers(self, check: bool) -> Sequence[messages.ServerInfo]:
        await trio.lowlevel.checkpoint()
        return []

    async def volumes(self, params: Paged) -> VolumePage:
        raise ValueError("on purpose")

    def settings(self) -> dict[str, str]:
        return {"cache_dir": "/c"}

    def patience(self, uid: int, wanted: bool | None) -> bool:
        return bool(wanted)

    def stopping(self) -> messages.Stopping:
        return messages.Stopping(0, False)

    def end(self, force: bool) -> None:
        self.stopped.append(force)


class SomeLogins:
    """Notes who asks what; holds one token for each uid."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, object]] = []

    async def log_in(self, uid: int, params: messages.Login) -> messages.TokenInfo:
        self.asked.append((uid, params))
        return messages.TokenInfo(params.realm, uid, params.user, 501, "valid", 2e9, 0)

    async def change_password(self, uid: int, params: messages.ChangePassword) -> messages.Nothing:
        raise ValueError(f"on purpose: {params}")

    async def take(self, uid: int, params: messages.TokenFile) -> messages.TokenInfo:
        self.asked.append((uid, params))
        return messages.TokenInfo(params.realm, uid, "", 501, "valid", 2e9, 0)

    async def give(self, uid: int, params: messages.InRealm) -> messages.TokenFile:
        return messages.TokenFile(params.realm, f"of {uid}")

    async def log_out(self, uid: int, params: messages.Logout) -> Sequence[messages.TokenInfo]:
        return []

    async def list_tokens(self, uid: int, everybody: bool) -> Sequence[messages.TokenInfo]:
        return []


@dataclass
class SomeEvent:
    number: int

    def json(self) -> dict[str, object]:
        return {"number": self.number}

    def line(self) -> str:
        return f"test::{self.number}"


class SomeEvents:
    """A stream of one channel; two may watch."""

    def __init__(self) -> None:
        self.watchers: list[trio.MemorySendChannel[SomeEvent]] = []

    @contextmanager
    def watch(self, limit: int = 1000) -> Iterator["SomeWatcher"]:
        if len(self.watchers) == 2:
            raise OverflowError("two watch already")
        send, receive = trio.open_memory_channel[SomeEvent](limit)
        self.watchers.append(send)
        try:
            yield SomeWatcher(receive)
        finally:
            self.watchers.remove(send)


@dataclass
class SomeWatcher:
    channel: trio.MemoryReceiveChannel[SomeEvent]

    async def next(self) -> SomeEvent:
        return await self.channel.receive()


class Line:
    """A client that can send any bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.descriptors: list[int] = []
        self._buffer = b""
        self._serial = 0

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> Any:
        """The next message; None at the end."""
        while b"\n" not in self._buffer:
            data, ancillary, _, _ = await self.stream.socket.recvmsg(64 << 10, socket.CMSG_SPACE(4))
            for _, _, content in ancillary:
                self.descriptors += struct.unpack(f"{len(content) // 4}i", content)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    async def call(self, method: str, **params: Any) -> Any:
        self._serial += 1
        request = {"jsonrpc": "2.0", "id": self._serial, "method": method, "params": params}
        await self.send(json.dumps(request).encode() + b"\n")
        while True:
            answer = await self.receive()
            assert answer is not None
            if answer.get("id") == self._serial:
                return answer


@dataclass
class Control:
    path: Path
    files: MemoryFiles
    facts: SomeFacts
    logins: SomeLogins
    events: SomeEvents
    connect: Callable[..., Any]


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    files, facts, logins, events = MemoryFiles(), SomeFacts(), SomeLogins(), SomeEvents()
    path = tmp_path / "s"
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(path, files, facts, logins, events).run)

        lines: list[Line] = []

        async def connect(*, greet: bool = True) -> Line:
            lines.append(Line(await trio.open_unix_socket(os.fspath(path))))
            if greet:
                assert "result" in await lines[-1].call("hello", protocol=VERSION)
            return lines[-1]

        try:
            yield Control(path, files, facts, logins, events, connect)
        finally:
            for line in lines:
                line.stream.socket.close()
                for descriptor in line.descriptors:
                    os.close(descriptor)
            nursery.cancel_scope.cancel()
