"""Deadlines that move: each fires once, at the first look after its time, and the heap does not fill up."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.timers import Timed, TimerHeap


class Alarm(Timed):
    def __init__(self) -> None:
        super().__init__()
        self.rung: list[float] = []

    def on_timer(self, now: float) -> None:
        self.rung.append(now)


STEPS = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 3), st.one_of(st.integers(0, 50), st.just(None))),
    st.tuples(st.just("pass"), st.integers(0, 20), st.none()),
)


@given(st.lists(STEPS, max_size=60))
def test_against_a_plain_table(steps: list[tuple[str, int, int | None]]) -> None:
    heap, now = TimerHeap(), 0.0
    alarms = [Alarm() for _ in range(4)]
    deadlines = [inf] * 4
    rung: list[list[float]] = [[] for _ in range(4)]
    for kind, value, distance in steps:
        if kind == "set":
            deadlines[value] = inf if distance is None else now + distance
            heap.set(alarms[value], deadlines[value])
            continue
        now += value
        for index, deadline in enumerate(deadlines):
            if deadline <= now:
                rung[index].append(now)
                deadlines[index] = inf
        heap.expire(now)
        assert [alarm.rung for alarm in alarms] == rung
        assert heap.next() <= min(deadlines)


def test_moving_a_deadline_away_costs_no_entry() -> None:
    heap, alarm = TimerHeap(), Alarm()
    for n in range(1000):
        heap.set(alarm, 10.0 + n)
    assert len(heap._heap) == 1
    heap.expire(500.0)
    assert (alarm.rung, heap.next()) == ([], 1009.0)


def test_an_alarm_that_sets_itself_in_the_past_does_not_spin() -> None:
    class Hasty(Alarm):
        def on_timer(self, now: float) -> None:
            super().on_timer(now)
            heap.set(self, now - 1)

    heap, alarm = TimerHeap(), Hasty()
    heap.set(alarm, 1.0)
    heap.expire(2.0)
    assert alarm.rung == [2.0]
    assert heap.next() == 1.0
