"""The realms that were ever reached, with the small integers that stand for them in the database."""

from dataclasses import dataclass

from realmfs.cache.database import Database


@dataclass(frozen=True, slots=True)
class RealmRow:
    """A realm: its id, its name, and the name of its root volume ('' = not yet known)."""

    id: int
    name: str
    root_volume: str


class Realms:
    """The table of realms. There are few: all are in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = (
            RealmRow(*row) for row in database.rescue("SELECT id, name, root_volume FROM realm ORDER BY id")
        )
        self._by_name = {row.name: row for row in rows}
        self._by_id = {row.id: row for row in self._by_name.values()}

    def all(self) -> list[RealmRow]:
        """Return all realms, in the order they were first met."""
        return list(self._by_id.values())

    def find(self, name: str) -> RealmRow | None:
        """Return the realm of that name."""
        return self._by_name.get(name)

    def get(self, realm: int) -> RealmRow:
        """Return the realm of that id. KeyError if there is none."""
        return self._by_id[realm]

    def add(self, name: str) -> RealmRow:
        """Return the realm of that name, with a new id if it is new. Inside a transaction."""
        if known := self._by_name.get(name):
            return known
        row = RealmRow(max(self._by_id, default=0) + 1, name, "")
        self._database.write("INSERT INTO realm (id, name, root_volume) VALUES (?, ?, '')", (row.id, name))
        self._keep(row)
        self._database.on_rollback(lambda: self._drop(row))
        return row

    def set_root_volume(self, realm: int, volume: str) -> RealmRow:
        """Remember the name of a realm's root volume. Inside a transaction."""
        old = self._by_id[realm]
        row = RealmRow(realm, old.name, volume)
        self._database.write("UPDATE realm SET root_volume = ? WHERE id = ?", (volume, realm))
        self._keep(row)
        self._database.on_rollback(lambda: self._keep(old))
        return row

    def _keep(self, row: RealmRow) -> None:
        self._by_name[row.name] = self._by_id[row.id] = row

    def _drop(self, row: RealmRow) -> None:
        del self._by_name[row.name], self._by_id[row.id]
