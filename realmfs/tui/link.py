"""The line to the daemon: one connection for calls and events, made again whenever it is lost.

            connected, events asked for
    DOWN ────────────────────────────────► UP
      ▲                                     │  end of file, broken pipe, nonsense
      └─────────────────────────────────────┘  every call under way fails with NoDaemonError
        tried again every RETRY seconds

The rule: whoever calls gets an answer or an error within CALL_WITHIN seconds, and nobody is told "up" before
calls work. Events are gathered and handed over at most ten times a second, however many come: a screen cannot
show more, and two thousand changes being sent must not slow down typing. What exceeds BATCH_LIMIT between two
hand-overs is dropped and counted.
"""

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from realmfs import __version__
from realmfs.control.client import NoDaemonError, check_version
from realmfs.control.protocol import HELLO, INTERNAL_ERROR, LINE_LIMIT, VERSION, ControlError, Kind, line_of

RETRY = 1.0
CALL_WITHIN = 60.0
GATHER = 0.1
BATCH_LIMIT = 500

Event = Mapping[str, Any]


class Listener(Protocol):
    """Whoever wants to know what becomes of the line. Called on the event loop; must not wait."""

    def link_up(self) -> None: ...
    def link_down(self, reason: str) -> None: ...
    def link_events(self, events: Sequence[Event], lost: int) -> None: ...


class Link:
    """The connection. `run` keeps it; `call` uses it."""

    def __init__(self, path: Path, listener: Listener) -> None:
        """Talk to the daemon that listens at `path`."""
        self.path = path
        self.up = False
        self.foreign = False
        """Whether a daemon of another version listens, with whom there is no talking."""
        self._listener = listener
        self._writer: asyncio.StreamWriter | None = None
        self._serials = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._batch: list[Event] = []
        self._lost = 0
        self._told: str | None = None

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            reason = await self._serve()
            self.up = False
            self._fail(reason)
            if reason != self._told:
                self._told = reason
                self._listener.link_down(reason)
            await asyncio.sleep(RETRY)

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method; returns its result as JSON values. Raises ControlError and NoDaemonError."""
        if self._writer is None:
            raise NoDaemonError("no daemon is running")
        serial = next(self._serials)
        answer = self._answers[serial] = asyncio.get_running_loop().create_future()
        request = {"jsonrpc": "2.0", "id": serial, "method": method, "params": params}
        try:
            self._writer.write(line_of(request))
            async with asyncio.timeout(CALL_WITHIN):
                return await answer
        except TimeoutError:
            raise ControlError(INTERNAL_ERROR, f"the daemon did not answer {method} in time") from None
        finally:
            self._answers.pop(serial, None)

    async def entries(
        self, method: str, most: int | None = None, *, cursor: str | None = None, **params: Any
    ) -> list[Any]:
        """Return what a method lists page by page, at most `most` of it. Raises as `call`.

        It begins behind `cursor`, which an answer gave.
        """
        found: list[Any] = []
        while most is None or len(found) < most:
            page = await self.call(method, cursor=cursor, **params)
            found += page["entries"]
            cursor = page["cursor"]
            if cursor is None:
                break
        return found[:most]

    async def _serve(self) -> str:
        """Use one connection up; return why it ended."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=2 * LINE_LIMIT)
        except (FileNotFoundError, ConnectionRefusedError):
            self.foreign = False
            return f"no daemon is running ({self.path})"
        except OSError as error:
            return f"the daemon cannot be reached at {self.path}: {error.strerror or error}"
        self._writer = writer
        reason = "the daemon has gone"
        try:
            async with asyncio.TaskGroup() as tasks:
                greeting = tasks.create_task(self._greet())
                await self._read(reader)
                greeting.cancel()
                self.foreign = False
        except* (OSError, ValueError, NoDaemonError, ControlError) as group:
            first = group.exceptions[0]
            self.foreign = isinstance(first, ControlError) and first.kind is Kind.VERSION
            reason = str(first) if self.foreign else f"the line to the daemon broke: {first}"
        finally:
            self._writer = None
            writer.close()
        return reason

    async def _greet(self) -> None:
        """Agree on the version, and ask for the events; who may not have them does without."""
        try:
            check_version(await self.call(HELLO, protocol=VERSION, version=__version__))
        except ControlError as error:
            check_version(error)
        try:
            await self.call("events.watch")
        except ControlError:
            await self.call("daemon.status")
        self.up, self.foreign = True, False  # not before: until it has answered it may be the same as before
        self._told = None
        self._listener.link_up()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = _parsed(line)
            if message.get("method") == "event":
                self._gather(message["params"])
                continue
            answer = self._answers.get(message["id"])
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(ControlError.from_json(message["error"]))
            else:
                answer.set_result(message.get("result"))

    def _gather(self, event: Event) -> None:
        if not self._batch:
            asyncio.get_running_loop().call_later(GATHER, self._hand_over)
        if len(self._batch) < BATCH_LIMIT:
            self._batch.append(event)
        else:
            self._lost += 1

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        lost, self._lost = self._lost, 0
        self._listener.link_events(batch, lost)

    def _fail(self, reason: str) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NoDaemonError(reason))


def _parsed(line: bytes) -> dict[str, Any]:
    """Return an answer (an `id` of ours) or an event (`params`). Raises ValueError if it is neither."""
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("an answer is nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("an answer is no object")
    if not isinstance(message.get("params" if "method" in message else "id"), dict | int):
        raise ValueError("an answer answers nothing")
    return message
