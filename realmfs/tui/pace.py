"""How fast the log drains and how long it will take, from what is left now and then.

What is left goes down when records are confirmed and up when new ones are made; only the decreases count. A
large file counts while it is on its way, by the progress that the daemon tells of it.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from realmfs.control.words import age, size

WINDOW = 10.0
"""Seconds over which rates are taken."""
FRESH = 5.0
"""Seconds for which the progress of a file is believed."""


class Pace:
    """Takes notes, and says it in a line."""

    def __init__(self) -> None:
        self._left: tuple[int, int] | None = None
        self._sent: deque[tuple[float, int, int]] = deque()
        self._upload: tuple[float, Mapping[str, Any]] | None = None

    def note(self, now: float, records: int, data: int) -> None:
        """Take in that so many records and bytes are left."""
        before = self._left or (records, data)
        self._left = records, data
        self._sent.append((now, max(0, before[0] - records), max(0, before[1] - data)))
        while self._sent and self._sent[0][0] <= now - WINDOW:
            self._sent.popleft()
        if not records:
            self._sent.clear()
            self._upload = None

    def note_upload(self, now: float, event: Mapping[str, Any]) -> None:
        """Take in the event StoreProgress: `object`, `have` of `size` bytes, `rate`."""
        self._upload = now, event

    def line(self, now: float) -> str:
        """Return rate, time left and the file on its way; "" if nothing moves."""
        parts = []
        records, data = self._rates(now)
        upload = self._upload[1] if self._upload is not None and now - self._upload[0] < FRESH else None
        if upload is not None:
            data = max(data, float(upload["rate"]))
        if records > 0:
            parts.append(f"{records:.0f} records/s" if records >= 1 else "sending")
        if data > 0:
            parts.append(f"{size(data)}/s")
        left = self._seconds_left(records, data, int(upload["have"]) if upload is not None else 0)
        if left is not None:
            parts.append(f"{age(left)} left")
        if upload is not None and upload["size"]:
            parts.append(f"{upload['object']} {100 * upload['have'] // upload['size']} %")
        return " · ".join(parts)

    def _rates(self, now: float) -> tuple[float, float]:
        if len(self._sent) < 2:
            return 0.0, 0.0
        spent = max(now - self._sent[0][0], 1.0)
        gone = list(self._sent)[1:]
        return sum(each[1] for each in gone) / spent, sum(each[2] for each in gone) / spent

    def _seconds_left(self, records: float, data: float, have: int) -> float | None:
        """The slower of both: small records cost calls, large ones bytes."""
        if self._left is None:
            return None
        times = []
        if records > 0:
            times.append(self._left[0] / records)
        if data > 0:
            times.append(max(0, self._left[1] - have) / data)
        return max(times, default=None)
