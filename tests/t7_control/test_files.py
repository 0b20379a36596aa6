"""File commands without a mount."""

import base64
import os
from typing import Any

from tests.t7_control.conftest import Control, Line


async def ok(line: Line, method: str, **params: Any) -> Any:
    answer = await line.call(method, **params)
    assert "error" not in answer, answer
    return answer["result"]


async def errno_name(line: Line, method: str, **params: Any) -> Any:
    answer = await line.call(method, **params)
    return answer["error"]["data"]["errno"]


async def put(line: Line, path: str, data: bytes) -> None:
    handle = (await ok(line, "file.open", path=path, write=True, mode=0o640))["handle"]
    await ok(line, "file.write", handle=handle, offset=0, data=base64.b64encode(data).decode())
    await ok(line, "file.close", handle=handle, sync=True)


async def get(line: Line, path: str) -> bytes:
    opened = await ok(line, "file.open", path=path)
    answer = await ok(line, "file.read", handle=opened["handle"], offset=0, size=200_000)
    await ok(line, "file.close", handle=opened["handle"])
    return base64.b64decode(answer["data"])


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
    assert await errno_name(second, "file.read", handle=handle, offset=0, size=1) == "EBADF"
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
    handle = (await ok(first, "file.open", path="file", write=True))["handle"]
    await ok(first, "file.write", handle=handle, offset=0, data=base64.b64encode(b"new").decode())
    await first.stream.aclose()
    while control.files.handles:
        await ok(second, "daemon.status")
    assert await get(second, "file") == b"old"
    assert [entry["name"] for entry in (await ok(second, "path.list", path=""))["entries"]] == ["file"]


async def test_hostile_numbers_and_names(control: Control) -> None:
    line = await control.connect()
    await put(line, "file", b"data")
    handle = (await ok(line, "file.open", path="file"))["handle"]
    for offset, size in ((-1, 1), (0, 0), (0, 1 << 30), (1 << 70, 1)):
        assert "error" in await line.call("file.read", handle=handle, offset=offset, size=size)
    assert "error" in await line.call("file.write", handle=handle, offset=0, data="!!")
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
