"""Learning what a program needs: the files and directories it opens, from which a hoard profile is proposed.

A session watches the processes of one session or process group (setsid(2)): the command is started as the
leader of one. The kernel asks us about every open, so nothing escapes, whatever it has cached; what a program
only looked at with stat(2) is found with the directories.
"""

import os
from collections import Counter
from dataclasses import dataclass, field

from realmfs.cache.hoard import Expand
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.hoardlanguage import Wish
from realmfs.venus.node import Node
from realmfs.vice.errors import CodaError, Code

PRIORITY = 100
"""Of what is proposed."""
MANY = 8
"""From so many files of one directory on, and half of what it holds, the directory is proposed instead."""
SESSIONS = 8
MOST = 50_000


@dataclass(slots=True)
class Learned:
    """What was opened: numbers of files and directories, in order."""

    files: dict[int, None] = field(default_factory=dict)
    directories: dict[int, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A line for a profile; `files` of `size` bytes were opened that it stands for."""

    path: str
    wish: Wish
    files: int
    size: int


class Learner:
    """Watches opens on behalf of whoever wants to learn from them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sessions: dict[int, Learned] = {}

    def begin(self, group: int) -> None:
        """Watch the processes of a session or group. Raises CodaError EUSERS if too many are watched."""
        if len(self._sessions) >= SESSIONS:
            raise CodaError(Code.EBUSY, f"{SESSIONS} commands are being watched already")
        self._sessions[group] = Learned()

    def end(self, group: int) -> list[Proposal]:
        """Watch no more; return what to hoard. Raises CodaError ESRCH if it was not watched."""
        learned = self._sessions.pop(group, None)
        if learned is None:
            raise CodaError(Code.ENOENT, f"the processes of {group} were not watched")
        return self._propose(learned)

    def opened(self, caller: Caller, node: Node) -> None:
        """Note that a process opened something."""
        if not self._sessions:
            return
        for group in _groups(caller.pid):
            learned = self._sessions.get(group)
            if learned is not None:
                noted = learned.directories if node.is_directory else learned.files
                if len(noted) < MOST:
                    noted[node.ino] = None
                return

    def _propose(self, learned: Learned) -> list[Proposal]:
        """Return lines for a profile: directories of which much was opened, single files of others."""
        files = [node for node in map(self._core.nodes.cached, learned.files) if node is not None]
        per_directory = Counter(node.parent for node in files)
        whole = {parent for parent, count in per_directory.items() if self._mostly(parent, count)}
        proposals = []
        for parent in sorted(whole):
            inside = [node for node in files if node.parent == parent]
            directory = self._core.nodes.cached(parent)
            if directory is not None:
                wish = Wish(PRIORITY, Expand.CHILDREN)
                proposals.append(
                    Proposal(self._core.path(directory), wish, len(inside), sum(map(_size, inside)))
                )
        single = [node for node in files if node.parent not in whole]
        for number in learned.directories:
            node = self._core.nodes.cached(number)
            if node is not None and number not in whole and not per_directory[number]:
                single.append(node)
        proposals += [Proposal(self._core.path(node), Wish(PRIORITY), 1, _size(node)) for node in single]
        return sorted(proposals, key=lambda one: one.path)

    def _mostly(self, parent: int, count: int) -> bool:
        directory = self._core.nodes.cached(parent) if parent else None
        if directory is None or count < MANY:
            return False
        held = len(directory.directory) - 2 if directory.directory is not None else count
        return 2 * count >= held


def _size(node: Node) -> int:
    return node.status.length if node.status is not None else 0


def _groups(pid: int) -> tuple[int, ...]:
    try:
        return os.getsid(pid), os.getpgid(pid)
    except OSError:
        return ()  # it has ended, or lives where we cannot see it
