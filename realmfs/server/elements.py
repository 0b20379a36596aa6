"""The tables `stamp`, `tomb` (merge.py) and `past` (resolver.py): who put an entry where, what there was.

Kept only for volumes with several replicas, and dropped as soon as every replica is known to have executed
the removal: when the second phase of its batch names them all, or when a resolution has made them all equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from realmfs.server.database import Database
from realmfs.server.views import MAX_PAST, NOWHERE, UNSTAMPED, Stamp, Tomb
from realmfs.server.volumes import VERSIONS
from realmfs.vice.types import Fid, StoreId, VersionVector

_TOMB_HOLES = ", ".join("?" * 17)
_OF = "volume = ? AND vnode = ? AND uniq = ?"


class Elements:
    """Stamps and tombs of a store's directories, pasts of its files; fids are under the replica's id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stamps(self, directory: Fid) -> tuple[Stamp, ...]:
        """Return the stamps of a directory's entries and attributes, by name."""
        rows = self._database.rows(
            f"SELECT name, host, uniquifier FROM stamp WHERE {_OF} ORDER BY name", *directory
        )
        return tuple(Stamp(name=name, id=StoreId(*stamp)) for name, *stamp in rows)

    def stamp(self, directory: Fid, name: bytes) -> StoreId:
        """Return the stamp of one entry."""
        row = self._database.row(
            f"SELECT host, uniquifier FROM stamp WHERE {_OF} AND name = ?", *directory, name
        )
        return StoreId(*row) if row else UNSTAMPED

    def tombs(self, directory: Fid) -> tuple[Tomb, ...]:
        """Return what was taken away from a directory, be it gone itself."""
        rows = self._database.rows(f"SELECT * FROM tomb WHERE {_OF} ORDER BY name", *directory)
        return tuple(self._with_past(directory, _tomb(row)) for row in rows)

    def _with_past(self, directory: Fid, tomb: Tomb) -> Tomb:
        if tomb.to != NOWHERE or tomb.child[0] & 1:
            return tomb
        return dataclasses.replace(tomb, past=self.past(Fid(directory.volume, *tomb.child)))

    def enter(self, directory: Fid, stamps: Iterable[Stamp]) -> None:
        """Note who put entries there."""
        self._database.executemany(
            "INSERT OR REPLACE INTO stamp VALUES (?, ?, ?, ?, ?, ?)",
            [(*directory, stamp.name, *stamp.id) for stamp in stamps],
        )

    def leave(self, directory: Fid, tombs: Iterable[Tomb]) -> None:
        """Note that entries were taken away."""
        found = list(tombs)
        self._database.executemany(
            f"DELETE FROM stamp WHERE {_OF} AND name = ? AND host = ? AND uniquifier = ?",
            [(*directory, tomb.name, *tomb.stamp) for tomb in found],
        )
        self._database.executemany(
            f"INSERT OR IGNORE INTO tomb VALUES ({_TOMB_HOLES})", [_row(directory, tomb) for tomb in found]
        )
        for tomb in found:
            self.note_past(Fid(directory.volume, *tomb.child), tomb.past)

    def replace(self, directory: Fid, stamps: Iterable[Stamp], tombs: Iterable[Tomb]) -> None:
        """Have just these stamps and tombs."""
        self._database.execute(f"DELETE FROM stamp WHERE {_OF}", tuple(directory))
        self._database.execute(f"DELETE FROM tomb WHERE {_OF}", tuple(directory))
        self.enter(directory, stamps)
        self.leave(directory, tombs)

    def past(self, fid: Fid) -> tuple[StoreId, ...]:
        """Return the store ids of versions that a file's present one, or its last, was made from."""
        rows = self._database.rows(f"SELECT host, uniquifier FROM past WHERE {_OF} ORDER BY number", *fid)
        return tuple(StoreId(*row) for row in rows)

    def note_past(self, fid: Fid, versions: Iterable[StoreId]) -> None:
        """Note versions that a file's present one was made from, the oldest first."""
        found = [(*fid, *version) for version in versions if any(version)]
        if not found:
            return
        self._database.executemany(
            "INSERT OR IGNORE INTO past (volume, vnode, uniq, host, uniquifier) VALUES (?, ?, ?, ?, ?)", found
        )
        self._database.execute(
            f"DELETE FROM past WHERE {_OF} AND number IN "
            f"(SELECT number FROM past WHERE {_OF} ORDER BY number DESC LIMIT -1 OFFSET {MAX_PAST})",
            (*fid, *fid),
        )

    def forget_past(self, fid: Fid) -> None:
        """All replicas have the present version."""
        self._database.execute(f"DELETE FROM past WHERE {_OF}", tuple(fid))

    def forget(self, directory: Fid, batch: StoreId | None = None) -> None:
        """Drop the tombs of a directory, or those of one batch: everybody has executed the removals.

        What was in a directory that was removed goes with its tomb. (A file may live on under another name.)
        """
        condition, parameters = _OF, tuple(directory)
        if batch is not None:
            condition, parameters = f"{_OF} AND batch_host = ? AND batch_unique = ?", (*directory, *batch)
        alive = (
            "SELECT 1 FROM vnode WHERE volume = tomb.volume AND vnode = child_vnode AND uniq = child_unique"
        )
        rows = self._database.rows(
            f"SELECT child_vnode, child_unique FROM tomb WHERE {condition} AND to_vnode = 0 "
            f"AND NOT EXISTS ({alive})",
            *parameters,
        )
        self._database.execute(f"DELETE FROM tomb WHERE {condition}", parameters)
        for vnode, unique in rows:
            below = Fid(directory.volume, vnode, unique)
            if not below.is_directory:
                self.forget_past(below)
            elif below != directory:
                self.forget(below)


def _tomb(row: tuple[object, ...]) -> Tomb:
    _, _, _, name, *words, versions, host, unique = row
    vnode, child_unique, *ids = words
    stamp, op, batch = StoreId(*ids[0:2]), StoreId(*ids[2:4]), StoreId(*ids[4:6])  # type: ignore[arg-type]  # SQL
    vv = VersionVector(VERSIONS.unpack(versions), StoreId(host, unique))  # type: ignore[arg-type]  # SQL
    return Tomb(
        name=name, child=(vnode, child_unique), stamp=stamp, op=op, batch=batch, to=(ids[6], ids[7]), vv=vv,  # type: ignore[arg-type]  # SQL
    )  # fmt: skip


def _row(directory: Fid, tomb: Tomb) -> tuple[object, ...]:
    vv = tomb.vv
    place = (*directory, tomb.name, *tomb.child, *tomb.stamp)
    return (*place, *tomb.op, *tomb.batch, *tomb.to, VERSIONS.pack(*vv.versions), *vv.store_id)
