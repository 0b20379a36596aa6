"""The hoard database: what people said must be here (client.md §8.1).

An entry names a place: a volume and a path from its root. It comes from a command (`profile` is ""), or from
a profile, which is a file of commands that is enabled or disabled as a whole. Within one source there is one
entry for a place; adding it again replaces it. `bound` is the object that the path last led to: by it an
entry finds its object again when somebody renames it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from realmfs.cache.database import Database
from realmfs.cache.errors import CacheFull

HIGHEST = 1000
"""The highest hoard priority."""
USUAL = 10
"""The priority of an entry that names none."""


class Expand(IntEnum):
    """What an entry stands for besides the object it names."""

    NONE = 0
    CHILDREN = 1
    """What is in the directory, now and later (`c+`)."""
    DESCENDANTS = 2
    """Everything below the directory, now and later (`d+`)."""


@dataclass(frozen=True, slots=True)
class HoardEntry:
    """One entry; `made` in Unix seconds."""

    id: int
    volume: int
    """Volume key."""
    path: bytes
    """From the volume's root, without a leading slash; b"" is the root itself."""
    uid: int
    """Whose entry it is, and with whose rights it is fetched."""
    priority: int
    expand: Expand
    profile: str = ""
    bound: int = 0
    """Inode number of the object it was last bound to; 0 = none yet."""
    made: int = 0


class HoardTable:
    """The entries, at most `bound` of them, and which profiles are enabled."""

    def __init__(self, database: Database, bound: int) -> None:
        self._database = database
        self._bound = bound
        self._at_most = self.count  # counting takes long: done anew only when this reaches the bound

    def all(self) -> list[HoardEntry]:
        """Return all entries, the most important first."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM hoard ORDER BY priority DESC, volume, path, id")
        return [_entry(row) for row in rows]

    def after(self, number: int, limit: int) -> list[HoardEntry]:
        """Return the next entries in order of their ids."""
        query = f"SELECT {_COLUMNS} FROM hoard WHERE id > ? ORDER BY id LIMIT ?"
        return [_entry(row) for row in self._database.rows(query, (number, limit))]

    def ids(self) -> set[int]:
        """Return the ids of all entries."""
        return {number for (number,) in self._database.rows("SELECT id FROM hoard")}

    def meant_by(self, number: int, volume: int, path: bytes) -> HoardEntry | None:
        """Return the most important entry bound to an object, or not bound yet and for its place."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM hoard WHERE bound = ? OR (bound = 0 AND volume = ? AND path = ?)"
            " ORDER BY priority DESC, volume, path, id LIMIT 1",
            (number, volume, path),
        )
        return None if row is None else _entry(row)

    def profile_sizes(self) -> dict[str, int]:
        """Return how many entries each profile has; "" are those that were added by command."""
        return dict(self._database.rows("SELECT profile, count(*) FROM hoard GROUP BY profile"))

    def get(self, number: int) -> HoardEntry | None:
        """Return the entry of that id."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM hoard WHERE id = ?", (number,))
        return None if row is None else _entry(row)

    @property
    def count(self) -> int:
        """How many entries there are."""
        return int(self._database.value("SELECT count(*) FROM hoard"))

    def add(
        self, volume: int, path: bytes, uid: int, priority: int, expand: Expand, made: int, profile: str = ""
    ) -> HoardEntry:
        """Enter a place, in the stead of the same source's entry for it if there is one.

        Inside a transaction. CacheFull when there are too many; ValueError for a priority out of 1..1000.
        """
        if not 1 <= priority <= HIGHEST:
            raise ValueError(f"a hoard priority is a number from 1 to {HIGHEST}, not {priority}")
        self._database.write(
            "DELETE FROM hoard WHERE volume = ? AND path = ? AND profile = ?", (volume, path, profile)
        )
        if self._at_most >= self._bound:
            self._at_most = self.count
        if self._at_most >= self._bound:
            raise CacheFull(f"the hoard database holds {self._bound} entries, its limit")
        self._at_most += 1
        self._database.write(
            "INSERT INTO hoard (volume, path, uid, priority, expand, profile, bound, made)"
            " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
            (volume, path, uid, priority, int(expand), profile, made),
        )
        return HoardEntry(
            int(self._database.value("SELECT last_insert_rowid()")),
            volume, path, uid, priority, expand, profile, 0, made,
        )  # fmt: skip

    def remove(self, ids: Iterable[int]) -> None:
        """Forget entries. Inside a transaction."""
        for number in ids:
            self._database.write("DELETE FROM hoard WHERE id = ?", (number,))

    def rebind(self, number: int, *, path: bytes, bound: int) -> None:
        """Note which object an entry means, and where that is now. Inside a transaction.

        An entry of the same source that is there already gives way: both would mean the same.
        """
        self._database.write(
            "DELETE FROM hoard WHERE id <> ?1 AND path = ?2"
            " AND volume = (SELECT volume FROM hoard WHERE id = ?1)"
            " AND profile = (SELECT profile FROM hoard WHERE id = ?1)",  # one by one: so the index is used
            (number, path),
        )
        self._database.write("UPDATE hoard SET path = ?, bound = ? WHERE id = ?", (path, bound, number))

    # -- profiles ------------------------------------------------------------------------------------------

    def enabled(self) -> dict[str, tuple[int, bytes]]:
        """Return the enabled profiles: who enabled each, and the digest of the text its entries are from."""
        rows = self._database.rows("SELECT name, uid, digest FROM hoard_profile ORDER BY name")
        return {name: (uid, digest) for name, uid, digest in rows}

    def enable(self, name: str, uid: int, digest: bytes = b"") -> None:
        """Note that a profile is enabled, and its text taken in. Inside a transaction."""
        self._database.write(
            "INSERT OR REPLACE INTO hoard_profile (name, uid, digest) VALUES (?, ?, ?)", (name, uid, digest)
        )

    def disable(self, name: str) -> None:
        """Note that a profile is disabled; its entries go. Inside a transaction."""
        self._database.write("DELETE FROM hoard_profile WHERE name = ?", (name,))
        self._database.write("DELETE FROM hoard WHERE profile = ?", (name,))


_COLUMNS = "id, volume, path, uid, priority, expand, profile, bound, made"


def _entry(row: tuple[int, int, bytes, int, int, int, str, int, int]) -> HoardEntry:
    number, volume, path, uid, priority, expand, profile, bound, made = row
    return HoardEntry(number, volume, path, uid, priority, Expand(expand), profile, bound, made)
