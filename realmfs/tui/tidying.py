"""When Python looks for garbage: not between a key and its paint.

A tree of ten thousand names and its tables are some hundred thousand objects. A full collection looks at all
of them, for half a second, in which no key is answered; left to itself it comes in the middle of the work,
for that is when objects are made. So full collections wait until nobody has pressed a key for a while, and
what has survived one is not looked at again until the next: the small ones between stay small.
"""

import gc
import time

IDLE = 5.0
"""Seconds without a key or the mouse."""
WORTH = 10
"""Collections of the middle generation since the last full one, below which it is not worth while."""
_THRESHOLDS = (20_000, 20, 100)


class Tidying:
    """Collects when it does not hurt. `begin` and `end` it; `look` now and then, `touched` at each key."""

    def __init__(self) -> None:
        self._before = gc.get_threshold()
        self._touched = time.monotonic()
        self._seen = 0

    def begin(self) -> None:
        """Take over: what the program is made of is not looked at again."""
        gc.set_threshold(*_THRESHOLDS)
        gc.freeze()

    def end(self) -> None:
        """Leave everything as it was."""
        gc.set_threshold(*self._before)
        gc.unfreeze()

    def touched(self) -> None:
        """Somebody is there."""
        self._touched = time.monotonic()

    def look(self) -> bool:
        """Collect if nobody is there and it is worth while; return whether it was done."""
        if time.monotonic() - self._touched < IDLE or _middle() - self._seen < WORTH:
            return False
        self._collect()
        return True

    def _collect(self) -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._seen = _middle()


def _middle() -> int:
    return int(gc.get_stats()[1]["collections"])
