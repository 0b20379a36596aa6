"""A daemon that says what it is told to say: an asyncio server in the interface's loop, for golden frames.

Golden frames lie in tests/data/tui, one text file a screen. REALMFS_RENEW_FRAMES=1 writes them anew; look at
the difference before committing it.
"""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from realmfs.control.protocol import DESCRIPTORS, HELLO, VERSION, ControlError
from realmfs.tui.app import RealmfsApp
from tests.t8_cli_tui.pilot import screen_text, until

FRAMES = Path(__file__).resolve().parents[1] / "data" / "tui"

Answers = Mapping[str, Any]
"""By method: a result, a file's contents, a ControlError, or a function of the parameters that gives one."""


SILENCE = object()
"""An answer that does not come."""
PAGED = (
    "changes.list", "conflicts.list", "hoard.list", "hoard.profiles",
    "realms.list", "servers.list", "tokens.list", "volumes.list",
)  # fmt: skip
"""What answers in pages: here one page holds all."""


class FakeDaemon:
    """The server; `calls` are what it was asked, `status` left out."""

    def __init__(self, answers: Answers, events: list[Mapping[str, Any]]) -> None:
        self.answers = {HELLO: {"protocol": VERSION, "version": "0", "pid": 1}, **answers}
        self.events = events
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._ended: list[asyncio.Event] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        ended = asyncio.Event()
        self._ended.append(ended)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            ended.set()

    async def until_ended(self) -> None:
        """Wait until all connections are closed."""
        for ended in self._ended:
            await ended.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            method, params = request["method"], request["params"]
            if method not in ("daemon.status", "tokens.list", HELLO):
                self.calls.append((method, params))
            answer = self.answers.get(method, {})
            if callable(answer):
                answer = answer(params)
            if answer is SILENCE:
                continue
            if isinstance(answer, bytes):
                _pass_contents(writer, request["id"], answer)
                continue
            if method in PAGED and isinstance(answer, list):
                answer = {"entries": answer, "cursor": None}
            failed = isinstance(answer, ControlError)
            reply = {"id": request["id"], **({"error": answer.to_json()} if failed else {"result": answer})}
            writer.write(json.dumps(reply).encode() + b"\n")
            if method == "events.watch":
                for event in self.events:
                    writer.write(json.dumps({"method": "event", "params": event}).encode() + b"\n")


def _pass_contents(writer: asyncio.StreamWriter, serial: int, data: bytes) -> None:
    """Answer with a pipe that holds the data, as `file.open` does."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    reply = {"id": serial, DESCRIPTORS: 1, "result": {"handle": serial, "size": len(data)}}
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as line:
        socket.send_fds(line, [json.dumps(reply).encode() + b"\n"], [reading])
    os.close(reading)


Script = Callable[[RealmfsApp, Pilot[None], FakeDaemon], Awaitable[None]]


def drive_fake(
    directory: Path,
    answers: Answers,
    script: Script,
    *,
    events: list[Mapping[str, Any]] | None = None,
    size: tuple[int, int] = (80, 24),
) -> None:
    """Run the interface beside a daemon with these answers, and the script on both."""

    async def run() -> None:
        daemon = FakeDaemon(answers, events or [])
        path = directory / "socket"
        app = RealmfsApp(path, state=directory)
        async with (
            await asyncio.start_unix_server(daemon.serve, str(path)),
            app.run_test(size=size, notifications=True) as pilot,
        ):
            await script(app, pilot, daemon)
        await daemon.until_ended()
        await asyncio.sleep(0)

    asyncio.run(run())


async def compare(name: str, app: RealmfsApp, pilot: Pilot[None]) -> None:
    """Fail unless the screen comes to look as its golden frame; or write that anew."""
    golden = FRAMES / f"{name}.txt"
    if os.environ.get("REALMFS_RENEW_FRAMES"):
        before = ""
        while before != screen_text(app):
            before = screen_text(app)
            await pilot.pause(1.0)
        FRAMES.mkdir(exist_ok=True)
        golden.write_text(screen_text(app) + "\n")
    wanted = golden.read_text()
    await until(pilot, lambda: screen_text(app) + "\n" == wanted, within=5.0, wanted=wanted)
