"""Which range of a large file is fetched next, and which goes when there is no room for it.

A large file comes in runs, each of one version (the servers compare it first). Between two runs the fetch
turns to where somebody waits:

    ├████████████───────────────────────────░░░░────┤
     there       └─ the fetch was here       └─ a reader waits: the next run starts here

Runs are short at first and grow while nobody waits elsewhere, so that a turn takes no longer than one of
them. A file of moderate size is *streamed*: when nobody waits the gaps are filled, in order from where the
fetch is. Of a *partial* file only what is wanted comes, and what follows while somebody reads in order.
"""

from realmfs.cache.container import Container
from realmfs.cache.extents import Extents

FIRST = 512 << 10
"""Bytes of the first run, and of one after a turn."""
LONGEST = 4 << 20
CHUNK = 32 << 10
"""Runs start at multiples of it (`cachechunkblocksize`, client.md §5)."""
AHEAD = 16 << 20
"""Bytes that come ahead of who reads a partial file in order."""


class Course:
    """The runs of one fetch into a container. `partial`: bring only what is wanted."""

    def __init__(self, content: Container, *, partial: bool) -> None:
        self._content = content
        self._partial = partial
        self._at = 0
        self._size = FIRST

    def next(self) -> tuple[int, int] | None:
        """Return the next range to fetch, all of it absent; None if nothing more is wanted."""
        content = self._content
        length = content.length
        wishes = sorted(content.waited, key=lambda wish: wish[1] - wish[0])
        for start, stop in wishes:
            hole = next(content.present.holes(start, min(stop, length)), None)
            if hole is not None:
                return self._run(hole[0])
        if self._partial:
            stop = min(content.position + AHEAD, length)
            start = min(self._at, stop)
            if not content.position <= start or not self._in_order():
                return None
            hole = next(content.present.holes(start, stop), None)
        else:
            hole = next(content.present.holes(min(self._at, length), length), None)
            hole = hole or next(content.present.holes(0, length), None)
        return self._run(hole[0]) if hole is not None else None

    def _in_order(self) -> bool:
        """Tell whether what was read last follows on something that is here, by more than one run."""
        start = max(0, self._content.position - 2 * FIRST)
        return self._content.present.covers(start, min(self._content.position, self._content.length))

    def _run(self, start: int) -> tuple[int, int]:
        """Return the run for a hole beginning at `start`, a longer one if it goes on where the last ended."""
        content = self._content
        self._size = min(2 * self._size, LONGEST) if start == self._at and start else FIRST
        aligned = start - start % CHUNK
        if next(content.present.holes(aligned, start), (start, start)) == (aligned, start):
            start = aligned
        _, stop = next(content.present.holes(start, min(start + self._size, content.length)))
        self._at = stop
        return start, stop


def expendable(content: Container, size: int, run: tuple[int, int]) -> list[tuple[int, int]]:
    """Choose about `size` bytes of a partial file to give up for `run`: first what lies farthest behind it.

    What a reader waits for is not among them. An empty list: there is nothing.
    """
    free = Extents(*content.present)
    for start, stop in content.waited:
        free.remove(start, stop)
    behind = [(start, min(stop, run[0])) for start, stop in free if start < run[0]]
    after = [(max(start, run[1]), stop) for start, stop in free if stop > run[1]]
    chosen: list[tuple[int, int]] = []
    for start, stop in behind:
        taken = min(size, stop - start)
        if taken > 0:
            chosen.append((start, start + taken))
            size -= taken
    for start, stop in reversed(after):
        taken = min(size, stop - start)
        if taken > 0:
            chosen.append((stop - taken, stop))
            size -= taken
    return chosen
