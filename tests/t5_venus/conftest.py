"""Threads do their work at once: while one is busy, trio's autojump clock would jump."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio

T = TypeVar("T")


async def _at_once(work: Callable[..., T], *args: Any, **options: Any) -> T:
    await trio.lowlevel.checkpoint()
    return work(*args)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what would go to a thread in the task itself."""
    monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)
