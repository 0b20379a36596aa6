"""One SQLite connection, on the trio thread, and the transactions that all changes go through.

One SQLite connection, on the trio thread, and the transactions that each change of the cache goes through.

Theory
------
Mode WAL, synchronous NORMAL: a commit appends to the write-ahead log file and syncs nothing; `durability`
syncs that file from a thread. Power loss therefore takes a *suffix* of the committed transactions and never
part of one.

A transaction is a stretch of code with no checkpoint: other tasks must not see or add to a half-made
change. Entering one inside another joins it; the outermost decides. If an inner one failed, the outer one
cannot commit, even when the exception was swallowed in between.

What is kept in memory besides (counters, names) changes at once, and `on_rollback` says how to change it
back; what must not happen before the commit (removing a file) waits with `on_commit`.

    BEGIN ──► changes ──► COMMIT ──► on_commit hooks, in order
                 │          └─ disk full: the reserve is given up and COMMIT tried once more
                 └─ exception ──► ROLLBACK ──► on_rollback hooks, latest first

Reading needs no transaction. Errors of SQLite leave here only as `CacheError`s: a full disk as `CacheFull`,
a damaged page as `CacheDamaged`, after which every `transaction()` raises `CacheReadOnly`.
"""

import contextlib
import errno
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from realmfs.cache.errors import CacheDamaged, CacheError, CacheFull, CacheReadOnly, CacheTooNew, Damage
from realmfs.cache.schema import STEPS

logger = logging.getLogger(__name__)

_WATCH = 64
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "wal_autocheckpoint = 0",  # durability does it, off the trio thread
    "journal_size_limit = 16777216",
    "cache_size = -16384",  # KiB
    "temp_store = MEMORY",
    "trusted_schema = OFF",
)


def _nothing_to_give() -> bool:
    return False


class Database:
    """The connection.

    `relieve` is asked for disk space when a write meets a full disk and tells if there is some.
    """

    def __init__(
        self, path: Path, *, relieve: Callable[[], bool] = _nothing_to_give, steps: Sequence[str] = STEPS
    ) -> None:
        self.path = path
        self.damage: Damage | None = None
        self.commits = 0  # committed transactions that changed something, since the start
        self.watch: Callable[[], None] | None = None  # called every _WATCH commits
        self._relieve = relieve
        self._depth = 0
        self._doomed = False
        self._begun = False  # with the first write: a transaction that changes nothing costs nothing
        self._watched = 0
        self._task: object = None
        self._on_commit: list[Callable[[], None]] = []
        self._on_rollback: list[Callable[[], None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._transaction = Transaction(self)
        self._steps = steps
        self._connection = self._open(steps)

    def _open(self, steps: Sequence[str]) -> sqlite3.Connection:
        connection = connect(self.path)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            migrate(connection, self.path, steps)
            return connection
        except sqlite3.DatabaseError as error:
            connection.close()
            if _code(error) not in _DAMAGE:
                raise self._translated(error) from error
            self._damaged(str(error), readable=False)
        return self._empty(steps)

    def _empty(self, steps: Sequence[str]) -> sqlite3.Connection:
        connection = connect(Path(":memory:"))
        migrate(connection, self.path, steps)
        return connection

    def stand_in(self) -> None:
        """Put an empty database in place of one of which nothing can be read. All changes are refused."""
        what = "unreadable" if self.damage is None else self.damage.what
        self.damage = Damage(self.path, what, readable=False)
        self._connection.close()
        self._connection = self._empty(self._steps)

    def check(self) -> None:
        """Look for damage (SQLite's quick_check: about 2 s per GB).

        If there is, the cache becomes read-only.
        """
        if self.damage is not None:
            return
        try:
            (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            verdict = str(error)
        if verdict != "ok":
            self._damaged(str(verdict).splitlines()[-1], readable=True)

    # -- reading and writing -----------------------------------------------------------------------------

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        try:
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
            return row
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows as SQLite finds them. Take what is needed and change nothing meanwhile."""
        try:
            yield from self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the only column of the first row, or None if there is no row."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def rescue(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows; of a database already known to be damaged those that can be read, maybe none."""
        known = self.damage is not None
        rows: list[tuple[Any, ...]] = []
        try:
            rows.extend(self.each(sql))
        except CacheDamaged:
            if not known:
                raise
        return rows

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change something, inside a transaction; return the number of rows changed."""
        if not self._depth:
            raise RuntimeError("the cache is changed outside a transaction")
        try:
            if not self._begun:
                self._connection.execute("BEGIN IMMEDIATE")
                self._begun = True
            return self._connection.execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error

    # -- transactions ------------------------------------------------------------------------------------

    def transaction(self) -> "Transaction":
        """Enter a transaction, or join the one that is open. No checkpoint may be met inside."""
        return self._transaction

    def on_commit(self, act: Callable[[], None]) -> None:
        """Call `act` after the open transaction has been committed."""
        self._on_commit.append(act)

    def on_rollback(self, act: Callable[[], None]) -> None:
        """Call `act` if the open transaction is rolled back."""
        self._on_rollback.append(act)

    def at_end(self, act: Callable[[], None]) -> None:
        """Call `act` when the open transaction has ended either way; at once if none is open."""
        if self._depth:
            self._at_end.append(act)
        else:
            act()

    def _enter(self) -> None:
        if self._depth:
            if self._task is not _current_task():
                raise RuntimeError("a task met a checkpoint inside a transaction")
            self._depth += 1
            return
        if self.damage is not None:
            raise CacheReadOnly(self.damage)
        self._task = _current_task()
        self._depth = 1

    def _leave(self, failed: bool) -> None:
        self._depth -= 1
        self._doomed |= failed
        if self._depth:
            return
        if self._doomed:
            self._roll_back()
            if not failed:
                raise RuntimeError("a transaction cannot commit: one that joined it had failed")
            return
        if self._begun:
            try:
                self._commit()
            except sqlite3.Error as error:
                self._roll_back()
                raise self._translated(error) from error
            self.commits += 1
        self._begun = False
        self._on_rollback.clear()
        acts, self._on_commit = self._on_commit + self._at_end, []
        self._at_end = []
        for act in acts:
            act()
        if self.watch is not None and self.commits >= self._watched + _WATCH:
            self._watched = self.commits
            self.watch()

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            # SQLite may have rolled back by itself; then there is nothing left to commit.
            if (
                _code(error) != sqlite3.SQLITE_FULL
                or not self._relieve()
                or not self._connection.in_transaction
            ):
                raise
            self._connection.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                self._connection.execute("ROLLBACK")
        self._doomed = self._begun = False
        self._on_commit.clear()
        acts, self._on_rollback = [*reversed(self._on_rollback), *self._at_end], []
        self._at_end = []
        for act in acts:
            act()

    # -- errors and the end ------------------------------------------------------------------------------

    def _translated(self, error: sqlite3.Error) -> CacheError:
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            self._relieve()
            return CacheFull(f"no space on the disk of {self.path}")
        if code in _DAMAGE:
            return CacheDamaged(self._damaged(str(error), readable=True))
        if isinstance(error, sqlite3.OperationalError):
            return CacheError(errno.EIO, f"{self.path}: {error}")
        raise error  # a mistake in our SQL

    def _damaged(self, what: str, readable: bool) -> Damage:
        if self.damage is None:
            self.damage = Damage(self.path, what, readable)
            logger.error("%s", self.damage)
        return self.damage

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database file, with two syncs: some milliseconds and more."""
        with contextlib.suppress(sqlite3.OperationalError):  # someone reads; the next time will do
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the connection. What was committed is in the files."""
        self._connection.close()


class Transaction:
    """`with` over the database's open transaction: one object for all, since the state is the database's."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database._enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database._leave(kind is not None)


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that begins no transaction by itself."""
    return sqlite3.connect(path, isolation_level=None, cached_statements=256)


def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    """Run the schema steps that the database lacks, in one transaction.

    CacheTooNew if it has more than we know.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        connection.close()
        raise CacheTooNew(path, version, len(steps))
    if version == len(steps):
        return
    if version:
        logger.info("bringing %s from schema version %d to %d", path, version, len(steps))
    script = "\n".join(steps[version:])
    connection.executescript(f"BEGIN IMMEDIATE; {script}\nPRAGMA user_version = {len(steps)}; COMMIT;")


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code (the low byte of the extended one).

    0 for errors of the Python module itself.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _current_task() -> object:
    """Return the running trio task; None outside trio."""
    return trio.lowlevel.current_task() if trio.lowlevel.in_trio_run() else None
