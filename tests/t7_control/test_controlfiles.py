"""Control files over a file system in memory: whose they are, how long they live, what passes through."""

import errno
import itertools
import os

import pytest
import trio
from trio.testing import MockClock

from realmfs.control.controlfiles import ControlFiles
from realmfs.control.pioctl import Order
from realmfs.venus.conflicts import VIEW_BIT
from realmfs.venus.face import FOREIGN_INODES, ROOT_INODE, Caller, Changes
from realmfs.vice.errors import CodaError, Code
from tests.memoryfs import MemoryFiles

ME, OTHER = Caller(1001, 1001, 1), Caller(1002, 1002, 2)
NAME = b"...PIOCTL.0123abcd"
ORDER = b"2\n2\n1\n3\n2048\n\0/axyz"


class Tool:
    """Does as the reference's tools do, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Order]] = []
        self.answer: bytes | CodaError = b"done"
        self.files = MemoryFiles()
        self.door = ControlFiles(self.files, self.habit)

    async def habit(self, caller: Caller, order: Order) -> bytes:
        self.asked.append((caller.uid, order))
        if isinstance(self.answer, CodaError):
            raise self.answer
        return self.answer

    async def write(self, caller: Caller, raw: bytes, name: bytes = NAME) -> None:
        opened, _ = await self.door.create(caller, ROOT_INODE, name, 0o644, os.O_WRONLY | os.O_CREAT)
        for start in range(0, len(raw), 7):
            await self.door.write(opened.handle, start, raw[start : start + 7])
        await self.door.flush(opened.handle)
        await self.door.release(opened.handle)

    async def read(self, caller: Caller, name: bytes = NAME) -> bytes:
        attr = await self.door.lookup(caller, ROOT_INODE, name)
        opened = await self.door.open(caller, attr.ino, os.O_RDONLY)
        size = (await self.door.getattr(caller, attr.ino)).size
        data = bytes(await self.door.read(opened.handle, 0, 4096))
        assert len(data) == size
        await self.door.release(opened.handle)
        return data


async def test_an_order_is_carried_out_once_at_the_second_opening() -> None:
    tool = Tool()
    await tool.write(ME, ORDER)
    assert tool.asked == []
    assert await tool.read(ME) == b"0\n4\n\0done"
    assert tool.asked == [(1001, Order(2, "a", True, b"xyz", 2048))]
    with pytest.raises(CodaError) as caught:
        await tool.read(ME)
    assert caught.value.errno == errno.ENOENT


async def test_an_error_is_the_answer_and_nonsense_cannot_be_opened() -> None:
    tool = Tool()
    tool.answer = CodaError(Code.EACCES, "no")
    await tool.write(ME, ORDER)
    assert await tool.read(ME) == b"%d\n0\n\0" % errno.EACCES
    tool.answer = b"x" * 4000
    await tool.write(ME, ORDER)
    assert await tool.read(ME) == b"%d\n0\n\0" % errno.E2BIG
    await tool.write(ME, b"nonsense")
    with pytest.raises(CodaError) as caught:
        await tool.read(ME)
    assert caught.value.errno == errno.EINVAL


async def test_nobody_else_finds_opens_or_makes_it() -> None:
    tool = Tool()
    await tool.write(ME, ORDER)
    attr = await tool.door.lookup(ME, ROOT_INODE, NAME)
    assert (attr.mode & 0o777, attr.uid, attr.entry_timeout) == (0o600, 1001, 0)
    for attempt in (
        lambda: tool.door.lookup(OTHER, ROOT_INODE, NAME),
        lambda: tool.door.open(OTHER, attr.ino, os.O_RDONLY),
        lambda: tool.door.create(OTHER, ROOT_INODE, NAME, 0o600, os.O_WRONLY),
        lambda: tool.door.unlink(OTHER, ROOT_INODE, NAME),
    ):
        with pytest.raises(CodaError):
            await attempt()
    assert not await tool.door.access(OTHER, attr.ino, os.R_OK)
    assert await tool.read(ME) == b"0\n4\n\0done"


async def test_they_are_few_and_do_not_live_long(autojump_clock: MockClock) -> None:
    tool = Tool()
    for number in range(100):
        await tool.write(ME, ORDER, b"...PIOCTL.%08x" % number)
    assert len(tool.door._slips) == 64
    await trio.sleep(200)
    await tool.write(ME, ORDER)
    assert len(tool.door._slips) == 1
    with pytest.raises(CodaError):
        await tool.write(ME, b"x" * 5000, b"...PIOCTL.ffffffff")


@pytest.mark.parametrize("number", [2, VIEW_BIT + 2, FOREIGN_INODES - 1])
async def test_everything_else_is_the_cache_managers(number: int) -> None:
    tool = Tool()
    tool.files.serials = itertools.count(number)
    await tool.write(ME, ORDER)
    opened, attr = await tool.door.create(ME, ROOT_INODE, b"file", 0o644, os.O_WRONLY)
    await tool.door.write(opened.handle, 0, b"data")
    await tool.door.release(opened.handle)
    assert (await tool.door.lookup(ME, ROOT_INODE, b"file")).ino == attr.ino
    again = await tool.door.open(ME, attr.ino, os.O_RDONLY)
    assert bytes(await tool.door.read(again.handle, 0, 10)) == b"data"
    assert (await tool.door.getattr(ME, attr.ino)).size == 4
    assert (await tool.door.setattr(ME, attr.ino, Changes(size=2))).size == 2
    assert await tool.door.access(ME, attr.ino, os.R_OK)
    assert await tool.door.getxattr(ME, attr.ino, b"user.test.calls")
    tool.door.forget(attr.ino, 2)
    assert tool.files.nodes[attr.ino].lookups == 0
