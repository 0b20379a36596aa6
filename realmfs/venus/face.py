"""The face of the cache manager: what the kernel's side and the control socket ask of it.

`FileSystem` is implemented by `Venus`, and in the tests of the upper rings by a small object in memory.
Shared rules:

* Errors are `CodaError` only; its `errno` goes to the caller. A call that raised has not been applied.
* Every call ends within `patience`; the work behind it may run on detached. Only a call whose data advances
  may go on longer.
* Names, symlink texts and attribute names are bytes as the kernel gives them. Inode 1 is `/coda` itself.
* Lookup counts: each `Attr` that `lookup`, `create`, `mkdir`, `symlink` and `link` return counts one lookup
  of its inode, and so does each `remember(ino)` for a directory entry that was handed to the kernel.
  `forget(ino, n)` takes n back. Whoever asks must give back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

ROOT_INODE = 1
FOREIGN_INODES = 3 << 61
"""From here on numbers belong to whoever stands between the kernel and the cache manager.

Objects count from 1; bit 62 and the number of an object is the directory that shows it in conflict.
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: local user and group numbers, and the process.

    `kernel`: the kernel asks and so knows what it changed itself; for any other door it must be told.
    """

    uid: int
    gid: int
    pid: int
    kernel: bool = True


class Attr(NamedTuple):
    """An object's attributes as the kernel wants them.

    `ino` 0 in an answer to `lookup` means "no such name, and you may remember that". `mode` holds type and
    permission bits; `size` is in bytes, `blocks` in 512 bytes; times are nanoseconds since 1970; the two
    time-outs are seconds for which the kernel may trust the name and the attributes without asking again.
    """

    ino: int
    mode: int
    links: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    blocks: int
    entry_timeout: float
    attr_timeout: float


class Opened(NamedTuple):
    """An open file or directory: a handle never used before here, and whether the kernel's old pages hold.

    `contents`: all of a small file that nobody else has open and of which the kernel has no pages.
    """

    handle: int
    keep_cache: bool
    contents: bytes | None = None


class Entry(NamedTuple):
    """A directory entry: `attr` is None where the status is not known here (nobody waits for it).

    `position` resumes the listing after this entry; it is positive, and names neither shift nor repeat when
    others come or go.
    """

    name: bytes
    ino: int
    attr: Attr | None
    position: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What setattr shall change; None leaves a field alone. Times in nanoseconds."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """statfs: total and free, in bytes and in objects."""

    bytes_total: int
    bytes_free: int
    objects_total: int
    objects_free: int


class KernelNotifier(Protocol):
    """Tells the kernel what it must forget. Both calls only queue: make them anywhere on the trio thread."""

    def invalidate_inode(self, ino: int, attr_only: bool) -> None:
        """Attributes of `ino` changed; unless `attr_only` its pages as well."""

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """The name in that directory no longer means what it did."""


class FileSystem(Protocol):
    """The calls. `flags` are those of open(2); a handle is what open, create or opendir returned."""

    async def lookup(self, caller: Caller, parent: int, name: bytes) -> Attr: ...
    def remember(self, ino: int) -> None: ...
    def forget(self, ino: int, count: int) -> None: ...
    async def getattr(self, caller: Caller, ino: int) -> Attr: ...
    async def setattr(
        self, caller: Caller, ino: int, changes: Changes, handle: int | None = None
    ) -> Attr: ...
    async def access(self, caller: Caller, ino: int, mask: int) -> bool: ...
    async def readlink(self, caller: Caller, ino: int) -> bytes: ...
    async def opendir(self, caller: Caller, ino: int) -> Opened: ...
    async def readdir(self, handle: int, position: int, limit: int = 256) -> Sequence[Entry]:
        """Return at most `limit` entries after `position` (0: the start), without `.` and `..`.

        Waits for no status. Empty at the end.
        """
        ...

    async def releasedir(self, handle: int) -> None: ...
    async def open(self, caller: Caller, ino: int, flags: int) -> Opened: ...
    async def create(
        self, caller: Caller, parent: int, name: bytes, mode: int, flags: int
    ) -> tuple[Opened, Attr]: ...
    async def read(self, handle: int, offset: int, size: int) -> bytes | memoryview: ...
    async def write(self, handle: int, offset: int, data: bytes) -> int: ...
    async def flush(self, handle: int) -> None: ...
    async def fsync(self, handle: int, data_only: bool) -> None: ...
    async def fsyncdir(self, handle: int) -> None: ...
    async def release(self, handle: int) -> None: ...
    async def mkdir(self, caller: Caller, parent: int, name: bytes, mode: int) -> Attr: ...
    async def symlink(self, caller: Caller, parent: int, name: bytes, target: bytes) -> Attr: ...
    async def link(self, caller: Caller, ino: int, parent: int, name: bytes) -> Attr: ...
    async def unlink(self, caller: Caller, parent: int, name: bytes) -> None: ...
    async def rmdir(self, caller: Caller, parent: int, name: bytes) -> None: ...
    async def rename(
        self, caller: Caller, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """`flags` are RENAME_NOREPLACE (1) and RENAME_EXCHANGE (2) of renameat2(2)."""

    async def statfs(self, caller: Caller) -> Space: ...
    async def getxattr(self, caller: Caller, ino: int, name: bytes) -> bytes: ...
    async def setxattr(self, caller: Caller, ino: int, name: bytes, value: bytes) -> None: ...
    async def removexattr(self, caller: Caller, ino: int, name: bytes) -> None: ...
    async def listxattr(self, caller: Caller, ino: int) -> Sequence[bytes]: ...
