"""Lists come in pages, so that none holds the loop: a page has at most `PAGE` entries.

The answer's cursor, given back, continues behind its last entry, also when others have come or gone
meanwhile; none: that was the end. What fills a page lets others run every few entries (`breathe`).

There are two kinds. What has an order of its own, by number, is read from there for each page, and the cursor
is the last number. What is made whole (a survey, the servers) is kept as it was for as long as somebody may
still be turning its pages (`Lists`), and the cursor says which list, and how far.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

import trio

from realmfs.control.messages.pages import PAGE
from realmfs.control.protocol import INVALID_PARAMS, ControlError

T = TypeVar("T")

_BREATH = 20
_KEPT = 4


class Lists(Generic[T]):
    """Lists that were made whole, each told to its end as it was. The last few are kept."""

    def __init__(self) -> None:
        self._kept: dict[int, Sequence[T]] = {}
        self._last = 0

    def begin(self, entries: Sequence[T], limit: int = PAGE) -> tuple[list[T], str | None]:
        """Return the first page of a list that nobody changes any more, and the cursor of the rest."""
        self._last += 1
        self._kept[self._last] = entries
        page, cursor = self._page(self._last, 0, limit)
        if cursor is None:
            del self._kept[self._last]
        elif len(self._kept) > _KEPT:
            del self._kept[min(self._kept)]
        return page, cursor

    def go_on(self, cursor: str, limit: int = PAGE) -> tuple[list[T], str | None]:
        """Return the page at a cursor, and the next one. Raises ControlError."""
        which, place = numbers_of(cursor, 2)
        if which not in self._kept or place < 0:
            text = "this list is not kept any more: others were asked for since. Begin it without a cursor"
            raise ControlError(INVALID_PARAMS, text)
        return self._page(which, place, limit)

    def _page(self, which: int, place: int, limit: int) -> tuple[list[T], str | None]:
        entries, end = self._kept[which], place + size_of(limit)
        return list(entries[place:end]), f"{which}.{end}" if end < len(entries) else None


def numbers_of(cursor: str | None, count: int = 1) -> tuple[int, ...]:
    """Return what a cursor of so many numbers says; zeros for the beginning. Raises ControlError."""
    if cursor is None:
        return (0,) * count
    try:
        numbers = tuple(int(part) for part in cursor.split("."))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) < 1 << 62 for number in numbers):
        raise ControlError(INVALID_PARAMS, "this cursor is none of ours. Begin the list without one")
    return numbers


def size_of(limit: int) -> int:
    """Return how many entries a page shall have."""
    return max(1, min(limit, PAGE))


async def breathe(count: int) -> None:
    """Let others run after every few of `count` entries."""
    if count % _BREATH == 0:
        await trio.lowlevel.checkpoint()
