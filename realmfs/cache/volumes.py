"""The volumes that were ever entered.

Where they live, their version stamps, and fids for what is made in them.

Fids for new objects come from ranges that a server granted, or, when there is none left, are *local*
(reintegration.md §6): vnode FFFFFFFF for directories, FFFFFFFE for everything else, and a uniquifier of the
volume's own counter from 2^19 on. Neither costs a page of the database per fid: the counter's persistent
mark is ahead of it by `_STEP`, and the ranges are out of the database while the daemon runs. A clean stop
puts them back; an unclean one thus throws them away, as it must, since one of their fids may be in use.
"""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from realmfs.cache.database import Database
from realmfs.cache.inodes import split_key, volume_key
from realmfs.vice.types import Fid, FidRange, ObjectType

LOCAL_DIRECTORY = 0xFFFFFFFF
LOCAL_FILE = 0xFFFFFFFE
_FIRST_LOCAL = 1 << 19
_STEP = 256


def is_local(fid: Fid) -> bool:
    """Was the fid made here? Such a one must never be sent to a server."""
    return fid.vnode >= LOCAL_FILE


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica of a volume.

    Its slot in version vectors, its own volume id, and its server as "address:port".
    """

    slot: int
    volume: int
    server: str


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """A volume as last heard of."""

    realm: int
    id: int
    name: str
    type: int
    replicas: tuple[ReplicaRow, ...] = ()
    stamps: tuple[int, ...] = ()
    """Version stamp per slot (client.md §3); 0 is invalid; () = none."""

    @property
    def key(self) -> int:
        """The volume key by which other tables speak of it."""
        return volume_key(self.realm, self.id)


class Volumes:
    """The table of volumes, and the source of new fids."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._local: dict[
            int, tuple[int, int]
        ] = {}  # next uniquifier and persistent mark, of volumes used so far
        self._ranges: dict[int, dict[ObjectType, deque[FidRange]]] = {}

    def all(self) -> list[VolumeRow]:
        """Return all volumes."""
        return [_volume(row) for row in self._database.rows(f"{_SELECT} ORDER BY key")]

    def get(self, key: int) -> VolumeRow | None:
        """Return the volume of that key."""
        row = self._database.row(f"{_SELECT} WHERE key = ?", (key,))
        return None if row is None else _volume(row)

    def find(self, realm: int, name: str) -> VolumeRow | None:
        """Return the volume of that name."""
        row = self._database.row(f"{_SELECT} WHERE name = ? AND key >> 32 = ?", (name, realm))
        return None if row is None else _volume(row)

    def save(self, volume: VolumeRow) -> None:
        """Enter a volume, or what is new of a known one. Inside a transaction."""
        self._database.write(
            "INSERT INTO volume (key, name, type, replicas, stamps, next_local, ranges)"
            " VALUES (?, ?, ?, ?, ?, ?, '{}')"
            " ON CONFLICT (key) DO UPDATE SET name = excluded.name, type = excluded.type,"
            " replicas = excluded.replicas, stamps = excluded.stamps",
            (
                volume.key,
                volume.name,
                volume.type,
                json.dumps([[one.slot, one.volume, one.server] for one in volume.replicas]),
                json.dumps(volume.stamps),
                _FIRST_LOCAL,
            ),
        )

    def set_stamps(self, key: int, stamps: Iterable[int]) -> None:
        """Replace the version stamps of a volume; () erases them. Inside a transaction."""
        self._database.write("UPDATE volume SET stamps = ? WHERE key = ?", (json.dumps(list(stamps)), key))

    def drop(self, key: int) -> None:
        """Forget a volume that no longer exists. Its objects and log must be gone. Inside a transaction."""
        self._database.write("DELETE FROM volume WHERE key = ?", (key,))
        self._local.pop(key, None)
        self._ranges.pop(key, None)

    # -- fids --------------------------------------------------------------------------------------------

    def local_fid(self, key: int, kind: ObjectType) -> Fid:
        """Return a new local fid in a volume that has a row. Inside a transaction."""
        following, mark = self._local.get(key) or self._counter(key)
        if following >= mark:
            self._database.write("UPDATE volume SET next_local = ? WHERE key = ?", (mark + _STEP, key))
            self._database.on_rollback(lambda: self._forget_counter(key))
            mark += _STEP
        self._local[key] = following + 1, mark
        vnode = LOCAL_DIRECTORY if kind is ObjectType.DIRECTORY else LOCAL_FILE
        return Fid(split_key(key)[1], vnode, following)

    def _counter(self, key: int) -> tuple[int, int]:
        mark = self._database.value("SELECT next_local FROM volume WHERE key = ?", (key,))
        if mark is None:
            raise KeyError(key)
        return mark, mark

    def _forget_counter(self, key: int) -> None:
        self._local.pop(key, None)

    def granted_fid(self, key: int, kind: ObjectType) -> Fid | None:
        """Take the next fid of the ranges granted for this type of object; None if there is none."""
        ranges = self._ranges.get(key, {}).get(kind)
        if not ranges:
            return None
        first = ranges.popleft()
        if first.count > 1:
            ranges.appendleft(first.rest(1))
        return Fid(split_key(key)[1], first.vnode, first.unique)

    def grant(self, key: int, kind: ObjectType, granted: FidRange) -> None:
        """Add a range that a server granted."""
        if granted.count > 0:
            self._ranges.setdefault(key, {}).setdefault(kind, deque()).append(granted)

    def granted(self, key: int, kind: ObjectType) -> int:
        """Return how many granted fids are left."""
        return sum(one.count for one in self._ranges.get(key, {}).get(kind, ()))

    def take_ranges(self) -> None:
        """Move the ranges from the database into memory. At start, inside a transaction."""
        for key, text in self._database.rows("SELECT key, ranges FROM volume WHERE ranges <> '{}'"):
            for kind, ranges in json.loads(text).items():
                for words in ranges:
                    self.grant(key, ObjectType(int(kind)), FidRange(*words))
        self._database.write("UPDATE volume SET ranges = '{}' WHERE ranges <> '{}'")

    def put_ranges(self) -> None:
        """Move the ranges back into the database. At a clean stop, inside a transaction."""
        for key, kinds in self._ranges.items():
            packed = {
                int(kind): [[one.vnode, one.unique, one.stride, one.count] for one in ranges]
                for kind, ranges in kinds.items()
                if ranges
            }
            self._database.write("UPDATE volume SET ranges = ? WHERE key = ?", (json.dumps(packed), key))
        self._ranges.clear()


_SELECT = "SELECT key, name, type, replicas, stamps FROM volume"


def _volume(row: tuple[Any, ...]) -> VolumeRow:
    key, name, kind, replicas, stamps = row
    realm, volume = split_key(key)
    return VolumeRow(
        realm,
        volume,
        name,
        kind,
        tuple(ReplicaRow(*one) for one in json.loads(replicas)),
        tuple(json.loads(stamps)),
    )
