"""Programs that read whatever they see: desktop indexers, makers of thumbnails. Nothing is fetched for them.

They are told EAGAIN for what is not cached; what is cached they may read like anybody.
"""

from realmfs.venus.face import Caller
from realmfs.vice.errors import CodaError, Code


class QuietPrograms:
    """Knows programs by their names in /proc/<pid>/comm (at most 15 bytes)."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = frozenset(name[:15] for name in names)

    def check(self, caller: Caller) -> None:
        """Refuse a fetch for such a program. Raises CodaError EAGAIN."""
        if self._names and caller.pid and _name_of(caller.pid) in self._names:
            raise CodaError(Code.EAGAIN, "not fetched for this program")


def _name_of(pid: int) -> str:
    """Return the name of a process; '' if it is gone or not ours to see."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""
