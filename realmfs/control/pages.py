"""Long lists come in pages, so that none holds the loop: a page has at most `PAGE` entries.

The answer's cursor, given back, continues behind its last entry, also when others have come or gone
meanwhile; none: that was the end. What fills a page lets others run every few entries (`breathe`).
"""

from dataclasses import dataclass

import trio

from realmfs.control.hoardmessages import Cached
from realmfs.control.hoardmessages import Entry as HoardEntry
from realmfs.control.messages import Change, ConflictInfo
from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.control.volumemessages import VolumeInfo

PAGE = 200
_BREATH = 20


@dataclass(frozen=True, slots=True)
class Paged:
    """At most `limit` entries of a list behind `cursor`, which an answer gave; None: from its beginning."""

    cursor: str | None = None
    limit: int = PAGE


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes, volume by volume, in the order in which they were made."""

    entries: list[Change]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ConflictPage:
    """Conflicts, in order of their ids."""

    entries: list[ConflictInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class VolumePage:
    """Volumes."""

    entries: list[VolumeInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class HoardPage:
    """Entries of the hoard database, in order of their ids."""

    entries: list[HoardEntry]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class CachePage:
    """Cached objects, in order of their numbers."""

    entries: list[Cached]
    cursor: str | None


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
