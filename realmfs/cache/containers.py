"""Container files: the contents of cached files, one plain file each.

Theory
------
A container is first only a file (`create`): fetches stream into it, readers follow. It gets a row (`save`)
in the transaction that makes an object or a log record refer to it. A crash before that leaves an orphan,
deleted at the next start. So no fetch costs a transaction before its end.

    create ──► fetch streams in ──► save: referred to, clean ──► release: row gone, then the file
                                        │ writable (contents.py)
                                        ▼
                                     writing ──► store logged: immutable, shared by object and log record

Length is the size of the file on disk; `present` tells which bytes of it are real. A hole of a partial file
is a hole on disk too. What counts against the cache's limit (`charge`) is what is present or what has been
reserved for it.

Deleting. The file of a clean container goes right after the commit: should power loss undo that commit, a
file is missing and the data is fetched again. The file of a container that a store record referred to goes
only when the write-ahead log is on the disk (`bury`, called by durability): otherwise a record that power
loss brings back would have lost its contents.

Ids are not reused while the program runs; `open` gives everyone the same `Container`, which lives until the
last user has closed it, also after its row is gone: who opened a file goes on reading what he opened.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import trio

from realmfs.cache import disk
from realmfs.cache.database import Database
from realmfs.cache.errors import ContainerLost
from realmfs.cache.extents import Extents

COPY_INLINE = 1 << 20
"""Bytes that are copied without a thread: about half a millisecond."""


class Container:
    """An open container file. Made by `Containers.create` and `open`; close it as often as it was opened."""

    def __init__(
        self, store: "Containers", number: int, descriptor: int, length: int, present: Extents
    ) -> None:
        self.id = number
        self.fd = descriptor
        self.length = length
        self.present = present
        self.writing = False
        self.logged = False
        self.filling = False  # a fetch is streaming in
        self.saved = False  # it has a row, or had one
        self._store = store
        self._reserved = 0
        self._charge = 0
        self._counted = True
        self._progress = trio.lowlevel.ParkingLot()
        self._users = 1
        self._account()

    # -- contents ----------------------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Is every byte present?"""
        return self.present.total == self.length

    def has(self, offset: int, count: int) -> bool:
        """Are these bytes present, as far as the file goes?"""
        return self.present.covers(offset, min(offset + count, self.length))

    def read(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes; fewer only at the end. The caller sees to it that they are present."""
        return os.pread(self.fd, count, offset)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes in, growing the file if need be.

        CacheFull without the disk reserve, OSError(ENOSPC) on a full disk.
        """
        if self.logged:
            raise RuntimeError(f"container {self.id:x} belongs to the modify log and may not change")
        self._store.allow_growth()
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
        if self._progress:
            self._progress.unpark_all()

    def truncate(self, length: int) -> None:
        """Cut the file or lengthen it with zeros, which are present."""
        if self.logged:
            raise RuntimeError(f"container {self.id:x} belongs to the modify log and may not change")
        if length > self.length:
            self._store.allow_growth()
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
        os.ftruncate(self.fd, length)
        self.present.remove(length, max(length, self.length))
        self.length = length
        self._account()

    def discard(self, start: int, stop: int) -> None:
        """Forget bytes of a clean file and give their blocks back."""
        disk.punch(self.fd, start, stop)
        self.present.remove(start, min(stop, self.length))
        self._account()

    # -- a fetch streaming in ----------------------------------------------------------------------------

    def sink(self, offset: int = 0) -> "ContainerSink":
        """Return what takes fetched bytes in order, from `offset` on, and lets waiting readers go on."""
        self.filling = True
        return ContainerSink(self, offset)

    def settle(self) -> None:
        """End the fetch, well or not: whoever waits for bytes that did not come stops waiting."""
        self.filling = False
        self._reserved = 0
        self._account()
        self._progress.unpark_all()

    async def wait(self, offset: int, count: int) -> bool:
        """Wait until the bytes are present or no fetch is running; tell whether they are."""
        while not self.has(offset, count):
            if not self.filling:
                return False
            await self._progress.park()
        return True

    # -- accounting and the end --------------------------------------------------------------------------

    def reserve(self, size: int) -> None:
        """Count at least `size` bytes against the limit until `settle`.

        Room is made by `replacement` before.
        """
        self._reserved = size
        self._account()

    def _account(self) -> None:
        charge = max(self.present.total, self._reserved) if self._counted else 0
        self._store.used += charge - self._charge
        self._charge = charge

    def uncount(self) -> None:
        """Count nothing any more: the container has been released."""
        self._counted = False
        self._account()

    def recount(self) -> None:
        """Count again: the release was rolled back."""
        self._counted = True
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
            self._store.at_end(self._finish)

    def _finish(self) -> None:
        if not self._users and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._store.forget(self)

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


class Containers:
    """All container files. `used` bytes count against the limit."""

    def __init__(self, database: Database, directory: Path, allow_growth: Callable[[], None]) -> None:
        self._database = database
        self._directory = directory
        self.allow_growth = allow_growth
        self.at_end = database.at_end
        self._open: dict[int, Container] = {}
        self._graves: list[
            int
        ] = []  # released, once in the log: files to delete when the write-ahead log is synced
        self.reload()

    def reload(self) -> None:
        """Count again from the database: at start, after recovery."""
        rows = self._database.rescue(
            "SELECT coalesce(max(id), 0) + 1, coalesce(sum(bytes), 0) FROM container"
        )
        self._next: int
        self.used: int
        self._next, self.used = rows[0] if rows else (1, 0)

    def path(self, container: int) -> Path:
        """Return where the file is."""
        return self._directory / f"{container & 0xFF:02x}" / f"{container:x}"

    def create(self, length: int = 0, *, reserve: int = 0) -> Container:
        """Make a container of `length` bytes, none of them present, with `reserve` bytes counted ahead."""
        self.allow_growth()
        number = self._next
        self._next += 1
        path = self.path(number)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700)
            descriptor = os.open(path, flags, 0o600)
        if length:
            os.ftruncate(descriptor, length)
        container = Container(self, number, descriptor, length, Extents())
        container.reserve(reserve)
        self._open[number] = container
        return container

    def open(self, number: int) -> Container:
        """Open a container that has a row. ContainerLost if its file is not what the row says."""
        if known := self._open.get(number):
            return known.share()
        row = self._database.row(
            "SELECT length, bytes, present, writing, logged FROM container WHERE id = ?", (number,)
        )
        if row is None:
            raise ContainerLost(number, "is not known")
        length, size, present, writing, logged = row
        try:
            descriptor = os.open(self.path(number), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContainerLost(number, "is missing") from None
        actual = os.fstat(descriptor).st_size
        if writing:
            length = actual  # its row is of the time before the writes; such a container is always whole
        if actual != length:
            os.close(descriptor)
            raise ContainerLost(number, f"has {actual} bytes instead of {length}")
        self.used -= size  # from now on the open container counts itself
        container = Container(
            self,
            number,
            descriptor,
            length,
            Extents((0, length)) if present is None else Extents.unpack(present),
        )
        container.writing, container.logged, container.saved = bool(writing), bool(logged), True
        self._open[number] = container
        return container

    def forget(self, container: Container) -> None:
        """Called by a container whose last user has left: its row counts for it again."""
        del self._open[container.id]
        container.uncount()
        if container.saved:
            self.used += (
                self._database.value("SELECT bytes FROM container WHERE id = ?", (container.id,)) or 0
            )
        else:
            self._remove(container.id)

    def save(self, container: Container) -> None:
        """Write the row of an open container, as it is now. Inside a transaction."""
        present = None if container.whole else container.present.pack()
        self._database.write(
            "INSERT INTO container (id, length, bytes, present, writing, logged, synced)"
            " VALUES (?, ?, ?, ?, ?, ?, 0)"
            " ON CONFLICT (id) DO UPDATE SET length = excluded.length, bytes = excluded.bytes,"
            " present = excluded.present, writing = excluded.writing, logged = excluded.logged, synced = 0",
            (
                container.id,
                container.length,
                container.present.total,
                present,
                container.writing,
                container.logged,
            ),
        )
        if not container.saved:
            container.saved = True
            self._database.on_rollback(container.unsave)

    def release(self, number: int) -> None:
        """Drop a container that nothing refers to any more.

        Do nothing if something does. Inside a transaction.
        """
        used_by = (
            "SELECT 1 FROM object WHERE container = ?1 UNION ALL SELECT 1 FROM object WHERE previous = ?1"
            " UNION ALL SELECT 1 FROM log WHERE container = ?1"
            " UNION ALL SELECT 1 FROM recovered WHERE container = ?1"
        )
        if self._database.row(used_by, (number,)):
            return
        row = self._database.row("SELECT bytes, logged FROM container WHERE id = ?", (number,))
        if row is None:
            return
        self._database.write("DELETE FROM container WHERE id = ?", (number,))
        size, logged = row
        if container := self._open.get(number):
            container.uncount()
            self._database.on_rollback(container.recount)
        else:
            self.used -= size
            self._database.on_rollback(lambda: self._give_back(size))
        bury = self._graves.append if logged else self._remove
        self._database.on_commit(lambda: bury(number))

    def _give_back(self, size: int) -> None:
        self.used += size

    def _remove(self, number: int) -> None:
        self.path(number).unlink(missing_ok=True)

    @property
    def graves(self) -> list[int]:
        """The files that wait for the write-ahead log to be synced."""
        return self._graves.copy()

    def bury(self, graves: list[int]) -> None:
        """Delete files that waited: the write-ahead log is on the disk."""
        for number in graves:
            self._remove(number)
            self._graves.remove(number)

    def files(self) -> Iterator[int]:
        """Yield the ids of the files on the disk, with rows and without."""
        for directory in os.scandir(self._directory):
            if directory.is_dir(follow_symlinks=False):
                for entry in os.scandir(directory):
                    with contextlib.suppress(ValueError):  # not ours; leave it
                        yield int(entry.name, 16)

    async def fork(self, source: Container) -> Container:
        """Return a private copy of a whole container.

        Blocks shared where the file system can, else copied (in a thread if large). The source must not
        change meanwhile. OSError when the disk is full.
        """
        twin = self.create(reserve=source.length)
        try:
            if not disk.clone(source.fd, twin.fd):
                if source.length <= COPY_INLINE:
                    disk.copy(source.fd, twin.fd)
                else:
                    await trio.to_thread.run_sync(disk.copy, source.fd, twin.fd)
        except BaseException:
            twin.close()
            raise
        twin.length = source.length
        twin.present.add(0, twin.length)
        twin.settle()
        return twin

    def free_disk(self) -> int:
        """Return the bytes that the disk still has for us."""
        return shutil.disk_usage(self._directory).free
