"""Containers: the contents of cached files, one plain file each, or in the database.

Theory
------
Small contents that come whole are kept in their row (`hold`): to make, sync and delete a file costs more than
all else that is done for them. Such a container is clean and never changes; who wants to write gets a file
(`fork`). All others have a file, and what follows is about those.

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

What was read lately stays open without anybody (`_spare`): what is opened again and again needs neither row
nor path. These are whole, clean and have a row; that they are dropped with it is all there is to see to.

Ids are not reused while the program runs; `open` gives everyone the same `Container`, which lives until the
last user has closed it, also after its row is gone: who opened a file goes on reading what he opened.
"""

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from realmfs.cache import disk
from realmfs.cache.container import Container, ContainerSink
from realmfs.cache.database import Database
from realmfs.cache.errors import ContainerLost
from realmfs.cache.extents import Extents

__all__ = ["Container", "ContainerSink", "Containers", "Grave"]

logger = logging.getLogger(__name__)

INLINE = 16 << 10
"""Bytes of the largest contents that are kept in the database."""
SPARE = 64
"""Containers that stay open without anybody."""
COPY_INLINE = 1 << 20
"""Bytes that are copied without a thread: about half a millisecond."""


class Grave(NamedTuple):
    """A file, or a range of one, to delete once the write-ahead log is synced."""

    container: int
    start: int = 0
    stop: int | None = None
    """None: the whole file goes."""


class _Spare(NamedTuple):
    """What stays open: a descriptor, or the contents themselves (then -1)."""

    descriptor: int
    length: int
    inline: bytes | None


class Containers:
    """All containers. `used` bytes count against the limit."""

    def __init__(self, database: Database, directory: Path, allow_growth: Callable[[], None]) -> None:
        self._database = database
        self._directory = directory
        self._allow_growth = allow_growth
        self._open: dict[int, Container] = {}
        self._spare: OrderedDict[int, _Spare] = OrderedDict()
        self._graves: list[Grave] = []
        self.reload()

    def allow_growth(self) -> None:
        """Raise CacheFull if the disk has no room for data (the reserve is given up)."""
        self._allow_growth()

    def at_end(self, act: Callable[[], None]) -> None:
        """Call `act` when no transaction is open."""
        self._database.at_end(act)

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
        return Path(self._place(container))

    def _place(self, container: int) -> str:
        """Return the same as text: making a Path costs as much as opening the file."""
        return f"{self._directory}/{container & 0xFF:02x}/{container:x}"

    def create(self, length: int = 0, *, reserve: int = 0) -> Container:
        """Make a container of `length` bytes, none of them present, with `reserve` bytes counted ahead."""
        self.allow_growth()
        number = self._next
        self._next += 1
        path = self._place(number)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.mkdir(os.path.dirname(path), 0o700)
            descriptor = os.open(path, flags, 0o600)
        if length:
            os.ftruncate(descriptor, length)
        container = Container(self, number, descriptor, length, Extents())
        container.reserve(reserve)
        self._open[number] = container
        return container

    def hold(self, data: bytes) -> Container:
        """Make a container of contents that are whole; to be attached at once.

        CacheFull without the disk reserve, OSError(ENOSPC) on a full disk.
        """
        if len(data) > INLINE:
            container = self.create(reserve=len(data))
            try:
                container.write(0, data)
            except BaseException:
                container.close()
                raise
            container.settle()
            return container
        self.allow_growth()
        number = self._next
        self._next += 1
        container = self._open[number] = self._of_row(number, data)
        return container

    def _of_row(self, number: int, data: bytes) -> Container:
        return Container(self, number, -1, len(data), Extents((0, len(data))), data)

    def open(self, number: int) -> Container:
        """Open a container that has a row. ContainerLost if its file is not what the row says."""
        if known := self._open.get(number):
            return known.share()
        if (spare := self._spare.pop(number, None)) and self._is_sound(spare):
            descriptor, length, inline = spare
            self.used -= length
            container = Container(self, number, descriptor, length, Extents((0, length)), inline)
            container.saved, container.saved_size = True, length
            self._open[number] = container
            return container
        return self._open_anew(number)

    def _is_sound(self, spare: _Spare) -> bool:
        if spare.inline is not None:
            return True
        found = os.fstat(spare.descriptor)
        if found.st_size == spare.length and found.st_nlink:
            return True
        os.close(spare.descriptor)
        return False

    def _open_anew(self, number: int) -> Container:
        row = self._database.row(
            "SELECT length, bytes, present, writing, logged, data FROM container WHERE id = ?", (number,)
        )
        if row is None:
            raise ContainerLost(number, "is not known")
        length, size, present, writing, logged, data = row
        if data is not None:
            self.used -= size
            container = self._open[number] = self._of_row(number, data)
            container.saved, container.saved_size = True, size
            return container
        try:
            descriptor = os.open(self._place(number), os.O_RDWR | os.O_CLOEXEC)
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
        container.saved_size = size
        self._open[number] = container
        return container

    def is_whole(self, number: int) -> bool:
        """Tell whether a container that has a row is complete, without opening its file."""
        if known := self._open.get(number):
            return known.whole
        return (
            self._database.row("SELECT 1 FROM container WHERE id = ? AND present IS NULL", (number,))
            is not None
        )

    def forget(self, container: Container, descriptor: int) -> None:
        """Called by a container whose last user has left: its row counts for it again."""
        number, length = container.id, container.length
        del self._open[number]
        released = not container.counted
        container.uncount()
        clean = container.saved and not released and not container.writing and not container.logged
        if clean and container.whole and container.saved_size == length:
            self.used += length
            self._spare[number] = _Spare(descriptor, length, container.inline)
            if len(self._spare) > SPARE:
                self._drop_spare(next(iter(self._spare)))
            return
        if descriptor >= 0:
            os.close(descriptor)
        if container.saved:
            self.used += self._database.value("SELECT bytes FROM container WHERE id = ?", (number,)) or 0
        elif container.inline is None:
            self._remove(number)

    def _drop_spare(self, number: int) -> None:
        spare = self._spare.pop(number, None)
        if spare is not None and spare.inline is None:
            os.close(spare.descriptor)

    def close(self) -> None:
        """Close what nobody uses."""
        while self._spare:
            self._drop_spare(next(iter(self._spare)))

    def save(self, container: Container) -> None:
        """Write the row of an open container, as it is now. Inside a transaction."""
        if container.inline is not None:
            self._save_inline(container)
            return
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
        if container.saved_size != container.present.total:
            self._database.on_rollback(partial(setattr, container, "saved_size", container.saved_size))
            container.saved_size = container.present.total

    def _save_inline(self, container: Container) -> None:
        if container.saved:
            return
        self._database.write(
            "INSERT INTO container (id, length, bytes, present, writing, logged, synced, data)"
            " VALUES (?1, ?2, ?2, NULL, 0, 0, 1, ?3)",
            (container.id, container.length, container.inline),
        )
        container.saved, container.saved_size = True, container.length
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
        query = "SELECT bytes, logged, data IS NOT NULL FROM container WHERE id = ?"
        row = self._database.row(query, (number,))
        if row is None:
            return
        self._database.write("DELETE FROM container WHERE id = ?", (number,))
        self._drop_spare(number)
        size, logged, inline = row
        if container := self._open.get(number):
            container.uncount()
            self._database.on_rollback(container.recount)
        else:
            self.used -= size
            self._database.on_rollback(lambda: self._give_back(size))
        if logged:
            self._database.on_commit(lambda: self._graves.append(Grave(number)))
        elif not inline:
            self._database.on_commit(lambda: self._remove(number))

    def _give_back(self, size: int) -> None:
        self.used += size

    def _remove(self, number: int) -> None:
        try:
            os.unlink(self._place(number))
        except FileNotFoundError:
            pass
        except OSError as error:  # the commit stands; the next start sweeps what belongs to nothing
            logger.error("cannot delete container %x: %s", number, error)

    def discard(self, container: Container, start: int, stop: int) -> None:
        """Forget a range of a clean container. Inside a transaction.

        Its blocks go when the write-ahead log is synced, so that no row calls bytes present that are not.
        """
        container.forget_range(start, stop)
        self.save(container)
        self._database.on_rollback(lambda: container.remember_range(start, stop))
        self._database.on_commit(lambda: self._graves.append(Grave(container.id, start, stop)))

    @property
    def graves(self) -> list[Grave]:
        """What waits for the write-ahead log to be synced."""
        return self._graves.copy()

    def bury(self, graves: list[Grave]) -> None:
        """Delete what waited: the write-ahead log is on the disk."""
        for grave in graves:
            self._graves.remove(grave)
            if grave.stop is None:
                self._remove(grave.container)
                continue
            with contextlib.suppress(ContainerLost), self.open(grave.container) as container:
                for hole in list(container.present.holes(grave.start, grave.stop)):  # not what came back
                    disk.punch(container.fd, *hole)

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
            if source.inline is not None:
                twin.write(0, source.inline)
            elif not disk.clone(source.fd, twin.fd):
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
