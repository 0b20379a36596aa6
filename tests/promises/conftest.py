"""What the tests of the promises share: no threads under the autojump clock, mounts where they work."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from realmfs.fuse.mountpoint import obstacle

T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = obstacle()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if reason is not None and "kernel" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))
        if "slow" in item.keywords and not os.environ.get("REALMFS_SLOW"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run `make soak`"))


async def _at_once(work: Callable[..., T], *args: Any, **options: Any) -> T:
    await trio.lowlevel.checkpoint()
    return work(*args)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Run what would go to a thread in the task itself: while one is busy, the autojump clock would jump."""
    if "kernel" not in request.keywords:
        monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)
