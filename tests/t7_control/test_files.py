"""File commands without a mount."""

import os
from typing import Any

import pytest
import trio

from realmfs.control import contents, messages
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.vice.errors import CodaError, Code
from tests.t7_control.conftest import Control, Line


async def ok(line: Line, method: str, **params: Any) -> Any:
    answer = await line.call(method, **params)
    assert "error" not in answer, answer
    return answer["result"]


async def errno_name(line: Line, method: str, **params: Any) -> Any:
    answer = await line.call(method, **params)
    return answer["error"]["data"]["errno"]


def pipe(line: Line) -> trio.lowlevel.FdStream:
    """The descriptor that came last."""
    return trio.lowlevel.FdStream(line.descriptors.pop())


async def put(line: Line, path: str, data: bytes) -> None:
    handle = (await ok(line, "file.open", path=path, write=True, mode=0o640))["handle"]
    async with pipe(line) as stream:
        await stream.send_all(data)
    await ok(line, "file.close", handle=handle, sync=True)


async def get(line: Line, path: str) -> bytes:
    opened = await ok(line, "file.open", path=path)
    data = b""
    async with pipe(line) as stream:
        while piece := await stream.receive_some():
            data += piece
    await ok(line, "file.close", handle=opened["handle"])
    return data


async def test_a_tree_is_made_listed_and_removed(control: Control) -> None:
    line = await control.connect()
    await ok(line, "path.mkdir", path="d")
    await ok(line, "path.mkdir", path="d/e", mode=0o700)
    await put(line, "d/e/f", b"data")
    assert await get(line, "/d//e/./f") == b"data"
    assert await get(line, "d/e/../e/f") == b"data"
    entries = (await ok(line, "path.list", path="d/e"))["entries"]
    assert [(entry["name"], entry["attributes"]["size"]) for entry in entries] == [("f", 4)]
    await ok(line, "path.move", path="d/e/f", new_path="d/g")
    assert await errno_name(line, "path.remove", path="d") == "ENOTEMPTY"
    await ok(line, "path.remove", path="d/g")
    await ok(line, "path.remove", path="d/e")
    await ok(line, "path.remove", path="d")
    assert (await ok(line, "path.list", path=""))["entries"] == []
    assert all(node.lookups == 0 for node in control.files.nodes.values()), "every lookup was given back"


async def test_a_long_listing_comes_in_pieces(control: Control) -> None:
    line = await control.connect()
    control.files.unknown_status = True
    for number in range(25):
        await put(line, f"f{number:02}", b"x" * number)
    names: list[tuple[str, int]] = []
    position: int | None = 0
    while position is not None:
        piece = await ok(line, "path.list", path="", position=position, limit=10)
        assert len(piece["entries"]) <= 10
        names += [(entry["name"], entry["attributes"]["size"]) for entry in piece["entries"]]
        position = piece["position"]
    assert sorted(names) == [(f"f{number:02}", number) for number in range(25)]


async def test_links_are_followed_inside_the_tree(control: Control) -> None:
    line = await control.connect()
    caller = control.files.nodes[1]
    await ok(line, "path.mkdir", path="d")
    await put(line, "d/file", b"data")

    async def link(name: bytes, target: bytes) -> None:
        from realmfs.venus.face import Caller

        await control.files.symlink(Caller(caller.uid, caller.gid, 1), 1, name, target)

    await link(b"there", b"d/file")
    await link(b"up", b"d/../there")
    await link(b"out", b"/etc/passwd")
    await link(b"loop", b"loop")
    assert await get(line, "there") == b"data"
    assert await get(line, "up") == b"data"
    assert (await ok(line, "path.stat", path="there", follow=False))["target"] == "d/file"
    assert await errno_name(line, "path.stat", path="out") == "EXDEV"
    assert await errno_name(line, "path.stat", path="loop") == "ELOOP"


async def test_handles_belong_to_their_connection(control: Control) -> None:
    first, second = await control.connect(), await control.connect()
    await put(first, "file", b"data")
    handle = (await ok(first, "file.open", path="file"))["handle"]
    assert await errno_name(second, "file.close", handle=handle) == "EBADF"
    for _ in range(63):
        await ok(first, "file.open", path="file")
    assert await errno_name(first, "file.open", path="file") == "EMFILE"
    await first.stream.aclose()
    while control.files.handles:
        await ok(second, "daemon.status")
    assert control.files.nodes[1].lookups == 0


async def test_a_put_that_dies_changes_nothing(control: Control) -> None:
    first, second = await control.connect(), await control.connect()
    await put(first, "file", b"old")
    await ok(first, "file.open", path="file", write=True)
    async with pipe(first) as stream:
        await stream.send_all(b"new")
    await first.stream.aclose()
    while control.files.handles:
        await ok(second, "daemon.status")
    assert await get(second, "file") == b"old"
    assert [entry["name"] for entry in (await ok(second, "path.list", path=""))["entries"]] == ["file"]


async def test_hostile_numbers_and_names(control: Control) -> None:
    line = await control.connect()
    await put(line, "file", b"data")
    for handle in (0, -1, 1 << 70):
        assert await errno_name(line, "file.close", handle=handle) == "EBADF"
    assert "error" in await line.call("path.stat", path="a\0b")
    assert "error" in await line.call("path.remove", path="..")
    assert "error" in await line.call("path.remove", path="")
    assert await get(line, os.fsdecode(b"file")) == b"data"


async def test_a_listing_can_do_without_asking(control: Control) -> None:
    line = await control.connect()
    control.files.unknown_status = True
    await put(line, "file", b"data")
    before = control.files.calls["lookup"]
    (entry,) = (await ok(line, "path.list", path="", attributes=False, states=True))["entries"]
    assert entry["attributes"] is None
    assert control.files.calls["lookup"] == before
    control.files.unknown_status = False
    (entry,) = (await ok(line, "path.list", path="", attributes=False))["entries"]
    assert (entry["kind"], entry["attributes"]["size"]) == ("file", 4)


async def test_a_reader_who_has_enough_is_no_failure(control: Control) -> None:
    line = await control.connect()
    await put(line, "file", bytes(3 << 20))
    handle = (await ok(line, "file.open", path="file"))["handle"]
    async with pipe(line) as stream:
        assert len(await stream.receive_some(10)) == 10
    await ok(line, "file.close", handle=handle)
    assert control.files.calls["read"] < 10, "who does not read makes the daemon wait"
    assert not control.files.handles


async def test_what_stops_contents_is_told_at_the_close(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await control.connect()
    await put(line, "file", b"old")

    async def broken(*args: object) -> bytes:
        await trio.lowlevel.checkpoint()
        raise CodaError(Code.ENOSPC, "on purpose")

    monkeypatch.setattr(control.files, "read", broken)
    handle = (await ok(line, "file.open", path="file"))["handle"]
    async with pipe(line) as stream:
        assert await stream.receive_some() == b""
    assert await errno_name(line, "file.close", handle=handle) == "ENOSPC"
    monkeypatch.setattr(control.files, "write", broken)
    handle = (await ok(line, "file.open", path="file", write=True))["handle"]
    async with pipe(line) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(bytes(3 << 20))
    assert await errno_name(line, "file.close", handle=handle) == "ENOSPC"
    assert [entry["name"] for entry in (await ok(line, "path.list", path=""))["entries"]] == ["file"]
    assert not control.files.handles


async def test_a_new_file_waits_for_the_end_of_its_pipe(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_END_WITHIN", 0.05)
    line = await control.connect()
    handle = (await ok(line, "file.open", path="file", write=True))["handle"]
    assert await errno_name(line, "file.close", handle=handle) == "EBUSY"
    await ok(line, "file.close", handle=handle, abandon=True)
    assert (await ok(line, "path.list", path=""))["entries"] == []
    assert not control.files.handles


async def test_the_python_client_reads_and_writes(control: Control) -> None:
    data = os.urandom(2_500_000)

    def use() -> None:
        with Client(control.path, timeout=5) as client:
            with client.writing("file", 0o600) as stream:
                stream.write(data)
            with client.reading("file") as stream:
                assert stream.read() == data
            with client.reading("file") as stream:
                assert stream.read(3) == data[:3]
            with pytest.raises(ZeroDivisionError), client.writing("file") as stream:
                stream.write(bytes(1 // 0))
            with client.reading("file") as stream:
                assert stream.read() == data
            with pytest.raises(ControlError, match="/absent"), client.reading("absent") as stream:
                pass
            found = client.ask(messages.Object, "path.stat", path="file")
            assert (found.attributes.size, found.attributes.mode) == (len(data), 0o600)
            with pytest.raises(ControlError, match="no Listing"):
                client.ask(messages.Listing, "path.stat", path="file")

    open_before = len(os.listdir("/proc/self/fd"))
    await trio.to_thread.run_sync(use)
    line = await control.connect()
    while control.files.handles:
        await ok(line, "daemon.status")
    assert len(os.listdir("/proc/self/fd")) <= open_before + 3, "no descriptor is left open"
