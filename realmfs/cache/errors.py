"""What the cache can refuse, as `OSError`s: their `errno` is what the user gets to see."""

# ruff: noqa: N818  # the names say what is the matter, and all are errors by base class

import errno
from dataclasses import dataclass
from pathlib import Path


class CacheError(OSError):
    """Any refusal of the cache."""


class CacheInUse(CacheError):
    """Another process holds the cache directory."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(
            errno.EBUSY,
            f"the cache {directory} is in use by {who}: stop it with `realmfs unmount`,"
            " or name another --cache-dir",
        )
        self.pid = pid


class CacheFull(CacheError):
    """Nothing can be freed for this request.

    Data, objects, log records or the disk itself are at their limit.
    """

    def __init__(self, what: str) -> None:
        super().__init__(errno.ENOSPC, what)


class CacheReadOnly(CacheError):
    """The database is damaged, so nothing may be changed."""

    def __init__(self, damage: "Damage") -> None:
        super().__init__(errno.EROFS, str(damage))


class CacheDamaged(CacheError):
    """A read or write met a damaged page of the database; from now on the cache is read-only."""

    def __init__(self, damage: "Damage") -> None:
        super().__init__(errno.EIO, str(damage))


class CacheTooNew(CacheError):
    """A later version of realmfs has written this cache."""

    def __init__(self, path: Path, version: int, known: int) -> None:
        super().__init__(
            errno.EINVAL,
            f"{path} has schema version {version}, this program knows {known}: use a newer realmfs,"
            " or another --cache-dir",
        )


class ContainerLost(CacheError):
    """A container file is missing or has the wrong length: what it held must be fetched again."""

    def __init__(self, container: int, why: str) -> None:
        super().__init__(errno.EIO, f"container {container:x} {why}")
        self.container = container


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged database, for the daemon to show.

    The file, what SQLite says, and whether anything is readable.
    """

    path: Path
    what: str
    readable: bool

    def __str__(self) -> str:
        rest = "opened read-only" if self.readable else "nothing in it can be read"
        return f"the cache database {self.path} is damaged ({self.what}); {rest}"
