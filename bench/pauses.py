"""How long replacement in a cache of 100 000 objects keeps everybody else waiting, at the longest.

    python -m bench.pauses [--directories 1000]

Everything that can wait takes turns on one thread, so what counts is the longest step between two pauses. The
cache is filled, then its limits are lowered three times (to three quarters, to half, to a hundredth) and kept
by the cache manager's own steps; beside it single objects are brought into the full cache. Of each kind of
step the longest and the mean are printed, in processor time: what other programs take does not count.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import bigcache, machine
from realmfs.cache.cache import Cache
from realmfs.cache.limits import Limits
from realmfs.cache.replacement import Evicted

PAUSE = 0.050
"""Seconds that a step may take."""
SINGLE = 500


class Steps:
    """The steps of one kind."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seconds: list[float] = []

    def take(self, work: Callable[[], Evicted]) -> Evicted:
        """Do and time one step."""
        start = time.thread_time()
        try:
            return work()
        finally:
            self._seconds.append(time.thread_time() - start)

    @property
    def longest(self) -> float:
        return max(self._seconds)

    def __str__(self) -> str:
        mean = sum(self._seconds) / len(self._seconds)
        times = f"mean {mean * 1e3:.1f} ms, longest {self.longest * 1e3:.1f} ms"
        return f"{self._what}: {len(self._seconds)} steps, {times}"


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="realmfs-pauses-") as name:
        room = Path(name)
        about = machine.describe(room)
        objects = bigcache.fill(room / "cache", room / "state", options.directories)
        kinds = _measure(room / "cache", objects)
        about["load_after"] = os.getloadavg()[0]
    print(machine.sentence(about))
    print(f"{objects} objects", *kinds, sep="\n")
    return 0 if max(kind.longest for kind in kinds) < PAUSE else 1


def _measure(directory: Path, objects: int) -> list[Steps]:
    lowered, single = Steps("limits lowered"), Steps("one object more")
    full = Limits.for_size(bigcache.CACHE_SIZE, reserve=0)
    with Cache(directory, full) as cache:
        for part in (0.75, 0.5, 0.01):
            most = int(objects * part)
            cache.change_limits(Limits(full.bytes, most, full.log_records, reserve=0))
            while lowered.take(cache.replacement.trim).more:
                pass
            count = cache.objects.count
            cache.change_limits(Limits(full.bytes, count, full.log_records, reserve=0))
            for more in range(min(SINGLE, count // 2)):
                single.take(functools.partial(cache.replacement.make_room, objects=more + 1))
    return [lowered, single]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pauses", description=__doc__)
    parser.add_argument("--directories", type=int, default=1000, help="of 99 files each")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
