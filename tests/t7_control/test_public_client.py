"""The example in the documentation of the Python client works as it stands, but for the socket's path."""

import sys
import textwrap
from pathlib import Path

import pytest
import trio

from realmfs.control import messages
from realmfs.control.messages.pages import ChangePage
from realmfs.control.server import ControlServer
from realmfs.control.service import Method
from realmfs.venus.face import Caller
from tests.memoryfs import MemoryFiles
from tests.t7_control.conftest import SomeEvents, SomeFacts, SomeLogins

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "reference" / "client.md"
CHANGE = messages.Change("/", "example.org", 1, 0.0, 0, "store", "notes.txt", 4, "waits")


def example() -> str:
    """The program on the page."""
    text = PAGE.read_text()
    return textwrap.dedent(text[text.index("    from pathlib") : text.index("\n| | |")])


async def pages(params: messages.Changes) -> ChangePage:
    """Two pages of one change each."""
    await trio.lowlevel.checkpoint()
    return ChangePage([CHANGE], "1.1" if params.cursor is None else None)


async def run(program: str) -> str:
    done = await trio.run_process([sys.executable, "-c", program], capture_stdout=True, cwd=REPOSITORY)
    return bytes(done.stdout).decode()


async def test_a_stranger_can_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFiles()

    async def fid(caller: Caller, ino: int, name: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"7f000001.2.3"

    monkeypatch.setattr(files, "getxattr", fid)
    socket = tmp_path / "s"
    program = example().replace("/run/user/1000/realmfs/control.sock", str(socket))
    assert str(socket) in program
    async with trio.open_nursery() as nursery:
        methods = {"changes.list": Method(messages.Changes, pages)}
        server = ControlServer(socket, files, SomeFacts(), SomeLogins(), SomeEvents(), methods=methods)
        await nursery.start(server.run)
        assert "that failed: /example.org" in await run(program), "there is no such directory"
        await files.mkdir(Caller(0, 0, 0), 1, b"example.org", 0o777)
        lines = (await run(program)).splitlines()
        nursery.cancel_scope.cancel()
    assert lines == ["0 changes wait", "store notes.txt", "store notes.txt", "b'text'", "7f000001.2.3"]
    assert "start it first: no realmfs daemon is running" in await run(program)
