"""Telling the kernel what it must forget, without ever waiting for it on the trio thread.

Theory. A notification can block inside the kernel: for a name, until requests under way in that directory
are answered; for an inode, until pages are unlocked that a read under way has locked. Those answers come
from our own trio thread. So a notification made there, or waited for by a handler, is a deadlock, and

1. `invalidate_*` only put into a queue, and never wait;
2. worker tasks take from the queue and make the kernel's calls in threads, which nobody waits for but they;
3. no request waits for a notification. Thus each request under way ends, and each notification after it.

There are several workers, since one may hang behind a request that waits for a server as long as patience
lasts.

The queue is bounded because it holds each inode and each name once: repeated invalidations melt into one
that covers both, in any order, as they only make the kernel ask again. If even so it grows beyond its limit
(a reconnection that finds a hundred thousand names changed), names give way to their directory's inode.
Then the kernel asks again for the directory, and for each name there after its time-out.
"""

import errno
import itertools
import logging
import math
from collections.abc import Callable, Sequence

import trio

log = logging.getLogger(__name__)

_LIMIT = 200_000
_WORKERS = 4
_BATCH = 64
_HARMLESS = (
    errno.ENOENT,  # the kernel does not know it (any more): nothing to forget
    errno.ENOTDIR,  # the directory's number has become something else
    errno.ENOTEMPTY,
    errno.EBUSY,  # another file system is mounted there
    errno.ENOTCONN,  # the session ends
    errno.ENODEV,
    errno.ECONNABORTED,
    errno.EBADF,
)

Inode = tuple[int]
Name = tuple[int, bytes]


class Notifier:
    """The queue and its workers; a `KernelNotifier` for the cache manager."""

    def __init__(
        self,
        tell_inode: Callable[[int, bool], object],
        tell_entry: Callable[[int, bytes], object],
        *,
        limit: int = _LIMIT,
    ) -> None:
        """`tell_inode(ino, attr_only)` and `tell_entry(parent, name)` call the kernel; made in threads."""
        self._tell_inode = tell_inode
        self._tell_entry = tell_entry
        self._limit = limit
        self._waiting: dict[Inode | Name, bool] = {}  # value: attributes only
        self._filled = trio.Event()
        self._busy = 0
        self.told = 0
        self.overflows = 0

    def outstanding(self) -> int:
        """Return how many notifications wait or are being made."""
        return len(self._waiting) + self._busy

    def invalidate_inode(self, ino: int, attr_only: bool) -> None:
        """Queue: attributes (and pages) of `ino` are out of date."""
        self._waiting[(ino,)] = attr_only and self._waiting.get((ino,), True)
        self._filled.set()

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Queue: `name` in `parent` is out of date."""
        if len(self._waiting) < self._limit:
            self._waiting[(parent, name)] = False
            self._filled.set()
            return
        self.overflows += 1
        self.invalidate_inode(parent, False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work the queue off for ever."""
        limiter = trio.CapacityLimiter(_WORKERS)
        async with trio.open_nursery() as nursery:
            for _ in range(_WORKERS):
                nursery.start_soon(self._work, limiter)
            task_status.started()

    async def _work(self, limiter: trio.CapacityLimiter) -> None:
        while True:
            while not self._waiting:
                self._filled = trio.Event() if self._filled.is_set() else self._filled
                await self._filled.wait()
            batch = self._take()
            self._busy += len(batch)
            try:
                # Abandoned at the end: a thread may be stuck until the connection is cut.
                await trio.to_thread.run_sync(self._tell, batch, limiter=limiter, abandon_on_cancel=True)
            finally:
                self._busy -= len(batch)

    def _take(self) -> list[tuple[Inode | Name, bool]]:
        """Share what waits among the workers, so that few notifications never stand behind one another."""
        count = min(_BATCH, math.ceil(len(self._waiting) / _WORKERS))
        return [(key, self._waiting.pop(key)) for key in list(itertools.islice(self._waiting, count))]

    def _tell(self, batch: Sequence[tuple[Inode | Name, bool]]) -> None:
        for key, attr_only in batch:
            try:
                if len(key) == 1:
                    self._tell_inode(key[0], attr_only)
                else:
                    self._tell_entry(key[0], key[1])
            except OSError as error:
                if error.errno not in _HARMLESS:
                    log.warning("the kernel refused to forget %s: %s", key, error.strerror)
            except Exception:
                log.exception("could not tell the kernel to forget %s", key)
            self.told += 1
