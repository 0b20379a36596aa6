"""One open container: bytes, which of them are present, and who waits for more. See containers.py."""

import io
import os
from collections.abc import Callable
from typing import BinaryIO, Protocol, Self

import trio

from realmfs.cache.extents import Extents


class Keeper(Protocol):
    """What a container asks of the store that keeps it."""

    used: int

    def allow_growth(self) -> None:
        """Raise CacheFull if no data may be added."""

    def at_end(self, act: Callable[[], None]) -> None:
        """Call `act` when no transaction is open."""

    def forget(self, container: "Container", descriptor: int) -> None:
        """Note that its last user has left, and take the descriptor over (-1: it has none)."""


class Container:
    """An open container. Made by `Containers.create`, `hold` and `open`; close it as often as it was opened.

    `inline` are the contents if they are in the row: then there is no file, and nothing of it ever changes.
    """

    def __init__(
        self,
        keeper: Keeper,
        number: int,
        descriptor: int,
        length: int,
        present: Extents,
        inline: bytes | None = None,
    ) -> None:
        self.id = number
        self.fd = descriptor
        self.inline = inline
        self.length = length
        self.present = present
        self.writing = False
        self.logged = False
        self.filling = False  # a fetch is streaming in
        self.unproven = 0  # bytes before this may be of another version than the one wanted: not for readers
        self.saved = False  # it has a row, or had one
        self.saved_size = 0  # bytes that the row counts
        self._keeper = keeper
        self._reserved = 0
        self._charge = 0
        self.counted = True
        self._progress = trio.lowlevel.ParkingLot()
        self.waited: list[tuple[int, int]] = []  # ranges that readers wait for, the latest last
        self.position = 0  # where the last reader's range ended
        self._users = 1
        self._left = False
        self._account()

    # -- contents ----------------------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Is every byte present?"""
        return self.present.total == self.length

    def has(self, offset: int, count: int) -> bool:
        """May these bytes be read, as far as the file goes?"""
        return offset >= self.unproven and self.present.covers(offset, min(offset + count, self.length))

    def read(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes; fewer only at the end. The caller sees to it that they are present."""
        if self.inline is not None:
            return self.inline[offset : offset + count]
        return os.pread(self.fd, count, offset)

    def reader(self) -> BinaryIO:
        """Return a file of the caller's own over the contents."""
        if self.inline is not None:
            return io.BytesIO(self.inline)
        reader = open(os.dup(self.fd), "rb")  # noqa: SIM115 - the caller closes it
        reader.seek(0)
        return reader

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes in, growing the file if need be.

        CacheFull without the disk reserve, OSError(ENOSPC) on a full disk.
        """
        self._require_changeable()
        self._keeper.allow_growth()
        start, view = offset, memoryview(data)
        try:
            while view:
                done = os.pwrite(self.fd, view, offset)
                view = view[done:]
                offset += done
        except OSError:
            if offset > self.length:
                os.ftruncate(self.fd, self.length)  # the length on disk is what `open` compares
            raise
        if offset > self.length:
            if start > self.length:  # what a write past the end skips reads as zeros, and those are real
                self.present.add(self.length, start)
            self.length = offset
        self.present.add(start, offset)
        self._account()
        if any(self.has(begin, end - begin) for begin, end in self.waited):
            self._progress.unpark_all()

    def truncate(self, length: int) -> None:
        """Cut the file or lengthen it with zeros, which are present."""
        self._require_changeable()
        if length > self.length:
            self._keeper.allow_growth()
        os.ftruncate(self.fd, length)
        if length > self.length:
            self.present.add(self.length, length)
        else:
            self.present.remove(length, self.length)
        self.length = length
        self._account()

    def resize(self, length: int) -> None:
        """Set the length of what is being fetched.

        What is added is a hole. For a fetch that learns the size late.
        """
        self._require_changeable()
        os.ftruncate(self.fd, length)
        self.present.remove(length, max(length, self.length))
        self.length = length
        self._account()

    def _require_changeable(self) -> None:
        if self.logged:
            raise RuntimeError(f"container {self.id:x} belongs to the modify log and may not change")
        if self.inline is not None:
            raise RuntimeError(f"container {self.id:x} is in the database and may not change")

    def forget_range(self, start: int, stop: int) -> None:
        """Take a range for absent. `Containers.discard` is the way to give bytes back to the disk."""
        self.present.remove(start, min(stop, self.length))
        self._account()

    def remember_range(self, start: int, stop: int) -> None:
        """Take a range for present again: the transaction that discarded it was rolled back."""
        self.present.add(start, min(stop, self.length))
        self._account()

    # -- a fetch streaming in ----------------------------------------------------------------------------

    def sink(self, offset: int = 0) -> "ContainerSink":
        """Return what takes fetched bytes in order, from `offset` on, and lets waiting readers go on."""
        self.filling = True
        return ContainerSink(self, offset)

    def doubt(self, stop: int) -> None:
        """Keep what comes before `stop` from readers until `prove` is called, or forget it at the end."""
        self.unproven = stop

    def prove(self) -> None:
        """Note that what has come is of the version that was asked for."""
        if self.unproven:
            self.unproven = 0
            self._progress.unpark_all()

    def settle(self) -> None:
        """End the fetch, well or not: whoever waits for bytes that did not come stops waiting."""
        self.present.remove(0, min(self.unproven, self.length))
        self.unproven = 0
        self.filling = False
        self._reserved = 0
        self._account()
        self._progress.unpark_all()

    async def wait(self, offset: int, count: int) -> bool:
        """Wait until the bytes are present or no fetch is running; tell whether they are."""
        wish = offset, offset + count
        self.position = offset + count
        if self.has(offset, count):
            return True
        self.waited.append(wish)
        try:
            while not self.has(offset, count):
                if not self.filling:
                    return False
                await self._progress.park()
            return True
        finally:
            self.waited.remove(wish)

    # -- accounting and the end --------------------------------------------------------------------------

    def reserve(self, size: int) -> None:
        """Count at least `size` bytes against the limit until `settle`.

        Room is made by `replacement` before.
        """
        self._reserved = size
        self._account()

    def _account(self) -> None:
        charge = max(self.present.total, self._reserved) if self.counted else 0
        self._keeper.used += charge - self._charge
        self._charge = charge

    def uncount(self) -> None:
        """Count nothing any more: the container has been released."""
        self.counted = False
        self._account()

    def recount(self) -> None:
        """Count again: the release was rolled back."""
        self.counted = True
        self._account()

    def unsave(self) -> None:
        """Forget the row: the transaction that wrote it was rolled back."""
        self.saved = False

    def restore(self, writing: bool, logged: bool) -> None:
        """Take back a change of state: the transaction that made it was rolled back."""
        self.writing, self.logged = writing, logged

    def share(self) -> "Container":
        """Return this container for one more user."""
        self._users += 1
        return self

    def close(self) -> None:
        """Leave it. The last user closes the file once the open transaction has ended: its row may change."""
        self._users -= 1
        if not self._users:
            self._keeper.at_end(self._finish)

    def _finish(self) -> None:
        if not self._users and not self._left:
            self._left = True
            descriptor, self.fd = self.fd, -1
            self._keeper.forget(self, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ContainerSink:
    """Takes bytes in order (the transport's Sink)."""

    def __init__(self, container: Container, offset: int) -> None:
        self.container = container
        self.offset = offset  # where the next byte goes

    def write(self, data: bytes) -> None:
        """Append."""
        self.container.write(self.offset, data)
        self.offset += len(data)
