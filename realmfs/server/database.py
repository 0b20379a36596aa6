"""The SQLite database of a store: transactions, durability, and notice of what other processes changed.

All statements run on the event loop's thread, where a transaction of a few rows costs some 50 µs. What costs
real time is waiting for the disk, so commits do not: SQLite runs with `synchronous = NORMAL`, which in WAL
mode orders everything right but leaves the log in the page cache, and whoever owes a client durability awaits
`durable()`, which syncs the log file in a thread. Callers that wait at the same time share one sync.
"""

import importlib.resources
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

SCHEMA_VERSION = 3
_BUSY_MILLISECONDS = 5000


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk; blocking. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _script(name: str) -> str:
    return importlib.resources.files("realmfs.server").joinpath(name).read_text()


class StoreError(Exception):
    """The store cannot be used; the text says why, for the person who runs the server."""


class Database:
    """One connection to a store's database. Not for use by several threads."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open, or create, the database at `path`. Raises StoreError."""
        if create == path.exists():
            raise StoreError(f"{path} {'exists already' if create else 'does not exist'}")
        if create:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            if create:
                scripts = ("schema.sql", "schema_group.sql", "upgrade_3.sql")
                self._connection.executescript("".join(map(_script, scripts)))
            if self._version() == 1:
                self._upgrade_to_2()
            if self._version() == 2:
                self._upgrade(_script("upgrade_3.sql"), 3)
            found = self._version()
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path}: {error}") from error
        if found != SCHEMA_VERSION:
            raise StoreError(f"{path} has schema version {found}; this program knows {SCHEMA_VERSION}")
        self._path = path
        self.generation = 0
        """Counts how often what was read may have become wrong: another process wrote, or we rolled back."""
        self._depth = 0
        self._commits = 0
        self._synced = 0
        self._named = False
        self._sync_lock = trio.Lock()
        self._data_version = self._read_data_version()
        self._forget: list[Callable[[], None]] = []

    def _upgrade_to_2(self) -> None:
        """Bring a store of version 1 to version 2; every volume gets its place in `location`."""
        locate = (
            "INSERT INTO location SELECT group_id, name, created, v.owner, v.acl, max_quota FROM volume "
            "JOIN vnode v ON v.volume = volume.id AND v.vnode = 1 AND v.uniq = 1;"
        )
        self._upgrade(_script("upgrade_2.sql") + _script("schema_group.sql") + locate, 2)

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _upgrade(self, script: str, version: int) -> None:
        """Run what leads to a version of the schema, unless another process has just done it."""
        try:
            self._connection.executescript(
                f"BEGIN IMMEDIATE;{script} PRAGMA user_version = {version}; COMMIT;"
            )
        except sqlite3.OperationalError:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if self._version() < version:
                raise

    def close(self) -> None:
        """Close the connection; the last one to close checkpoints the log."""
        self._connection.close()

    def compact(self) -> None:
        """Write the whole database anew, so that nothing of what was deleted is left in its file."""
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        """Run one statement for each row of parameters."""
        self._connection.executemany(sql, rows)

    def row(self, sql: str, *parameters: Any) -> Any:
        """Return the first row of a query as a tuple, or None."""
        return self._connection.execute(sql, parameters).fetchone()

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        """Return all rows of a query, as tuples."""
        return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block changes, all or nothing; a block inside a block joins it.

        The block must not await.
        """
        if self._depth:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            self.notice_changes()
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            self._run_forget()
            raise
        else:
            self._connection.execute("COMMIT")
            self._commits += 1
        finally:
            self._depth = 0

    def on_foreign_change(self, forget: Callable[[], None]) -> None:
        """Have `forget` called when what was read before may no longer hold: see `generation`."""
        self._forget.append(forget)

    def notice_changes(self) -> bool:
        """Whether another process has changed the database since the last look; caches are dropped if so."""
        version = self._read_data_version()
        if version == self._data_version:
            return False
        self._data_version = version
        self._run_forget()
        return True

    async def durable(self) -> None:
        """Return when everything committed before the call is on the disk."""
        wanted = self._commits
        async with self._sync_lock:
            if self._synced < wanted:
                reached = self._commits
                await trio.to_thread.run_sync(self.sync)
                self._synced = reached

    def sync(self) -> None:
        """Put all commits on the disk, blocking.

        The log file is there as long as a connection is open, so any descriptor of it will do, and its name
        needs to be synced only once.
        """
        fd = os.open(self._path.with_name(self._path.name + "-wal"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if not self._named:
            sync_directory(self._path.parent)
            self._named = True

    def _read_data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _run_forget(self) -> None:
        self.generation += 1
        for forget in self._forget:
            forget()
