"""The cache directory: private, marked as a cache, held by one process, with some disk kept back.

    <cache>/CACHEDIR.TAG   backup programs leave the directory out
    <cache>/lock           held (flock) by the daemon; its pid is inside
    <cache>/cache.db       the database, and its -wal and -shm
    <cache>/containers/    contents of files
    <cache>/reserve        64 MiB of nothing, given up when the disk is full
    <cache>/reserve.last   4 MiB of nothing, given up when not even the log can be sent

The reserve makes data meet a full disk before the modify log does: once it is given up, containers may not
grow until it can be had again, so that the space goes to the log. To send the log takes some room, too. For
that is the last reserve: while it is given up no change is taken in, and what has been sent makes room again.
"""

import contextlib
import errno
import fcntl
import logging
import os
from pathlib import Path

from realmfs.cache.errors import CacheFull, CacheInUse

logger = logging.getLogger(__name__)

_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This directory holds a cache of the Coda file system, and changes not yet sent to its servers.
# See https://bford.info/cachedir/ about this file.
"""


class Home:
    """The locked directory. Raises CacheInUse; OSError if it cannot be made or is another user's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "cache.db"
        self.containers = directory / "containers"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"the cache directory {directory} belongs to another user")
        directory.chmod(0o700)
        self._lock = _take(directory / "lock", directory)
        tag = directory / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_bytes(_TAG)
        self.containers.mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Let others have the directory. Again: nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _take(path: Path, directory: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).strip()
        os.close(descriptor)
        raise CacheInUse(directory, int(holder) if holder.isdigit() else None) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


class Reserve:
    """A file of `size` bytes that only takes up room.

    `held`: whether it does; without it no data may be added.
    """

    def __init__(self, path: Path, size: int, purpose: str = "the modify log") -> None:
        self._path = path
        self._size = size
        self._purpose = purpose
        self.held = False
        self.restore()

    def release(self) -> bool:
        """Give the space up. True if that freed any."""
        if not self._size or not self.held:
            return False
        self.held = False
        self._path.unlink(missing_ok=True)
        logger.warning(
            "the disk of %s is full: its reserve is given up for %s", self._path.parent, self._purpose
        )
        return True

    def restore(self) -> bool:
        """Take the space again if the disk has twice as much free. True if it is held."""
        if not self.held:
            self.held = self._size == 0 or self._allocate()
        return self.held

    def _allocate(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size == self._size:
                return True
            if self.disk_free() < 2 * self._size:
                return False
            os.posix_fallocate(descriptor, 0, self._size)
            return True
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)

    def missing(self) -> str:
        """Say for people what it means that the space is not held."""
        return (
            f"the disk of {self._path.parent} has {self.disk_free() >> 20} MiB free: no file contents are"
            f" taken in before there are {2 * self._size >> 20} MiB"
        )

    def shortage(self) -> int:
        """Return how many bytes must come free before the space can be taken again."""
        return 0 if self.held else max(2 * self._size - self.disk_free(), 0)

    def disk_free(self) -> int:
        """Bytes that the disk has for us."""
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def watch(self, *, last: bool = False) -> None:
        """Give up or take back the reserve by what the disk has free. Called now and then; raises nothing.

        The `last` reserve is given up to who needs it only.
        """
        try:
            if not last and self.held and self._size and self.disk_free() < self._size // 4:
                self.release()
            elif not self.held:
                self.restore()
        except OSError as error:  # it is only looked after: what was just committed stands
            logger.error("cannot look after the reserve of %s: %s", self._path.parent, error)

    def check(self) -> None:
        """Raise CacheFull if no data may be added."""
        if not self.held:
            raise CacheFull(f"the disk of {self._path.parent} is full")
