"""Runs that happen again exactly: what is left to chance comes from one seed.

    with repeatable(seed):
        trio.run(..., clock=MockClock(autojump_threshold=0))

trio shuffles the tasks that are ready, clients and servers draw identities and pauses; each shuffle and each
draw decides who is first. What remains is the order of sets: `PYTHONHASHSEED=0` fixes that of strings, as
`make test` and `make soak` do; that of objects, which is by their address, has little to say.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import trio

EPOCH = 1_800_000_000


class _Drawn(random.Random):
    """A generator that was given no seed has one all the same."""

    chance = random.Random(0)

    def __new__(cls, *seed: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, seed: Any = None) -> None:
        super().__init__(_Drawn.chance.getrandbits(64) if seed is None else seed)


def _now() -> float:
    """Return the time of day as the clock of the run has it."""
    return EPOCH + trio.current_time()


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Draw every random number of this process from one generator until the end of the block."""
    chance = random.Random(seed)
    saved = random.getstate()
    random.seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Drawn, "chance", chance)
        patch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr(trio._core._run, "_r", random.Random(seed))
        patch.setattr(random, "Random", _Drawn)
        patch.setattr(random, "_urandom", chance.randbytes)
        patch.setattr(os, "urandom", chance.randbytes)
        for module in [one for name, one in sys.modules.items() if name.startswith("realmfs")]:
            if getattr(module, "time", None) is time.time:
                patch.setattr(module, "time", _now)
        patch.setattr(time, "time", _now)
        try:
            yield
        finally:
            random.setstate(saved)
