"""The world most tests of this ring live in; its clock jumps, so waiting costs nothing."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from realmfs.vice.tokens import ClearToken, Token
from tests.t3_realms.world import World, world


def _run_jumping(main: Any, clock: Any = None, instruments: Any = ()) -> Any:
    return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the clock jump in all tests in this world.

    `autojump_clock` works for a test's own arguments only.
    """
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=_run_jumping), append=False)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
def token() -> Token:
    """A token for an hour, of no meaning to anybody."""
    now = int(time.time())
    return Token(ClearToken(b"handshak", 1001, now - 900, now + 3600), bytes(range(56)))
