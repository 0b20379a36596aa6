"""Lists that are made whole, and told page by page."""

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from realmfs.control.hoard import HoardMethods
from realmfs.control.messages.hoard import Add, Limited
from realmfs.control.messages.pages import PAGE, Paged
from realmfs.control.pages import Lists
from realmfs.control.protocol import ControlError
from tests.t5_venus.conftest import no_threads
from tests.t5_venus.world import REALM, world

__all__ = ["no_threads"]


def rest_of(lists: Lists[int], cursor: str | None, limit: int) -> list[int]:
    found: list[int] = []
    while cursor is not None:
        page, cursor = lists.go_on(cursor, limit)
        assert 0 < len(page) <= min(max(limit, 1), PAGE)
        found += page
    return found


@given(length=st.integers(0, 1000), limit=st.integers(-1, 300))
def test_the_pages_are_the_list(length: int, limit: int) -> None:
    lists: Lists[int] = Lists()
    first, cursor = lists.begin(range(length), limit)
    assert len(first) <= min(max(limit, 1), PAGE)
    assert first + rest_of(lists, cursor, limit) == list(range(length))


def test_each_list_is_told_as_it_was_and_the_oldest_are_forgotten() -> None:
    lists: Lists[int] = Lists()
    cursors = [lists.begin(range(100 * number, 100 * number + 30), 10)[1] for number in range(5)]
    for _ in range(100):
        assert lists.begin(range(10), 10)[1] is None, "what is told at once is not kept"
    for number, cursor in enumerate(cursors[1:], 1):
        assert rest_of(lists, cursor, 10) == list(range(100 * number + 10, 100 * number + 30))
        assert rest_of(lists, cursor, 15) == list(range(100 * number + 10, 100 * number + 30)), "once more"
    assert cursors[0] is not None
    with pytest.raises(ControlError, match="not kept"):
        lists.go_on(cursors[0])


@pytest.mark.parametrize("cursor", ["", "1", "1.2.3", "1.x", "99.0", "1.-1", "1.10"])
def test_made_up_cursors_are_refused_or_lead_to_nothing(cursor: str) -> None:
    lists: Lists[int] = Lists()
    lists.begin(range(5), 1)
    if cursor == "1.10":
        assert lists.go_on(cursor) == ([], None)
    else:
        with pytest.raises(ControlError):
            lists.go_on(cursor)


async def test_what_is_missing_and_planned_comes_in_pages(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.mkdir(f"/{REALM}/d")
        for number in range(PAGE + 10):
            await a.write(f"/{REALM}/d/{number}", b"x")
        await a.drained()
        hoard = HoardMethods(b.venus)
        await hoard.add(Add(f"{REALM}/d", "600:d+"))
        told, plan = await hoard.verify(Limited()), await hoard.plan(Limited())
        for begun, cursor in ((told.problems, told.cursor), (plan.fetch, plan.fetch_cursor)):
            assert len(begun) == PAGE
            rest = await hoard.problems(Paged(cursor))
            assert rest.cursor is None
            paths = {one.path.lstrip("/") for one in [*begun, *rest.entries]}
            assert {f"{REALM}/d/{number}" for number in range(PAGE + 10)} <= paths
            assert len(paths) == told.count == plan.fetched.files
        last = await hoard.problems(Paged(limit=PAGE))
        assert last.entries == told.problems, "without a cursor it tells of the last survey"
