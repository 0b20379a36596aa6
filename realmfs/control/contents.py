"""Contents of files on their way to and from callers: through pipes, of which they are passed one end.

Not the file in the cache is passed: what of it is not here yet comes while the caller reads, and its rights
end with the connection. The pipe holds little, so that who is slow on either side makes the other wait; and
neither the socket nor the loop carries the bytes in its messages.

A `Flow` is one file's way, a task that ends when all has come through, when the other end is closed, or when
an error stops it: that error is kept for `file.close`, since a pipe can only end.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from realmfs.control.protocol import ControlError
from realmfs.venus.face import FileSystem
from realmfs.vice.errors import CodaError

T = TypeVar("T")

_PIECE = 256 << 10
_PIPE_SIZE = 1 << 20
_END_WITHIN = 30.0  # s that a caller who closes a new file may keep its pipe open


@dataclass(frozen=True, slots=True)
class Passed(Generic[T]):
    """A result with which a descriptor goes to the caller; afterwards `pour` moves the contents."""

    result: T
    descriptor: int
    pour: Callable[[], Awaitable[None]]


class Flow:
    """The contents of one open file on their way."""

    def __init__(self, handle: int, path: str) -> None:
        self.handle = handle
        self._path = path
        self._error: CodaError | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._begun = False

    async def run(self, move: Callable[[], Awaitable[None]]) -> None:
        """Move all; keeps what goes wrong."""
        self._begun = True
        try:
            with self._scope:
                await move()
        except CodaError as error:
            self._error = error
        except trio.BrokenResourceError:
            pass  # the caller has closed his end: he has read enough
        finally:
            self._ended.set()

    async def all_came(self) -> None:
        """Wait for the caller's end of the pipe to be closed. Raises ControlError if it stays open."""
        if self._begun:
            with trio.move_on_after(_END_WITHIN):
                await self._ended.wait()
                return
            text = f"/{self._path}: the pipe is still open. Close it before the file"
            raise ControlError.of_errno(errno.EBUSY, text)

    async def stop(self) -> None:
        """Move no more. Raises as ControlError what has stopped it before."""
        self._scope.cancel()
        if self._begun:
            await self._ended.wait()
        if self._error is not None:
            text = f"/{self._path}: {os.strerror(self._error.errno)}"
            raise ControlError.of_errno(self._error.errno, text) from self._error


async def pour_out(files: FileSystem, flow: Flow, descriptor: int) -> None:
    """Write the contents of an open file into a pipe, up to their end; closes the descriptor."""

    async def move() -> None:
        offset = 0
        async with _pipe(descriptor) as pipe:
            while data := await files.read(flow.handle, offset, _PIECE):
                await pipe.send_all(data)
                offset += len(data)

    await flow.run(move)


async def pour_in(files: FileSystem, flow: Flow, descriptor: int) -> None:
    """Write what comes out of a pipe into an open file, up to its end; closes the descriptor."""

    async def move() -> None:
        offset = 0
        async with _pipe(descriptor) as pipe:
            while data := await pipe.receive_some(_PIECE):
                await files.write(flow.handle, offset, data)
                offset += len(data)

    await flow.run(move)


def _pipe(descriptor: int) -> trio.lowlevel.FdStream:
    with contextlib.suppress(OSError):  # beyond what a user may have it stays as it was
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return trio.lowlevel.FdStream(descriptor)
