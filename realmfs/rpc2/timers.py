"""Deadlines of many connections in one heap.

A connection moves its deadline with every packet, nearly always further away. So an entry stays in the heap
when its owner's deadline moves back: it is looked at when it comes up, and put in again if it was early.
Only a deadline that moves forward costs a new entry; what it replaces is known by its time and thrown away.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from math import inf


class Timed(ABC):
    """Something with a deadline."""

    __slots__ = ("deadline", "queued")

    def __init__(self) -> None:
        self.deadline = inf
        self.queued = inf
        """Time of this owner's one valid entry in the heap."""

    @abstractmethod
    def on_timer(self, now: float) -> None:
        """Act: the deadline has passed. Sets the next one, if any."""


class TimerHeap:
    """All deadlines of an endpoint."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._count = 0

    def set(self, timed: Timed, when: float) -> None:
        """Give a deadline, or with `inf` take it away."""
        timed.deadline = when
        if when < timed.queued:
            self._push(timed, when)

    def next(self) -> float:
        """Return when to look again, `inf` if never. It may be earlier than any true deadline."""
        return self._heap[0][0] if self._heap else inf

    def expire(self, now: float) -> None:
        """Run everything that is due; a deadline set meanwhile waits for the next time, even a past one."""
        due: list[Timed] = []
        while self._heap and self._heap[0][0] <= now:
            when, _, timed = heapq.heappop(self._heap)
            if when == timed.queued:
                timed.queued = inf
                due.append(timed)
        for timed in due:
            if timed.deadline <= now:
                timed.deadline = inf
                timed.on_timer(now)
            elif timed.deadline < timed.queued:
                self._push(timed, timed.deadline)

    def _push(self, timed: Timed, when: float) -> None:
        self._count += 1
        timed.queued = when
        heapq.heappush(self._heap, (when, self._count, timed))
