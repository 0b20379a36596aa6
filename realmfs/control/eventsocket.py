"""The reference's event socket, so that its own `codacon` and `gcodacon` show what we do (client.md §13).

Lines of text both ways. Who connects says what he wants to see, and from then on gets a line an event,
`kind::text`:

    set:fetch, clear:fetch         everything but the states of volumes
    set:volstate, clear:volstate   the states of volumes, first of all that are known, then what changes
    quit                           the end

What he may say besides belongs to the reference's insides, and is answered with a line that says so. Who
reads slowly loses lines and is told how many; nobody waits for him. Events name the files of all users: only
the owner of the daemon and root are served, also at the port of `codacon -tcp`, where there is one.
"""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from realmfs.control.listening import listen, peer_of
from realmfs.control.loopback import listen_on, user_of
from realmfs.venus.events import EventStream, VolumeChanged

log = logging.getLogger(__name__)

_MOST_CLIENTS = 25
_MOST_COMMAND = 1000
_QUEUE = 1000

_LOOK = 1.0  # seconds between looks how many changes wait: no event tells of each

States = Callable[[], Iterable[VolumeChanged]]
"""Gives the states of all volumes."""


class EventSocket:
    """Listens at a path, and at a port of the loopback if one is given; tells events."""

    def __init__(self, path: Path, events: EventStream, states: States, port: int | None = None) -> None:
        self._path = path
        self.port = port
        """0: one that is free, which stands here once `run` has started."""
        self._events = events
        self._states = states
        self._count = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; removes the socket in the end. Raises SocketError."""
        listeners = [listen(self._path, "the event socket", "--event-socket", mode=0o600)]
        try:
            if self.port is not None:
                listeners.append(listen_on(self.port, "the TCP port", "--event-port"))
                self.port = listeners[-1].socket.getsockname()[1]
            async with trio.open_nursery() as nursery:
                task_status.started()
                await trio.serve_listeners(self._welcome, listeners, handler_nursery=nursery)
        finally:
            for listener in listeners:
                listener.socket.close()
            self._path.unlink(missing_ok=True)

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """Serve one connection; no fault of it reaches the others."""
        self._count += 1
        try:
            uid = user_of(stream) if stream.socket.family == trio.socket.AF_INET else peer_of(stream)[1]
            if self._count > _MOST_CLIENTS or uid not in (0, os.geteuid()):
                who = "somebody unknown" if uid is None else f"uid {uid}"
                log.warning("refused a connection of %s to the event socket", who)
                return
            await _Reader(stream, self._events, self._states).run()
        except OverflowError as error:
            log.warning("refused a connection to the event socket: %s", error)
        finally:
            self._count -= 1
            await trio.aclose_forcefully(stream)


class _Reader:
    """One who reads events."""

    def __init__(self, stream: trio.SocketStream, events: EventStream, states: States) -> None:
        self._stream = stream
        self._events = events
        self._states = states
        self._wanted: set[str] = set()
        self._told: dict[str, str] = {}  # the last line of each volume
        self._sending = trio.Lock()

    async def run(self) -> None:
        """Serve until he hangs up. Raises OverflowError if too many watch already."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._tell)
                nursery.start_soon(self._look)
                await self._listen()
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the event socket went away")

    async def _tell(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._events.watch(_QUEUE) as watcher:
            task_status.started()
            while True:
                event = await watcher.next()
                if isinstance(event, VolumeChanged):
                    await self._say_states()
                elif "fetch" in self._wanted:
                    await self._say(event.line())

    async def _look(self) -> None:
        while True:
            await trio.sleep(_LOOK)
            await self._say_states()

    async def _say_states(self) -> None:
        """Say of each volume what has changed since it was last said, or that there is no such volume now."""
        if "volstate" not in self._wanted:
            return
        now = {f"{state.volume}@{state.realm}": state.line() for state in self._states()}
        lines = [line for volume, line in now.items() if self._told.get(volume) != line]
        lines += [f"volstate::{volume} deleted 0" for volume in self._told.keys() - now.keys()]
        self._told = now
        if lines:
            await self._say(*lines)

    async def _listen(self) -> None:
        buffer = bytearray()
        while len(buffer) <= _MOST_COMMAND:
            end = buffer.find(b"\n")
            if end >= 0:
                command = bytes(buffer[:end]).decode("ascii", "replace").strip()
                del buffer[: end + 1]
                if command == "quit":
                    return
                await self._obey(command)
                continue
            data = await self._stream.receive_some(_MOST_COMMAND)
            if not data:
                return
            buffer += data

    async def _obey(self, command: str) -> None:
        verb, _, what = command.partition(":")
        if verb not in ("set", "clear") or what not in ("fetch", "volstate"):
            if command:
                await self._say(f"not known here: {command[:40]}. Try set:fetch, set:volstate or quit")
            return
        if verb == "clear":
            self._wanted.discard(what)
            return
        self._wanted.add(what)
        if what == "volstate":
            self._told = {}
            await self._say_states()

    async def _say(self, *lines: str) -> None:
        text = "".join("".join(char if char.isprintable() else "?" for char in line) + "\n" for line in lines)
        async with self._sending:
            await self._stream.send_all(text.encode("utf-8", "replace"))
