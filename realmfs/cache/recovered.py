"""Contents saved from a crash: kept until the user takes or discards them, never sent by themselves."""

import enum
import time
from dataclasses import dataclass

from realmfs.cache.containers import Containers
from realmfs.cache.database import Database


class Why(enum.IntEnum):
    """Why a copy was kept."""

    OPEN_AT_CRASH = 1
    """The file was open for writing; later writes than its last close or fsync are in it."""
    DAMAGED_BY_POWER_LOSS = 2
    """A pending store whose contents did not all reach the disk."""


@dataclass(frozen=True, slots=True)
class RecoveredCopy:
    """What was saved, and the object that it was written to."""

    id: int
    container: int
    """0 = nothing of it was left; the entry only names the loss."""
    number: int
    name: bytes
    why: Why
    time: int


class Recovered:
    """The table of recovered copies."""

    def __init__(self, database: Database, containers: Containers) -> None:
        self._database = database
        self._containers = containers

    def all(self) -> list[RecoveredCopy]:
        """Return all copies, oldest first."""
        rows = self._database.rows("SELECT id, container, number, name, why, time FROM recovered ORDER BY id")
        return [RecoveredCopy(row[0], row[1], row[2], row[3], Why(row[4]), row[5]) for row in rows]

    def keep(self, container: int, number: int, why: Why) -> RecoveredCopy:
        """Make a container a recovered copy of an object's contents. Inside a transaction."""
        name = self._database.value("SELECT name FROM object WHERE number = ?", (number,)) or b""
        now = int(time.time())
        self._database.write(
            "INSERT INTO recovered (container, number, name, why, time) VALUES (?, ?, ?, ?, ?)",
            (container, number, name, why, now),
        )
        self._database.write("UPDATE container SET writing = 0, logged = 1 WHERE id = ?", (container,))
        return RecoveredCopy(
            self._database.value("SELECT last_insert_rowid()"), container, number, name, why, now
        )

    def discard(self, copy: RecoveredCopy) -> None:
        """Delete a copy: the user has it elsewhere or does not want it. Inside a transaction."""
        self._database.write("DELETE FROM recovered WHERE id = ?", (copy.id,))
        self._containers.release(copy.container)
