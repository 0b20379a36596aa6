"""What the last run left behind when it did not stop cleanly.

In this order, in one transaction, before anyone uses the cache:

1. After power loss (another boot id) stores that were not yet safe are compared with their length and
   digest. One that differs, or whose digest was not yet known, is not what was acknowledged: its record
   goes, what is there is kept as a recovered copy, and the damage is named. Only changes of the last few
   seconds can be unsafe.
2. Containers that were being written hold what nobody has acknowledged: recovered copies. Their objects go
   back to their previous contents. A copy equal to those is no loss and goes.
3. Clean contents that are missing, or after power loss were never synced, are forgotten; they can be
   fetched again. (Those in the database are there if their row is.)
4. Objects without status (runts) go. Containers that nothing refers to go, and then all files without a row.
5. Dirty marks follow from the log again. (Granted fids are gone by themselves, see volumes.py.)

Writes alone do not change the status of an object on the disk, but a change of its mode or name made while it
was being written saves the length of that moment: in 2 the length becomes that of the previous contents. In 1
it is that of the store before. In both it is 0 if the file was made here; otherwise only a server knows. Then
an object of 1 goes, unless other changes of it are pending. `Findings.changed` names all objects of 1 and 2.
"""

import filecmp
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from realmfs.cache.containers import Containers
from realmfs.cache.database import Database
from realmfs.cache.log import LogEntry, ModifyLog, Role
from realmfs.cache.objects import Objects
from realmfs.cache.recovered import Recovered, RecoveredCopy, Why

_CREATE = 1  # opcode of a Create record (reintegration.md §1.1)


@dataclass(slots=True)
class Findings:
    """What a start after a crash found; all empty after a clean stop."""

    clean: bool = True
    power_lost: bool = False
    copies: list[RecoveredCopy] = field(default_factory=list)
    lost_stores: list[RecoveredCopy] = field(default_factory=list)
    """Of the copies, those that stand for a pending store that is no longer pending."""
    changed: list[int] = field(default_factory=list)
    """Inode numbers of objects that are not as they were."""
    dropped: int = 0
    """Clean contents to be fetched again."""
    orphans: int = 0
    """Files deleted that belonged to nothing."""


class Recovery:
    """One recovery: make it, `run` it inside a transaction, then `sweep`."""

    def __init__(
        self,
        database: Database,
        containers: Containers,
        objects: Objects,
        log: ModifyLog,
        recovered: Recovered,
        *,
        power_lost: bool,
    ) -> None:
        self._database = database
        self._containers = containers
        self._objects = objects
        self._log = log
        self._recovered = recovered
        self._files = set(containers.files())
        self.findings = Findings(clean=False, power_lost=power_lost)

    def run(self) -> None:
        """Bring the tables in order."""
        for entry, number in list(self._stores()):
            if not self._sound(entry):
                self._lose(entry, number)
        for (container,) in self._database.rows("SELECT id FROM container WHERE writing = 1"):
            self._save_unfinished(container)
        self._forget_clean()
        for (number,) in self._database.rows("SELECT number FROM object WHERE status IS NULL"):
            self._objects.drop(number)
        self._forget_unused()
        self._mark_dirty()

    def sweep(self) -> None:
        """Delete the files that have no row, and count again: after the commit."""
        self._containers.reload()
        known = {container for (container,) in self._database.rows("SELECT id FROM container")}
        for container in self._files - known - {grave.container for grave in self._containers.graves}:
            self._containers.path(container).unlink(missing_ok=True)
            self.findings.orphans += 1

    # -- 1: stores of the log ----------------------------------------------------------------------------

    def _stores(self) -> Iterator[tuple[LogEntry, int]]:
        """Yield the stores, oldest first, with the number of the file."""
        for volume in self._log.volumes():
            for entry in self._log.entries(volume):
                if entry.container is not None:
                    yield entry, next(number for number, role in entry.about if role & Role.OBJECT)

    def _sound(self, entry: LogEntry) -> bool:
        """Are these the contents that were acknowledged?"""
        assert entry.container is not None
        path = self._containers.path(entry.container)
        if entry.container not in self._files or path.stat().st_size != entry.length:
            return False
        if entry.safe or not self.findings.power_lost:
            return True
        return entry.digest is not None and _digest(path) == entry.digest

    def _lose(self, entry: LogEntry, number: int) -> None:
        container = entry.container or 0
        self._fit_row(container)
        if container not in self._files:
            container = 0
        copy = self._recovered.keep(container, number, Why.DAMAGED_BY_POWER_LOSS)
        self.findings.copies.append(copy)
        self.findings.lost_stores.append(copy)
        clean = number in self._log.remove([entry])
        self._fall_back(number, entry.container)
        self._correct_length(number, clean)

    def _correct_length(self, number: int, clean: bool) -> None:
        row = self._objects.load(number)
        if row is None or row.status is None:
            return
        before, made_here = self._last_store(number)
        if before is not None or made_here:
            length = 0 if before is None else before.length
            self._objects.update(number, status=replace(row.status, length=length))
        elif clean:
            self._objects.update(number, status=None)  # a runt now

    def _fall_back(self, number: int, container: int | None) -> None:
        """Where an object has this container, give it that of its last store instead, or none."""
        self.findings.changed.append(number)
        last, _ = self._last_store(number)
        good = None if last is None else last.container
        for column in ("container", "previous"):
            query = f"UPDATE object SET {column} = ? WHERE number = ? AND {column} = ?"
            self._database.write(query, (good, number, container))
        if container is not None:
            self._containers.release(container)

    def _last_store(self, number: int) -> tuple[LogEntry | None, bool]:
        """Return the newest store of a file in the log, and whether the file was made in this log."""
        entries = [entry for entry, role in self._log.about(number) if role & Role.OBJECT]
        store = next((entry for entry in entries if entry.container is not None), None)
        return store, any(entry.opcode == _CREATE for entry in entries)

    # -- 2: containers that were being written -----------------------------------------------------------

    def _save_unfinished(self, container: int) -> None:
        row = self._database.row("SELECT number, previous FROM object WHERE container = ?", (container,))
        if row is None:
            return  # goes with the unused
        number, previous = row
        self._fit_row(container)
        if container in self._files and not self._equal(container, previous):
            self.findings.copies.append(self._recovered.keep(container, number, Why.OPEN_AT_CRASH))
        self.findings.changed.append(number)
        self._objects.take_back(number)
        self._restore_length(number, previous)

    def _restore_length(self, number: int, previous: int | None) -> None:
        row = self._objects.load(number)
        length = 0
        if previous is not None:
            length = self._database.value("SELECT length FROM container WHERE id = ?", (previous,))
        elif not self._last_store(number)[1]:
            return  # only a server knows
        if row is not None and row.status is not None and row.status.length != length:
            self._objects.update(number, status=replace(row.status, length=length))

    def _equal(self, container: int, previous: int | None) -> bool:
        """Does the container hold what was acknowledged? Nothing, where there was nothing."""
        path = self._containers.path(container)
        data = self._database.value("SELECT data FROM container WHERE id = ?", (previous,))
        if data is not None:
            return path.stat().st_size == len(data) and path.read_bytes() == data
        if previous is None or previous not in self._files:
            return path.stat().st_size == 0
        return filecmp.cmp(path, self._containers.path(previous), shallow=False)

    def _fit_row(self, container: int) -> None:
        """Make a container's row agree with its file."""
        if container in self._files:
            size = self._containers.path(container).stat().st_size
            query = "UPDATE container SET length = ?1, bytes = ?1, present = NULL WHERE id = ?2"
            self._database.write(query, (size, container))

    # -- 3 to 5 ------------------------------------------------------------------------------------------

    def _forget_clean(self) -> None:
        query = (
            "SELECT o.number, c.id FROM object AS o JOIN container AS c ON c.id = o.container"
            " WHERE c.writing = 0 AND c.data IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM log WHERE log.container = c.id)"
        )
        unsynced = {number for (number,) in self._database.rows("SELECT id FROM container WHERE synced = 0")}
        for number, container in self._database.rows(query):
            if container not in self._files or (self.findings.power_lost and container in unsynced):
                self._objects.attach(number, None)
                self.findings.dropped += 1

    def _forget_unused(self) -> None:
        query = (
            "SELECT id FROM container AS c"
            " WHERE NOT EXISTS (SELECT 1 FROM object WHERE container = c.id OR previous = c.id)"
            " AND NOT EXISTS (SELECT 1 FROM log WHERE container = c.id)"
            " AND NOT EXISTS (SELECT 1 FROM recovered WHERE container = c.id)"
        )
        for (container,) in self._database.rows(query):
            self._containers.release(container)

    def _mark_dirty(self) -> None:
        pending = "(SELECT number FROM log_object)"
        self._database.write(
            f"UPDATE object SET flags = flags & ~1 WHERE flags & 1 = 1 AND number NOT IN {pending}"
        )
        self._database.write(
            f"UPDATE object SET flags = flags | 1 WHERE flags & 1 = 0 AND number IN {pending}"
        )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
