"""The modify log: every change not yet confirmed by a server, per volume, in order (reintegration.md §1).

Life of a record
----------------
    append ──► pending ──► freeze: gets its store id ──► sent ──► confirmed: remove
                  ▲                     │  ▲                 └──► refused: blocked, with a reason
                  └────────── thaw ◄────┘  └── outcome unknown: stays frozen, keeps its id, over restarts too

`append` runs in the transaction that also edits the directory, so that there is never one without the
other. It marks the objects dirty; `remove` clears the mark of those that no other record is about. Rows of
one volume lie together, in order, so that an append touches one page at the end.

Contents of a store are a container, immutable from `append` on (who writes to the file again gets a fork,
see contents.py): what was acknowledged can be sent, and is found after a crash. A store is *safe* once its
contents are on the disk (durability.py); those found unsafe after the machine went down are checked against
their digest (recovery.py).

Store ids
---------
A store id is (host, uniquifier). Servers remember per host the last uniquifier and refuse smaller ones as
already done; they never mix hosts. The host is drawn at random at each start and uniquifiers count from 1
under it, in memory: no pair can be drawn twice, whatever was lost in a crash or restored from a backup, so
no counter needs to be kept. An id is drawn when a record is frozen, in the order of the log, and is kept on
the record.
"""

import enum
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from realmfs.cache.container import Container
from realmfs.cache.containers import Containers
from realmfs.cache.database import Database
from realmfs.cache.errors import CacheFull
from realmfs.vice.types import StoreId

DIGEST_AT_ONCE: Final = 32 << 10
"""Contents up to this many bytes get their digest when logged (about 20 us).

Larger ones from the thread that syncs.
"""
_LAST_UNIQUIFIER = 0x7FFFFFFF  # above it servers do not look for duplicates (reintegration.md §2.6)


class State(enum.IntFlag):
    """Where a record stands."""

    PENDING = 0
    FROZEN = 1
    """It has been chosen for sending and may be on its way: nothing may cancel it."""
    BLOCKED = 2
    """Refused: it and all behind it wait until someone decides. `reason` says why."""
    CANCELLED = 4
    """A later record made it pointless while it was frozen: it goes when it thaws."""
    PREPENDED = 8
    """Put in front by a repair; its store id is out of order."""


class Role(enum.IntFlag):
    """What an object is in a record."""

    OBJECT = 1
    """What is made, changed, moved or removed."""
    PARENT = 2
    """A directory that an entry is added to or taken from."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One record, as a value: changing the log does not change it."""

    volume: int
    """Volume key."""
    sequence: int
    record: bytes
    """The vice.log record, packed, without version vectors."""
    uid: int
    identity: str
    time: int
    container: int | None
    """Of a store: its contents."""
    length: int
    digest: bytes | None
    safe: bool
    store_id: StoreId | None
    state: State
    reason: int
    """A vice Code; 0 = nobody objects."""
    handle: bytes | None
    about: tuple[tuple[int, Role], ...]
    """Inode numbers of the objects it is about, and what each is in it."""

    @property
    def opcode(self) -> int:
        """The operation (reintegration.md §1.1)."""
        return int.from_bytes(self.record[:4], "big")

    @property
    def size(self) -> int:
        """Bytes to send: the packed record and the contents."""
        return len(self.record) + self.length

    @property
    def frozen(self) -> bool:
        """May it be on its way?"""
        return bool(self.state & State.FROZEN)


@dataclass(frozen=True, slots=True)
class LogSummary:
    """How much of a volume waits: records, bytes to send, when the oldest was logged (0 = nothing waits)."""

    records: int
    bytes: int
    oldest: int


FIRST = -(1 << 62)
"""Before all sequence numbers; those of repairs are negative."""
FIRST_PAGE = 8
_COLUMNS = (
    "volume, sequence, record, uid, identity, time, container, length, digest, safe, host, uniquifier, state,"
    " reason, handle, about"
)
_INSERT = f"INSERT INTO log ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, 0, NULL, ?)"
_LINK = "INSERT INTO log_object (number, sequence, volume, role) VALUES (?, ?, ?, ?)"
_SOIL = "UPDATE object SET flags = flags | 1 WHERE number = ? AND flags & 1 = 0"
_CLEAN = (
    "UPDATE object SET flags = flags & ~1 WHERE number = ?1 AND flags & 1 = 1"
    " AND NOT EXISTS (SELECT 1 FROM log_object WHERE number = ?1)"
)
_ABOUT = (
    f"SELECT {', '.join('l.' + name.strip() for name in _COLUMNS.split(','))}, o.role FROM log_object AS o"
    " JOIN log AS l ON l.volume = o.volume AND l.sequence = o.sequence WHERE o.number = ?"
)


class ModifyLog:
    """All modify logs. At most `bound` records."""

    def __init__(
        self, database: Database, containers: Containers, bound: int, check: Callable[[], None]
    ) -> None:
        """`check` raises CacheFull if the disk has no room for another change."""
        self._database = database
        self._containers = containers
        self._bound = bound
        self._check = check
        self.host = secrets.randbelow(0xFFFFFFFF) + 1
        self._uniquifier = 0
        self.reload()

    def reload(self) -> None:
        """Count again from the database."""
        query = "SELECT volume, count(*), sum(length(record) + length) FROM log GROUP BY volume"
        self._tally = {volume: (records, size) for volume, records, size in self._database.rescue(query)}
        self.count = sum(records for records, _ in self._tally.values())
        self._owners: dict[int, tuple[int, str]] = {}
        rows = self._database.rescue("SELECT coalesce(max(sequence), 0) + 1 FROM log")
        self._next: int = rows[0][0] if rows else 1

    # -- reading -----------------------------------------------------------------------------------------

    def volumes(self) -> list[int]:
        """Return the keys of the volumes whose log is not empty."""
        return list(self._tally)

    def change_bound(self, bound: int) -> None:
        """Hold at most so many from now on."""
        self._bound = bound

    def entries(self, volume: int, *, after: int = FIRST, limit: int = -1) -> list[LogEntry]:
        """Return a volume's records behind a sequence number in order, at most `limit` of them."""
        query = f"SELECT {_COLUMNS} FROM log WHERE volume = ? AND sequence > ? ORDER BY sequence LIMIT ?"
        return [_entry(row) for row in self._database.rows(query, (volume, after, limit))]

    def walk(self, volume: int, page: int) -> Iterator[LogEntry]:
        """Yield a volume's records in order, reading at most `page` at a time; they may change meanwhile.

        Few at first: often the first one decides.
        """
        last, size = FIRST, min(FIRST_PAGE, page)
        while entries := self.entries(volume, after=last, limit=size):
            yield from entries
            last, size = entries[-1].sequence, min(2 * size, page)

    def frozen(self, volume: int) -> list[LogEntry]:
        """Return a volume's records that may be on their way, in order."""
        query = f"SELECT {_COLUMNS} FROM log WHERE volume = ? AND state & 1 ORDER BY sequence"
        return [_entry(row) for row in self._database.rows(query, (volume,))]

    def get(self, volume: int, sequence: int) -> LogEntry | None:
        """Return a record as it is now."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM log WHERE volume = ? AND sequence = ?", (volume, sequence)
        )
        return None if row is None else _entry(row)

    def current(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """Return records of one volume as they are now, in order, without those that are gone."""
        if not entries:
            return []
        query = (
            f"SELECT {_COLUMNS} FROM log WHERE volume = ?"
            " AND sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence"
        )
        sequences = json.dumps([entry.sequence for entry in entries])
        return [_entry(row) for row in self._database.rows(query, (entries[0].volume, sequences))]

    def about(self, number: int) -> Iterator[tuple[LogEntry, Role]]:
        """Yield the records about an object, newest first, with its role in each.

        Change nothing meanwhile.
        """
        for row in self._database.each(f"{_ABOUT} ORDER BY o.sequence DESC", (number,)):
            yield _entry(row[:-1]), Role(row[-1])

    def blocked(self) -> list[LogEntry]:
        """Return the records of all volumes about which someone must decide, in order."""
        query = f"SELECT {_COLUMNS} FROM log WHERE state & 2 <> 0 ORDER BY volume, sequence"
        return [_entry(row) for row in self._database.rows(query)]

    def refusals(self) -> dict[int, int]:
        """Return how many records of each volume someone must decide about; no volume without any."""
        rows = self._database.rows("SELECT volume, count(*) FROM log WHERE state & 2 <> 0 GROUP BY volume")
        return dict(rows)

    def refused(self, volume: int, page: int = 500) -> Iterator[int]:
        """Yield the objects of a volume's refused records, some twice; records may change meanwhile."""
        query = (
            "SELECT sequence, about FROM log WHERE volume = ? AND sequence > ? AND state & 2 <> 0"
            " ORDER BY sequence LIMIT ?"
        )
        last = FIRST
        while rows := self._database.rows(query, (volume, last, page)):
            for _, about in rows:
                yield next(number for number, role in _ABOUT_PAIR.iter_unpack(about) if role & Role.OBJECT)
            last = rows[-1][0]

    def owner(self, volume: int) -> tuple[int, str] | None:
        """Return (uid, identity) of a volume's records: all have the same. None if the log is empty."""
        if volume not in self._tally:
            return None
        owner = self._owners.get(volume)
        if owner is None:
            row = self._database.row("SELECT uid, identity FROM log WHERE volume = ? LIMIT 1", (volume,))
            if row is None:
                return None
            owner = self._owners[volume] = row[0], row[1]
        return owner

    def summary(self, volume: int) -> LogSummary:
        """Return how much of a volume waits."""
        records, size = self._tally.get(volume, (0, 0))
        query = "SELECT time FROM log WHERE volume = ? ORDER BY sequence LIMIT 1"
        return LogSummary(records, size, self._database.value(query, (volume,)) or 0)

    def writeback(self) -> tuple[float, float, bool] | None:
        """Return what `set_writeback` has set."""
        row = self._database.row("SELECT age, time, paused FROM writeback")
        return None if row is None else (row[0], row[1], bool(row[2]))

    def own_writebacks(self) -> dict[int, tuple[float, float]]:
        """Return the age and the time of each volume that has its own."""
        rows = self._database.rows("SELECT volume, age, time FROM writeback_volume")
        return {volume: (age, time) for volume, age, time in rows}

    # -- changing; inside a transaction ------------------------------------------------------------------

    def append(
        self,
        volume: int,
        record: bytes,
        *,
        uid: int,
        identity: str,
        time: int,
        objects: Sequence[int] = (),
        parents: Sequence[int] = (),
        contents: Container | None = None,
        prepend: bool = False,
    ) -> int:
        """Log a change; return its sequence number. CacheFull at the limit.

        `objects` and `parents` are the inode numbers it is about. A store names its `contents`, which are
        immutable from here on; it must be the container attached to the object. `prepend` puts a repair in
        front.
        """
        if self.count >= self._bound:
            raise CacheFull(f"{self.count} changes are pending, the limit")
        self._check()
        sequence = self._next
        if prepend:
            query = "SELECT min(sequence) - 1 FROM log WHERE volume = ?"
            before = self._database.value(query, (volume,))
            sequence = sequence if before is None else before
        self._next = max(self._next, sequence + 1)
        container, length, digest, safe = None, 0, None, True
        if contents is not None:
            container, length, digest, safe = contents.id, contents.length, _digest(contents), False
            self._seal(contents)
        state = State.PREPENDED if prepend else State.PENDING
        write = self._database.write
        roles = dict.fromkeys(parents, 2)
        for number in objects:
            roles[number] = roles.get(number, 0) | 1
        about = b"".join([_ABOUT_PAIR.pack(*pair) for pair in roles.items()])
        write(
            _INSERT,
            (
                volume,
                sequence,
                record,
                uid,
                identity,
                time,
                container,
                length,
                digest,
                safe,
                int(state),
                about,
            ),
        )
        for number, role in roles.items():
            write(_LINK, (number, sequence, volume, role))
            write(_SOIL, (number,))
        self._counted(volume, 1, len(record) + length)
        return sequence

    def _seal(self, contents: Container) -> None:
        before = contents.writing, contents.logged
        contents.writing, contents.logged = False, True
        self._containers.save(contents)
        query = "SELECT number, previous FROM object WHERE container = ? AND previous IS NOT NULL"
        for number, previous in self._database.rows(query, (contents.id,)):
            self._database.write("UPDATE object SET previous = NULL WHERE number = ?", (number,))
            self._containers.release(previous)
        self._database.on_rollback(lambda: contents.restore(*before))

    def remove(self, entries: Iterable[LogEntry]) -> list[int]:
        """Delete records: confirmed by a server, cancelled, or discarded by the user.

        Return the inode numbers of the objects that are clean now.
        """
        cleaned: list[int] = []
        for entry in entries:
            key = entry.volume, entry.sequence
            if not self._database.write("DELETE FROM log WHERE volume = ? AND sequence = ?", key):
                continue
            for number, _ in entry.about:
                self._database.write(
                    "DELETE FROM log_object WHERE number = ? AND sequence = ? AND volume = ?",
                    (number, *key[::-1]),
                )
                if self._database.write(_CLEAN, (number,)):
                    cleaned.append(number)
            if entry.container is not None:
                self._containers.release(entry.container)
            self._counted(entry.volume, -1, -entry.size)
        return cleaned

    def rewrite(self, entry: LogEntry, record: bytes) -> None:
        """Replace a record's bytes: a local fid in it was translated."""
        query = "UPDATE log SET record = ? WHERE volume = ? AND sequence = ?"
        self._database.write(query, (record, entry.volume, entry.sequence))
        self._counted(entry.volume, 0, len(record) - len(entry.record))

    def freeze(self, entries: Iterable[LogEntry]) -> list[LogEntry]:
        """Choose records, as they are now, for sending: each without a store id gets the next one.

        Return them as they are then.
        """
        frozen = []
        for entry in entries:
            store_id = entry.store_id or self.new_store_id()
            query = (
                "UPDATE log SET state = state | 1, host = ?, uniquifier = ? WHERE volume = ? AND sequence = ?"
            )
            if self._database.write(query, (*store_id, entry.volume, entry.sequence)):
                frozen.append(replace(entry, state=entry.state | State.FROZEN, store_id=store_id))
        return frozen

    def new_store_id(self) -> StoreId:
        """Return a store id that no update of this client ever had."""
        if self._uniquifier == _LAST_UNIQUIFIER:
            self.host = secrets.randbelow(0xFFFFFFFF) + 1
            self._uniquifier = 0
        self._uniquifier += 1
        return StoreId(self.host, self._uniquifier)

    def thaw(self, entries: Iterable[LogEntry], *, reason: int = 0, blocked: bool = False) -> list[int]:
        """Take records back from sending, their outcome known: no server has applied them.

        They lose their store ids; those cancelled meanwhile are removed. `reason` is why, `blocked` whether
        someone must decide. Returns as `remove` does.
        """
        cancelled = []
        for entry in entries:
            if entry.state & State.CANCELLED:
                cancelled.append(entry)
                continue
            state = entry.state & ~(State.FROZEN | State.BLOCKED) | (
                State.BLOCKED if blocked else State.PENDING
            )
            self._database.write(
                "UPDATE log SET state = ?, reason = ?, host = 0, uniquifier = 0"
                " WHERE volume = ? AND sequence = ?",
                (int(state), reason, entry.volume, entry.sequence),
            )
        return self.remove(cancelled)

    def cancel(self, entry: LogEntry) -> list[int]:
        """Remove a record that a later one makes pointless.

        A frozen one only when it thaws. Returns as `remove`.
        """
        if not entry.frozen:
            return self.remove([entry])
        query = "UPDATE log SET state = state | 4 WHERE volume = ? AND sequence = ?"
        self._database.write(query, (entry.volume, entry.sequence))
        return []

    def set_reason(self, entry: LogEntry, reason: int, *, blocked: bool) -> None:
        """Note why a record waits, and whether someone must decide."""
        query = "UPDATE log SET reason = ?, state = (state & ~2) | ? WHERE volume = ? AND sequence = ?"
        self._database.write(query, (reason, State.BLOCKED * blocked, entry.volume, entry.sequence))

    def set_handle(self, entry: LogEntry, handle: bytes | None) -> None:
        """Keep venus' note of a store being sent in fragments."""
        query = "UPDATE log SET handle = ? WHERE volume = ? AND sequence = ?"
        self._database.write(query, (handle, entry.volume, entry.sequence))

    def set_writeback(self, age: float, time: float, paused: bool) -> None:
        """Keep how long records wait at least, how long a batch may take, and whether all of them wait."""
        query = "INSERT OR REPLACE INTO writeback (id, age, time, paused) VALUES (1, ?, ?, ?)"
        self._database.write(query, (age, time, paused))

    def set_own_writeback(self, volume: int, age: float, time: float) -> None:
        """Keep age and time of one volume."""
        self._database.write("INSERT OR REPLACE INTO writeback_volume VALUES (?, ?, ?)", (volume, age, time))

    def forget_own_writeback(self, volume: int) -> None:
        """Forget what was set for one volume."""
        self._database.write("DELETE FROM writeback_volume WHERE volume = ?", (volume,))

    def unblock(self, volume: int) -> None:
        """Let records that were refused be sent again."""
        self._database.write("UPDATE log SET state = state & ~2 WHERE volume = ? AND state & 2", (volume,))

    def _counted(self, volume: int, records: int, size: int) -> None:
        self._tell(volume, records, size)
        self._database.on_rollback(lambda: self._tell(volume, -records, -size))

    def _tell(self, volume: int, records: int, size: int) -> None:
        before = self._tally.get(volume, (0, 0))
        after = before[0] + records, before[1] + size
        if after[0]:
            self._tally[volume] = after
        else:
            self._tally.pop(volume, None)
            self._owners.pop(volume, None)
        self.count += records


def _digest(contents: Container) -> bytes | None:
    if contents.length > DIGEST_AT_ONCE:
        return None
    return hashlib.sha256(os.pread(contents.fd, contents.length, 0)).digest()


def _entry(row: Sequence[Any]) -> LogEntry:
    (
        volume,
        sequence,
        record,
        uid,
        identity,
        time,
        container,
        length,
        digest,
        safe,
        host,
        unique,
        state,
        reason,
        handle,
        about,
    ) = row
    return LogEntry(
        volume,
        sequence,
        record,
        uid,
        identity,
        time,
        container,
        length,
        digest,
        bool(safe),
        StoreId(host, unique) if host else None,
        _STATES.get(state) or State(state),
        reason,
        handle,
        tuple([(number, _ROLES[role]) for number, role in _ABOUT_PAIR.iter_unpack(about)]),
    )


_ROLES = {number: Role(number) for number in range(4)}
_STATES = {number: State(number) for number in range(16)}
_ABOUT_PAIR = struct.Struct("<QB")
