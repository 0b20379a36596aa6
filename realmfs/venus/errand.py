"""On whose behalf work is done: for a user who waits, or on an errand nobody waits for.

A context variable, because work is handed from task to task (flights.py), and each inherits it. It decides
two things: what may be replaced to make room for the result, and whether the use of an object counts as one.
A hoard walk that looks at every object must not make them all look popular.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from realmfs.cache.replacement import STANDARD

_errand: ContextVar[int | None] = ContextVar("errand", default=None)


def waited_for() -> bool:
    """Tell whether somebody waits for this work."""
    return _errand.get() is None


def urgency() -> int:
    """Return the priority of what is being brought: only what has less is replaced for it."""
    priority = _errand.get()
    return STANDARD if priority is None else priority


@contextmanager
def errand(priority: int) -> Iterator[None]:
    """Do what is inside, and the work it starts, unasked; what it brings has this priority."""
    token = _errand.set(priority)
    try:
        yield
    finally:
        _errand.reset(token)
