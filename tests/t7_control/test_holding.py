"""No method of the control socket holds the loop: an instrument counts the processor time of each step."""

import gc
import time

import pytest
import trio

from tests.t7_control.conftest import Control

LIMIT = 0.010
ENTRIES = 10_000


class Holding(trio.abc.Instrument):
    """Notes the longest step of a task whose name holds `of`, in seconds of this thread's processor time."""

    def __init__(self, of: str) -> None:
        self.longest = 0.0
        self.name = ""
        self.steps = 0
        self._of = of
        self._begun: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._begun is None or self._of not in task.name:
            return  # the step that added the instrument, or not of those watched: the test is a client itself
        self.steps += 1
        took = time.thread_time() - self._begun
        if took > self.longest:
            self.longest, self.name = took, task.name


async def test_the_instrument_sees_who_holds_the_loop() -> None:
    async def hold() -> None:
        end = time.thread_time() + 2 * LIMIT
        while time.thread_time() < end:
            pass

    holding = Holding("hold")
    trio.lowlevel.add_instrument(holding)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
    trio.lowlevel.remove_instrument(holding)
    assert holding.longest >= LIMIT
    assert "hold" in holding.name


@pytest.mark.parametrize("limit", [50, 1000])
async def test_a_large_directory_is_listed_in_pages_without_holding_the_loop(
    control: Control, limit: int
) -> None:
    line = await control.connect()
    await line.call("path.mkdir", path="d")
    for number in range(ENTRIES):
        await line.call("path.mkdir", path=f"d/{number}")
    gc.collect()
    gc.freeze()  # the collector shall not look through what the test has made
    holding = Holding("realmfs.control.server")
    names: list[str] = []
    position: int | None = 0
    trio.lowlevel.add_instrument(holding)
    while position is not None:
        answer = await line.call("path.list", path="d", position=position, limit=limit)
        names += [entry["name"] for entry in answer["result"]["entries"]]
        position = answer["result"]["position"]
    trio.lowlevel.remove_instrument(holding)
    gc.unfreeze()
    assert len(set(names)) == len(names) == ENTRIES
    assert holding.steps >= ENTRIES // 256
    assert holding.longest < LIMIT, f"{holding.name} held the loop for {holding.longest * 1000:.1f} ms"
