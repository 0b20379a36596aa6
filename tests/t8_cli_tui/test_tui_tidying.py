"""That garbage is not looked for between a key and its paint."""

import gc
from collections.abc import Iterator

import pytest

from realmfs.tui import tidying
from realmfs.tui.tidying import Tidying


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tidying]:
    monkeypatch.setattr("realmfs.tui.tidying.time.monotonic", lambda: now[0])
    now[0] = 100.0
    made = Tidying()
    yield made
    made.end()


now = [100.0]


def test_a_full_collection_waits_until_nobody_is_there(
    tidy: Tidying, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = [0]
    monkeypatch.setattr(tidying, "_middle", lambda: middle[0])
    tidy.begin()
    middle[0] = tidying.WORTH
    tidy.touched()
    assert not tidy.look(), "a key was pressed just now"
    now[0] += tidying.IDLE
    assert tidy.look()
    assert not tidy.look(), "nothing has been made since"
    middle[0] += tidying.WORTH
    assert tidy.look()


def test_what_survives_is_not_looked_at_again_and_rings_go_in_the_end(tidy: Tidying) -> None:
    class Ring:
        def __init__(self) -> None:
            self.me = self

    def rings() -> int:
        gc.collect(0)
        return sum(type(each) is Ring for each in gc.get_objects())

    before = gc.get_threshold()
    tidy.begin()
    assert gc.get_threshold()[0] > before[0]
    frozen = gc.get_freeze_count()
    assert frozen > 10_000
    keep = [Ring() for _ in range(100)]
    tidy._collect()
    assert gc.get_freeze_count() >= frozen
    keep.clear()
    tidy._collect()
    gc.unfreeze()
    assert rings() == 0
    tidy.end()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
