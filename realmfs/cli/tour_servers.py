"""The station of the tour where servers die: work goes on, and who comes back catches up."""

import os
import time
from collections.abc import Callable

from realmfs.cli.stage import SERVERS, Player, Stage, StageError
from realmfs.cli.trees import Tree

_WITHIN = 40.0
_SIZE = 1 << 20


def lose_a_server(stage: Stage, player: Player, tree: Tree, say: Callable[[str], None]) -> None:
    """Kill server 1, write, bring it back, and read from it alone what it has missed."""
    stage.wait_until_filled()
    stage.kill_server(1)
    data = os.urandom(_SIZE)
    start = time.monotonic()
    tree.write("work/without-the-first", data)
    _wait(lambda: not player.pending(), "the change still waits")
    say(f"   server 1 is killed; a file of 1 MB is written and sent to the others: {_since(start)}")
    stage.start_server(1)
    start = time.monotonic()
    _wait(lambda: stage.holds(1, "without-the-first", _SIZE), "server 1 has not caught up")
    say(f"   server 1 is back, and has what it missed after {_since(start)}")
    if any(not stage.holds(number, "without-the-first", _SIZE) for number in range(1, SERVERS + 1)):
        raise StageError("the servers differ")
    say(f"   all {SERVERS} servers hold the same")


def _since(start: float) -> str:
    return f"{time.monotonic() - start:.2f} s"


def _wait(true: Callable[[], bool], trouble: str) -> None:
    limit = time.monotonic() + _WITHIN
    while not true():
        if time.monotonic() > limit:
            raise StageError(f"{trouble} after {_WITHIN:.0f} s")
        time.sleep(0.05)
