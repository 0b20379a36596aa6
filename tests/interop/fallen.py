"""Real servers that ended by a fault of their own, found and started again.

One of them ends in an assertion of its timers now and then (`timer.c:205: TM_Remove`,
docs/reference/protocol-notes.md), mostly when clients are restarted and servers cut off from each other. A
test that does much of that waits with `eventually`: an administrator would start the server again, too, and
nothing that a client relies on is lost by it. Each time is printed.
"""

import time
from collections.abc import Callable, Iterable

from bench.rig import Rig, succeeds

NUMBERS = (1, 2, 3)
_LOOK_EVERY = 2.0


def start_fallen(rig: Rig, among: Iterable[int] = NUMBERS) -> list[int]:
    """Start each of these servers again whose process is gone; return their numbers."""
    fallen = [number for number in among if not succeeds(rig, f"s{number}", "pidof", "codasrv")]
    for number in fallen:
        rig.control("server", str(number), "start")
        print(f"s{number} had ended by itself and was started again")
    return fallen


def eventually(rig: Rig, condition: Callable[[], bool], within: float) -> float:
    """Return how many seconds it takes until `condition()`.

    More than `within`, counted anew when a server had to be started again, fails the test.
    """
    start = begun = looked = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - looked > _LOOK_EVERY:
            begun = now if start_fallen(rig) else begun
            looked = time.monotonic()
        assert now - begun < within, f"not within {within} s"
        time.sleep(0.02)
    return time.monotonic() - start
