"""Container files: the bytes of files, one container per version, never changed once a row names it.

A new version goes into a new container, which is synced before the row that names it is committed; the old
one is removed after that commit, while fetches that have it open read on. Containers nobody names are what a
crash left behind.
"""

import errno
import fcntl
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import trio

from realmfs.server.database import sync_directory
from realmfs.vice.errors import CodaError, Code

log = logging.getLogger(__name__)

_FICLONE = 0x40049409
_COPY = 1 << 20
_SYNCS = 8
"""Threads that sync the containers of one batch."""
_RESERVE = 16 << 20
"""Bytes of the disk that are left to the database."""


class Mark(NamedTuple):
    """A place in a container being filled."""

    length: int
    digest: "hashlib._Hash | None"


class Container:
    """A container being filled, in order: a Sink for side effects that counts and digests what comes."""

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self.length = 0
        self.directory = path.parent
        self._path = path
        self._kept = False
        self._digest: hashlib._Hash | None = hashlib.sha1(usedforsecurity=False)
        path.parent.mkdir(exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def sha(self) -> bytes | None:
        """SHA-1 of the contents so far, 20 bytes; None if they came without passing through here."""
        return self._digest.digest() if self._digest else None

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.length += len(data)
        if self._digest:
            self._digest.update(data)

    def clone(self, source: int) -> bool:
        """Share the blocks of the open file `source`; False where the file system cannot."""
        try:
            fcntl.ioctl(self._fd, _FICLONE, source)
        except OSError:
            return False
        self.length, self._digest = os.fstat(self._fd).st_size, None
        return True

    def mark(self) -> "Mark":
        """Return what `cut` needs to come back to the present end."""
        return Mark(self.length, self._digest.copy() if self._digest else None)

    def cut(self, mark: "Mark") -> None:
        """Drop what was written since `mark`."""
        self.length, self._digest = mark
        os.ftruncate(self._fd, self.length)
        os.lseek(self._fd, self.length, os.SEEK_SET)

    def sync(self) -> None:
        """Put the contents on the disk; blocking. Raises OSError."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Give up the file descriptor; the container stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def keep(self) -> None:
        """Say that a row names the container now: leaving the `with` block no longer removes it."""
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept:
            self.close()
        else:
            self.discard()

    def discard(self) -> None:
        """Remove the container, which no row names."""
        self.close()
        self._path.unlink(missing_ok=True)


class Containers:
    """The directory of container files: 256 subdirectories by the last byte of the container's number."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self._next: int | None = None

    def path(self, number: int) -> Path:
        """Return where the container lies."""
        return self._directory / f"{number & 0xFF:02x}" / f"{number:x}"

    def create(self) -> Container:
        """Make an empty container under a number never used before. Raises CodaError ENOSPC."""
        if self._next is None:
            self._next = max(self._present(), default=0) + 1
        if self.space()[0] < _RESERVE:
            raise CodaError(Code.ENOSPC, "the disk of the server is full")
        number = self._next
        self._next += 1
        try:
            return Container(number, self.path(number))
        except OSError as error:
            raise disk_error(error) from error

    def open(self, number: int) -> int:
        """Return a new file descriptor for reading. Raises CodaError EIO if the container is gone."""
        try:
            return os.open(self.path(number), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            log.error("container %x cannot be read: %s", number, error)
            raise CodaError(Code.EIO, "the server has lost the file's contents") from error

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove containers that no row names any more."""
        for number in numbers:
            try:
                self.path(number).unlink(missing_ok=True)
            except OSError as error:
                log.warning("container %x cannot be removed: %s", number, error)

    def remove_all_but(self, named: set[int]) -> int:
        """Remove what a crash left behind; return how many.

        Only for the one process that makes containers.
        """
        present = list(self._present())
        self._next = max([*present, *named], default=0) + 1
        orphans = [number for number in present if number not in named]
        self.remove(orphans)
        return len(orphans)

    def space(self) -> tuple[int, int]:
        """Return the disk's free and total bytes."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize

    def adopt(self, source: Path) -> Container:
        """Copy a file of this machine into a new container, by reflink where the file system can.

        Raises OSError.
        """
        with source.open("rb", buffering=0) as file:
            container = self.create()
            try:
                if not container.clone(file.fileno()):
                    while data := file.read(_COPY):
                        container.write(data)
            except BaseException:
                container.discard()
                raise
        return container

    def _present(self) -> Iterable[int]:
        for group in os.scandir(self._directory):
            for entry in os.scandir(group.path):
                try:
                    yield int(entry.name, 16)
                except ValueError:
                    log.warning("%s is not a container; left alone", entry.path)


async def sync_containers(containers: Iterable[Container]) -> None:
    """Put the contents of new containers, then their names, on the disk. Raises CodaError.

    They are synced side by side: a file system with a journal then has one round to the disk for several.
    Each thread gets its share of them at once, since going to a thread and back costs more than such a sync.
    """
    todo = list(containers)
    directories = {container.directory for container in todo}
    names = [functools.partial(sync_directory, directory) for directory in directories]
    failures: list[OSError] = []

    def in_turn(syncs: Sequence[Callable[[], None]]) -> None:
        try:
            for sync in syncs:
                sync()
        except OSError as error:
            failures.append(error)

    for group in ([container.sync for container in todo], names):
        async with trio.open_nursery() as nursery:
            for share in range(min(_SYNCS, len(group))):
                nursery.start_soon(trio.to_thread.run_sync, in_turn, group[share::_SYNCS])
    if failures:
        raise disk_error(failures[0])


def disk_error(error: OSError) -> CodaError:
    """Return what a client is told about a failure of the server's disk."""
    log.error("the server's disk: %s", error)
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return CodaError(Code.ENOSPC if full else Code.EIO, f"the disk of the server: {error}")
