"""The disk answers at once: a clock that jumps must not jump while a thread waits for it."""

from collections.abc import Callable
from typing import Any

import pytest
import trio


@pytest.fixture(autouse=True)
def disk_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what the server gives to threads, syncing files, in the task that asks for it."""

    async def run_here(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)
