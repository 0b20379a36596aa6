"""A station of the tour: disconnect, work on, see what waits, reconnect, watch it go."""

import time
from collections.abc import Callable

from realmfs.cli.stage import Player, StageError
from realmfs.cli.trees import Tree
from realmfs.control.words import size

_DRAINED_WITHIN = 60.0
_FILES = 20


def work_offline(alice: Player, here: Tree, there: Tree, say: Callable[[str], None]) -> None:
    """Let alice work off line in `here`; `there` is what another client sees. Raises StageError."""
    with alice.client() as daemon:
        daemon.call("connection.disconnect", realm=None)
        here.mkdir("travel")
        for number in range(_FILES):
            here.write(f"travel/page-{number:02}", b"a first draft\n")
            here.write(f"travel/page-{number:02}", b"written on the way\n" * number)
        here.rename("travel/page-00", "travel/cover")
        for number in range(_FILES // 2, _FILES):
            here.remove(f"travel/page-{number:02}")
        wanted = here.names("travel")
        say(f"   off line: wrote {_FILES} files twice, renamed one, removed half")
        if "travel" in there.names(""):
            raise StageError("what was done off line is seen by the other client")
        changes = list(daemon.pages("changes.list"))
        say(f"   {len(changes)} changes wait; what cancelled out is not among them. The last ones:")
        for change in changes[-3:]:
            say(f"     {change['what']:8} {change['path']:24} {size(change['size'])}")
        start = time.monotonic()
        daemon.call("connection.reconnect", realm=None)
        while alice.pending():
            if time.monotonic() - start > _DRAINED_WITHIN:
                raise StageError(f"{alice.pending()} changes still wait")
            time.sleep(0.02)
        say(f"   on line again: all of it was sent after {time.monotonic() - start:.2f} s")
    while there.names("travel" if "travel" in there.names("") else "") != wanted:
        if time.monotonic() - start > _DRAINED_WITHIN:
            raise StageError("the other client sees something else")
        time.sleep(0.05)
    say(f"   the other client sees travel/ with {len(wanted)} files")
