"""Rates and the time left, from what is left now and then."""

import random

from realmfs.tui.pace import FRESH, WINDOW, Pace
from tests.seeds import first_seed


def test_nothing_moves_nothing_is_said() -> None:
    pace = Pace()
    assert pace.line(0.0) == ""
    for second in range(5):
        pace.note(float(second), 10, 1000)
    assert pace.line(5.0) == ""


def test_records_a_second_and_the_time_left() -> None:
    pace = Pace()
    for second in range(6):
        pace.note(float(second), 2000 - 200 * second, 200000 - 20000 * second)
    assert pace.line(5.0) == "200 records/s · 19.5 KiB/s · 5 s left"
    assert pace.line(5.0 + 2 * WINDOW) != "", "until it is noted again"
    pace.note(6.0 + WINDOW, 1000, 100000)
    assert pace.line(6.0 + WINDOW) == ""


def test_new_changes_do_not_count_backwards() -> None:
    pace = Pace()
    pace.note(0.0, 100, 0)
    pace.note(1.0, 50, 0)
    pace.note(2.0, 150, 0)
    assert pace.line(2.0) == "25 records/s · 6 s left"
    pace.note(3.0, 0, 0)
    assert pace.line(3.0) == ""


def test_a_large_file_on_its_way_counts() -> None:
    pace = Pace()
    pace.note(0.0, 1, 10 << 20)
    pace.note_upload(1.0, {"object": "film", "have": 5 << 20, "size": 10 << 20, "rate": float(1 << 20)})
    assert pace.line(1.0) == "1.0 MiB/s · 5 s left · film 50 %"
    assert pace.line(1.0 + FRESH) == "", "long ago"


def test_it_never_breaks() -> None:
    seed = first_seed()
    print("seed", seed)
    chance = random.Random(seed)
    pace, now = Pace(), 0.0
    for _ in range(500):
        now += chance.random() * 3
        if chance.random() < 0.3:
            size = chance.randrange(100)
            event = {"object": "f", "have": chance.randrange(size + 1), "size": size, "rate": chance.random()}
            pace.note_upload(now, event)
        else:
            pace.note(now, chance.randrange(5), chance.randrange(1000))
        assert "-" not in pace.line(now)
