r"""Files that are orders: `...PIOCTL.XXXXXXXX` in the root of the mount, for the reference's own tools.

A layer over the cache manager's face. Everything but those names passes through. Such a file lives from its
making to the close after its order was carried out:

    create ──► written to, bytes are collected ──► closed ──► opened: the order is carried out, the answer
    is what the file holds ──► read ──► closed: gone

Only who made it may open it. At most `_MOST` live at a time; the oldest goes, and so does one that is
`_LIVES` seconds old. The kernel may keep nothing of them: neither names nor sizes.
"""

import errno
import itertools
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import trio

from realmfs.control.pioctl import MOST_ORDER, PREFIX, BadOrderError, Order, format_answer, parse_order
from realmfs.venus.face import FOREIGN_INODES, ROOT_INODE, Attr, Caller, Changes, FileSystem, Opened
from realmfs.vice.errors import CodaError, Code

_FIRST = FOREIGN_INODES
"""Inodes and handles from here on are ours."""
_MOST = 64
_LIVES = 120.0
_NAME_LENGTH = len(PREFIX) + 8

Habit = Callable[[Caller, Order], Awaitable[bytes]]
"""Carries an order out; returns the bytes of the answer. Raises CodaError."""


@dataclass(slots=True)
class _Slip:
    """One such file."""

    ino: int
    name: bytes
    uid: int
    born: float
    order: bytearray = field(default_factory=bytearray)
    answer: bytes | None = None


class ControlFiles:
    """The layer. What it does not define is the cache manager's own."""

    def __init__(self, files: FileSystem, habit: Habit) -> None:
        self._files = files
        self._habit = habit
        self._slips: dict[int, _Slip] = {}
        self._handles: dict[int, _Slip] = {}
        self._next = itertools.count(_FIRST)
        for name in dir(FileSystem):
            if not name.startswith("_") and not hasattr(type(self), name):
                setattr(self, name, getattr(files, name))

    # names

    async def lookup(self, caller: Caller, parent: int, name: bytes) -> Attr:
        """Find a slip by its name; anything else is the cache manager's."""
        if parent == ROOT_INODE and name.startswith(PREFIX):
            for slip in self._slips.values():
                if slip.name == name and slip.uid == caller.uid:
                    return _attr(slip)
            raise CodaError(Code.ENOENT, os.fsdecode(name))
        return await self._files.lookup(caller, parent, name)

    async def create(
        self, caller: Caller, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attr]:
        """Make a slip."""
        if parent != ROOT_INODE or not name.startswith(PREFIX):
            return await self._files.create(caller, parent, name, mode, flags)
        if len(name) != _NAME_LENGTH:
            raise CodaError(Code.EINVAL, os.fsdecode(name))
        if any(slip.name == name for slip in self._slips.values()):
            raise CodaError(Code.EACCES, os.fsdecode(name))
        self._make_room()
        slip = _Slip(next(self._next), name, caller.uid, trio.current_time())
        self._slips[slip.ino] = slip
        return Opened(self._handle(slip), False), _attr(slip)

    async def unlink(self, caller: Caller, parent: int, name: bytes) -> None:
        """Take a slip away."""
        if parent != ROOT_INODE or not name.startswith(PREFIX):
            await self._files.unlink(caller, parent, name)
            return
        self._slips.pop((await self.lookup(caller, parent, name)).ino, None)

    def forget(self, ino: int, count: int) -> None:
        """Slips count no lookups."""
        if ino < _FIRST:
            self._files.forget(ino, count)

    # attributes

    async def getattr(self, caller: Caller, ino: int) -> Attr:
        """Return the attributes; the size of a slip is that of its answer."""
        return await self._files.getattr(caller, ino) if ino < _FIRST else _attr(self._slip(ino))

    async def setattr(self, caller: Caller, ino: int, changes: Changes, handle: int | None = None) -> Attr:
        """A slip can be cut to nothing; other changes are of no effect."""
        if ino < _FIRST:
            return await self._files.setattr(caller, ino, changes, handle)
        slip = self._slip(ino)
        if changes.size == 0:
            slip.order.clear()
        return _attr(slip)

    async def access(self, caller: Caller, ino: int, mask: int) -> bool:
        """A slip is its maker's."""
        return (
            await self._files.access(caller, ino, mask) if ino < _FIRST else self._slip(ino).uid == caller.uid
        )

    async def getxattr(self, caller: Caller, ino: int, name: bytes) -> bytes:
        """Slips have none."""
        if ino >= _FIRST:
            raise CodaError(Code.EOPNOTSUPP, name.decode("utf-8", "replace"))
        return await self._files.getxattr(caller, ino, name)

    # contents

    async def open(self, caller: Caller, ino: int, flags: int) -> Opened:
        """Open a slip: for writing to order, for reading to have it carried out."""
        if ino < _FIRST:
            return await self._files.open(caller, ino, flags)
        slip = self._slip(ino)
        if slip.uid != caller.uid:
            raise CodaError(Code.EACCES, os.fsdecode(slip.name))
        if flags & os.O_ACCMODE == os.O_RDONLY and slip.answer is None:
            slip.answer = await self._carry_out(caller, bytes(slip.order))
        return Opened(self._handle(slip), False)

    async def _carry_out(self, caller: Caller, raw: bytes) -> bytes:
        try:
            order = parse_order(raw)
        except BadOrderError as error:
            raise CodaError(Code.EINVAL, str(error)) from None
        try:
            data = await self._habit(caller, order)
        except CodaError as error:
            return format_answer(error.errno)
        except OSError as error:
            return format_answer(error.errno or errno.EIO)
        return format_answer(0, data) if len(data) <= order.most else format_answer(errno.E2BIG)

    async def read(self, handle: int, offset: int, size: int) -> bytes | memoryview:
        """Read the answer."""
        slip = self._handles.get(handle)
        if slip is None:
            return await self._files.read(handle, offset, size)
        return (slip.answer or b"")[offset : offset + size]

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Take a piece of the order."""
        slip = self._handles.get(handle)
        if slip is None:
            return await self._files.write(handle, offset, data)
        if offset + len(data) > MOST_ORDER:
            raise CodaError(Code.EFBIG, "an order is short")
        slip.order.extend(bytes(max(0, offset - len(slip.order))))
        slip.order[offset : offset + len(data)] = data
        return len(data)

    async def flush(self, handle: int) -> None:
        """Nothing waits."""
        if handle not in self._handles:
            await self._files.flush(handle)

    async def fsync(self, handle: int, data_only: bool) -> None:
        """Nothing lasts."""
        if handle not in self._handles:
            await self._files.fsync(handle, data_only)

    async def release(self, handle: int) -> None:
        """Close; a slip that has been answered goes."""
        slip = self._handles.pop(handle, None)
        if slip is None:
            await self._files.release(handle)
        elif slip.answer is not None:
            self._slips.pop(slip.ino, None)

    # slips

    def _slip(self, ino: int) -> _Slip:
        try:
            return self._slips[ino]
        except KeyError:
            raise CodaError(Code.ENOENT, "the control file is gone") from None

    def _handle(self, slip: _Slip) -> int:
        handle = next(self._next)
        self._handles[handle] = slip
        return handle

    def _make_room(self) -> None:
        now = trio.current_time()
        for ino, slip in list(self._slips.items()):  # the oldest first
            if now - slip.born > _LIVES or len(self._slips) >= _MOST:
                del self._slips[ino]


def with_control_files(files: FileSystem, habit: Habit) -> FileSystem:
    """Return the cache manager with control files in its root."""
    return cast("FileSystem", ControlFiles(files, habit))


def _attr(slip: _Slip) -> Attr:
    size = len(slip.order) if slip.answer is None else len(slip.answer)
    return Attr(slip.ino, stat.S_IFREG | 0o600, 1, size, 0, slip.uid, 0, 0, 0.0, 0.0)
