"""Threads do their work at once: while one is busy, trio's autojump clock would take the world for idle and jump."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest
import trio

P = ParamSpec("P")
T = TypeVar("T")


async def _at_once(work: Callable[P, T], *args: P.args, **options: object) -> T:
    await trio.lowlevel.checkpoint()
    return work(*args)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what would go to a thread in the task itself."""
    monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)
