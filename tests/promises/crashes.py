"""`kill -9` at a chosen instant, inside one process.

What a killed process leaves behind is what its files were at that instant, and what it had sent. So at the
crash point the client's directory is copied, its network port goes dumb, and the client is cancelled: what
it still does on its way out nobody will ever see. The next life begins on the copy.

    points    commit     before SQLite's COMMIT        committed  after it
              send       a datagram, lost with us      sent       a datagram that got out
              file       before a change of a container or another file of the cache

The n-th point of one kind is where it happens; kinds are as likely as one another, however often they occur.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from realmfs.cache import container, containers, disk, home
from realmfs.cache.database import Database
from tests.fakenet import Address

KINDS = ("commit", "committed", "send", "sent", "file")
CHANGING = frozenset(
    {"pwrite", "ftruncate", "open", "unlink", "rename", "replace", "fdatasync", "fsync", "mkdir"}
)


class CrashPoints:
    """Counts the points of a client and makes it crash at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.host = ""
        self.directory = Path()
        self.happened = False
        self.copy = Path()
        self.scope: trio.CancelScope | None = None
        """What waits for the client and must end with it."""
        self.killed: Callable[[], None] = lambda: None
        self.kind = ""
        """The kind of point where it last crashed."""
        self._armed: tuple[str, int] | None = None
        self._lives = 0
        self._hook_commits(patch)
        for module in (container, containers, disk, home):
            patch.setattr(module, "os", _WatchedOs(self))

    def arm(self, kind: str, after: int) -> None:
        """Crash at a point of this kind, after so many others of it."""
        self._armed = kind, after

    def disarm(self) -> None:
        """Crash no more."""
        self._armed = None

    def watch(self, host: str, directory: Path) -> None:
        """Begin a life: a client at this host on this directory."""
        self.host, self.directory, self.happened = host, directory, False

    def reached(self, kind: str) -> bool:
        """Pass a point; true if it was the last one."""
        if self._armed is None or self._armed[0] != kind or self.happened:
            return False
        self._armed = kind, self._armed[1] - 1
        if self._armed[1] >= 0:
            return False
        self._armed, self.kind = None, kind
        self.crash()
        return True

    def crash(self) -> None:
        """Die now."""
        self._lives += 1
        self.happened = True
        self.copy = self.directory.with_name(f"{self.directory.name.split('-')[0]}-{self._lives}")
        shutil.copytree(self.directory, self.copy, ignore=shutil.ignore_patterns("*-shm"))
        self.killed()
        if self.scope is not None:
            self.scope.cancel()

    def tap(self, datagram: bytes, sender: Address, receiver: Address) -> bool:
        """See every datagram of the network; false loses it."""
        if self.host not in (sender[0], receiver[0]):
            return True
        if self.happened:
            return False
        if sender[0] == self.host:
            if self.reached("send"):
                return False
            self.reached("sent")
        return True

    def _hook_commits(self, patch: pytest.MonkeyPatch) -> None:
        commit = Database._commit

        def watched(database: Database) -> None:
            mine = self.directory in database.path.parents
            if mine:
                self.reached("commit")
            commit(database)
            if mine:
                self.reached("committed")

        patch.setattr(Database, "_commit", watched)


class _WatchedOs(ModuleType):
    """The module `os`, whose changing functions are crash points."""

    def __init__(self, points: CrashPoints) -> None:
        super().__init__("os")
        self._points = points

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGING:
            return real

        def watched(*arguments: Any, **options: Any) -> Any:
            self._points.reached("file")
            return real(*arguments, **options)

        return watched
