"""The volumes of a store: names, ids, stamps, quotas, and the fids that are set aside for new objects.

Every volume is a *replicated* one, if only with one replica: clients speak of it by its group id (0x7f......)
and get from it all that the protocol has for replicated volumes. Inside the server it goes by the id of the
replica (vice.md §3).
"""

from __future__ import annotations

import dataclasses
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from realmfs.server.database import Database
from realmfs.vice.types import VSG_MEMBERS, FidRange

VERSIONS = struct.Struct(">8i")
MAX_NAME = 31
ROOT_VOLUME = "/"
"""What GetRootVolume answers, and the name that the realm's root volume really has."""

IMPORTING = 1
JOINING = 2
"""Being filled with a tree of this machine, or by the other replicas (catchup.py)."""
JOINED_LEEWAY = 1 << 20
"""Uniques that are skipped where an earlier life of this replica may have handed some out."""

_RESERVE = 4096
"""Fids are set aside on the disk in runs of this many, so that handing them out need not wait for it."""
_COLUMNS = (
    "id, group_id, name, slot, versions, next_unique, next_file, next_directory, blocks, min_quota, "
    "max_quota, created, offline_message, motd, filling"
)


class ServerAddress(NamedTuple):
    """A file server of the realm, as clients are told of it."""

    number: int
    address: str
    port: int
    stamp: int = 0
    """Unix time when the server itself said so."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A row of the table `volume`."""

    id: int
    group_id: int
    name: str
    slot: int
    versions: tuple[int, ...]
    next_unique: int
    next_file: int
    next_directory: int
    blocks: int
    min_quota: int
    max_quota: int
    created: int
    offline_message: bytes
    motd: bytes
    filling: int
    """IMPORTING or JOINING while it is off line, else 0."""

    @property
    def stamp(self) -> int:
        """What GetVolVS answers: the updates executed at this server."""
        return self.versions[self.slot]

    @property
    def replica_name(self) -> str:
        """The name of this replica; that of the volume is the replicated one's."""
        return f"{self.name}.{self.slot}"


@dataclass(slots=True)
class _Run:
    """Fids set aside on the disk and not yet handed out: [unique, unique_end), and slots per class."""

    unique: int = 0
    unique_end: int = 0
    slots: dict[bool, tuple[int, int]] = dataclasses.field(default_factory=dict)


class Volumes:
    """The volumes of a store. Rows are read from the database each time; what is set aside is remembered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._runs: dict[int, _Run] = {}

    def all(self) -> list[Volume]:
        """Return the volumes, by id."""
        return [_volume(row) for row in self._database.rows(f"SELECT {_COLUMNS} FROM volume ORDER BY id")]

    def find(self, volume: int) -> Volume | None:
        """Return the volume of this id, group's or replica's."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM volume WHERE id = ? OR group_id = ?", volume, volume
        )
        return _volume(row) if row else None

    def named(self, name: str) -> Volume | None:
        """Return the replicated volume of this name."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM volume WHERE name = ?", name)
        return _volume(row) if row else None

    def add(self, group: int, name: str, slot: int, replica: int, created: int, filling: int = 0) -> Volume:
        """Make the row of a volume's replica here; its root is for the caller to make."""
        versions = VERSIONS.pack(*(0,) * VSG_MEMBERS)
        self._database.execute(
            f"INSERT INTO volume ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, 2, 0, 1, 0, 0, 0, ?, X'', X'', ?)",
            (replica, group, name, slot, versions, created, filling),
        )
        made = self.find(replica)
        assert made is not None
        return made

    def remove(self, volume: Volume) -> None:
        """Remove a volume with all its objects; containers become orphans."""
        for table in ("vnode", "page", "reintegrated", "stamp", "tomb"):
            self._database.execute(f"DELETE FROM {table} WHERE volume = ?", (volume.id,))
        self._database.execute("DELETE FROM volume WHERE id = ?", (volume.id,))
        self._runs.pop(volume.id, None)

    def begin_filling(self, volume: Volume) -> None:
        """Take a volume off line to be filled, with nothing in it but the row of its root."""
        self._database.execute("UPDATE volume SET filling = 1, blocks = 0 WHERE id = ?", (volume.id,))
        self._database.execute("DELETE FROM vnode WHERE volume = ? AND vnode != 1", (volume.id,))
        self._database.execute("DELETE FROM page WHERE volume = ?", (volume.id,))
        self._runs.pop(volume.id, None)

    def note_marks(self, volume: int, unique: int, files: int, directories: int) -> None:
        """Never hand out uniques and slots below these."""
        self._database.execute(
            "UPDATE volume SET next_unique = max(next_unique, ?), next_file = max(next_file, ?), "
            "next_directory = max(next_directory, ?) WHERE id = ?",
            (unique, files, directories, volume),
        )

    def filled(self, volume: int) -> None:
        """Put a volume on line whose import is complete."""
        self._database.execute("UPDATE volume SET filling = 0 WHERE id = ?", (volume,))

    def settle(self, volume: int, updates: int, blocks: int) -> None:
        """Count `updates` objects changed at this replica, and `blocks` more in use."""
        slot = self._database.row("SELECT slot FROM volume WHERE id = ?", volume)[0]
        self.raise_versions(volume, [slot] * updates)
        self._database.execute("UPDATE volume SET blocks = max(0, blocks + ?) WHERE id = ?", (blocks, volume))

    def raise_versions(self, volume: int, slots: Iterable[int]) -> None:
        """Count one more update for each of `slots` in the volume's version vector."""
        versions = list(
            VERSIONS.unpack(self._database.row("SELECT versions FROM volume WHERE id = ?", volume)[0])
        )
        for slot in slots:
            versions[slot] = (versions[slot] + 1) & 0x7FFFFFFF
        self._database.execute(
            "UPDATE volume SET versions = ? WHERE id = ?", (VERSIONS.pack(*versions), volume)
        )

    def set_status(self, volume: int, **columns: int | bytes) -> None:
        """Change quotas or messages, named by their columns."""
        for column, value in columns.items():
            assert column in {"min_quota", "max_quota", "offline_message", "motd"}
            self._database.execute(f"UPDATE volume SET {column} = ? WHERE id = ?", (value, volume))

    def replicas(self, volume: Volume) -> int:
        """Return how many replicas the volume has."""
        return int(self._database.row("SELECT count(*) FROM replica WHERE group_id = ?", volume.group_id)[0])

    def allocate(self, volume: Volume, directories: bool, count: int) -> FidRange:
        """Hand out up to 32 fids that nobody gets again, across restarts too (vice.md §3.1).

        The replica with index `ix` of `n` hands out slots that are ix modulo n, so two servers never give the
        same.
        """
        count, replicas = min(count, 32), self.replicas(volume)
        run = self._runs.setdefault(volume.id, _Run())
        if run.unique_end - run.unique < count:
            run.unique, run.unique_end = self._reserve(volume.id, "next_unique", _RESERVE)
        slot, end = run.slots.get(directories, (0, 0))
        first = slot + (volume.slot - slot) % replicas
        if first + replicas * count > end:
            column = "next_directory" if directories else "next_file"
            slot, end = self._reserve(volume.id, column, _RESERVE)
            first = slot + (volume.slot - slot) % replicas
        run.slots[directories] = (first + replicas * count, end)
        run.unique += count
        return FidRange(2 * first + (1 if directories else 2), run.unique - count, 2 * replicas, count)

    def duplicate_of(self, volume: int, host: int) -> int | None:
        """Return the Uniquifier of the last record this client instance got reintegrated, if any."""
        row = self._database.row(
            "SELECT uniquifier FROM reintegrated WHERE volume = ? AND host = ?", volume, host
        )
        return row[0] if row else None

    def remember_record(self, volume: int, host: int, uniquifier: int, keep: int = 4096) -> None:
        """Remember the last record of a batch.

        Of each volume the newest `keep` client instances are remembered.
        """
        self._database.execute(
            "INSERT OR REPLACE INTO reintegrated VALUES (?, ?, ?, ?)",
            (volume, host, uniquifier, time.time_ns() // 1000),
        )
        if uniquifier & 0xFF == 0:
            self._database.execute(
                "DELETE FROM reintegrated WHERE volume = ? AND at < "
                "(SELECT at FROM reintegrated WHERE volume = ? ORDER BY at DESC LIMIT 1 OFFSET ?)",
                (volume, volume, keep - 1),
            )

    def _reserve(self, volume: int, column: str, count: int) -> tuple[int, int]:
        with self._database.transaction():
            start = int(self._database.row(f"SELECT {column} FROM volume WHERE id = ?", volume)[0])
            self._database.execute(f"UPDATE volume SET {column} = ? WHERE id = ?", (start + count, volume))
        return start, start + count


def _volume(row: tuple[Any, ...]) -> Volume:
    columns = list(row)
    columns[4] = VERSIONS.unpack(columns[4])
    return Volume(*columns)
