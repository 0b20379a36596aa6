"""A station of the tour: two clients write to one file, one of them off line; both versions are kept."""

import difflib
import time
from collections.abc import Callable

from realmfs.cli.stage import Player, StageError
from realmfs.cli.trees import Tree

_WITHIN = 60.0
_PLAN = "work/plan.txt"
_COMMON = b"Monday: pack\nTuesday: travel\n"
_OURS = b"Monday: pack\nTuesday: travel by train\n"
_THEIRS = b"Monday: pack the tent\nTuesday: travel\n"


def disagree(alice: Player, here: Tree, bob: Player, there: Tree, say: Callable[[str], None]) -> None:
    """Let alice, off line, and bob write to one file, and alice keep both. Raises StageError."""
    here.write(_PLAN, _COMMON)
    _until(lambda: not alice.pending(), "the file was not sent")
    _until(lambda: "plan.txt" in there.names("work") and there.read(_PLAN) == _COMMON, "bob does not see it")
    with alice.client() as daemon:
        daemon.call("connection.disconnect", realm=None)
        here.write(_PLAN, _OURS)
        here.write("work/other.txt", b"not in the way of anybody\n")
        there.write(_PLAN, _THEIRS)
        _until(lambda: not bob.pending(), "bob's change was not sent")
        daemon.call("connection.reconnect", realm=None)
        _until(lambda: any(daemon.pages("conflicts.list")), "the conflict was not found")
        (conflict,) = daemon.pages("conflicts.list")
        say(f"   alice, off line, and bob have written to /{conflict['path']}: {conflict['reason']}")
        _until(lambda: "other.txt" in there.names("work"), "the conflict holds other changes back")
        say("   her other changes were sent; in the tree the name is now a directory with both versions:")
        versions = [one["name"] for one in daemon.call("conflicts.show", id=conflict["id"])["versions"]]
        say(f"     work/plan.txt/ {'  '.join(versions)}")
        contents = [here.read(f"{_PLAN}/{name}").decode().splitlines() for name in versions]
        for line in list(difflib.unified_diff(contents[0], contents[1], lineterm=""))[3:]:
            say(f"       {line}")
        settled = daemon.call("conflicts.settle", id=conflict["id"], keep="both")
        if settled["kind"] != "no" or any(daemon.pages("conflicts.list")):
            raise StageError("the conflict is not settled")
        (name,) = settled["names"]
    _until(lambda: name in there.names("work"), "bob does not see what alice has kept")
    if there.read(_PLAN) != _THEIRS or there.read(f"work/{name}") != _OURS or here.read(_PLAN) != _THEIRS:
        raise StageError("somebody's version was lost")
    say(f"   kept both: bob's is work/plan.txt for both of them, hers is beside it as work/{name}")


def _until(true: Callable[[], bool], otherwise: str) -> None:
    limit = time.monotonic() + _WITHIN
    while not true():
        if time.monotonic() > limit:
            raise StageError(otherwise)
        time.sleep(0.05)
