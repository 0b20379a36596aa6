"""Whom servers took each local user for when he last had a token: a Vice id for each realm and uid.

Rights are cached by local uid, and last over restarts; this says whose they are. No token is kept here, nor
anything that a server would believe. There are few: all are in memory.
"""

from typing import Final

from realmfs.cache.database import Database

MOST: Final = 1024
"""As many are remembered as there may be tokens; of more, the oldest are forgotten."""

Key = tuple[int, int]
"""Realm id and local uid."""


class Identities:
    """The table of identities."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.rescue("SELECT realm, uid, vice_id FROM identity ORDER BY id")
        self._known: dict[Key, int] = {(realm, uid): vice_id for realm, uid, vice_id in rows}

    def get(self, realm: int, uid: int) -> int | None:
        """Return the Vice id that a user had in a realm."""
        return self._known.get((realm, uid))

    def of_user(self, uid: int) -> dict[int, int]:
        """Return the Vice ids of a user by realm."""
        return {realm: vice_id for (realm, who), vice_id in self._known.items() if who == uid}

    def set(self, realm: int, uid: int, vice_id: int) -> None:
        """Remember who a user is. Inside a transaction."""
        if self._known.get((realm, uid)) == vice_id:
            return
        self.forget(realm, uid)
        while len(self._known) >= MOST:
            self.forget(*next(iter(self._known)))
        self._database.write(
            "INSERT INTO identity (realm, uid, vice_id) VALUES (?, ?, ?)", (realm, uid, vice_id)
        )
        self._change((realm, uid), vice_id)

    def forget(self, realm: int, uid: int) -> None:
        """Forget who a user was. Inside a transaction."""
        if (realm, uid) in self._known:
            self._database.write("DELETE FROM identity WHERE realm = ? AND uid = ?", (realm, uid))
            self._change((realm, uid), None)

    def _change(self, key: Key, vice_id: int | None) -> None:
        before = self._known.copy()
        if vice_id is None:
            del self._known[key]
        else:
            self._known[key] = vice_id
        self._database.on_rollback(lambda: self._restore(before))

    def _restore(self, known: dict[Key, int]) -> None:
        self._known = known
