"""How much the cache may hold."""

import math
from dataclasses import dataclass
from typing import Self

MARGIN = 16
"""One part in so many is kept free for requests of high priority (client.md §6)."""
RESERVE = 64 << 20
"""Bytes of disk kept back so that data meets a full disk before the modify log does."""

LAST = 16
"""One part in so many of the reserve is kept back again, for sending the log from a disk without room."""
LEAST_LAST = 256 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a cache. `reserve` is the size of the disk reserve; 0 = none (tests)."""

    bytes: int
    """Of file contents, including partial files and copies frozen for the modify log."""
    objects: int
    """Files, directories and symlinks with status."""
    log_records: int
    """Pending changes of all volumes together."""
    reserve: int = RESERVE

    @property
    def last_reserve(self) -> int:
        """The size of what is kept back for sending the log."""
        return max(self.reserve // LAST, LEAST_LAST) if self.reserve else 0

    @classmethod
    def for_size(cls, size: int, reserve: int = RESERVE) -> Self:
        """Return the customary limits of a cache for `size` bytes: 20 MB gives 971 objects (client.md §6)."""
        objects = max(85, int(24200 * math.log(size / 1024 / 500000 + 1)))
        return cls(size, objects, 4 * objects, reserve)
