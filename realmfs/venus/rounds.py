"""Trying again what others disturb: at once a few times, then with growing pauses, for most of the patience.

A directory may change between the question about its version and its contents, because another client works
in it, or because servers make their replicas equal after our own changes: reference servers do so for each
directory in which files were stored, and break every promise for it (reintegration.md §2.7). The next answer
a little later is good.
"""

import trio

AT_ONCE = 3
PART_OF_PATIENCE = 0.8  # the rest is for what comes after
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5


class Rounds:
    """`while await rounds.another(): ...`; `patience` in seconds is that of the whole call."""

    def __init__(self, patience: float) -> None:
        self._end = trio.current_time() + PART_OF_PATIENCE * patience
        self._count = 0
        self._pause = FIRST_PAUSE

    async def another(self) -> bool:
        """Tell whether to try (again), after a pause if it was tried often."""
        self._count += 1
        if self._count <= AT_ONCE:
            return True
        if trio.current_time() + self._pause > self._end:
            return False
        await trio.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True
