"""Users, groups and passwords: the protection database (auth.md §8, directories.md §5.3).

Users have positive ids and groups negative ones. Two groups are known by name: members of
System:Administrators may do what only administrators may; System:AnyUser is everybody, also who never logged
in. It need have no members.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from realmfs.server.access import Acl, Identity
from realmfs.server.database import Database
from realmfs.server.seal import Seal, SealError

ADMINISTRATORS: Final = "System:Administrators"
ANYUSER: Final = "System:AnyUser"
KEY_LENGTH: Final = 8

_FIRST_USER = 1000  # the first user gets the id after it
_NAME = re.compile(r"[A-Za-z][^\s/@\x00-\x1f\x7f\ud800-\udfff]{0,62}")
_NO_KEYS = (bytes(KEY_LENGTH), b"\xff" * KEY_LENGTH)


class ProtectionError(Exception):
    """A user or group cannot be made or changed as asked; the text says why."""


class Principal(NamedTuple):
    """A user (id > 0) or a group (id < 0)."""

    id: int
    name: str


def password_key(password: str) -> bytes:
    """Return the key that a password is: its first 8 bytes, NUL padded (auth.md §2.1).

    Raises ProtectionError.
    """
    key = password.encode()[:KEY_LENGTH].ljust(KEY_LENGTH, b"\0")
    if "\0" in password or key in _NO_KEYS:
        raise ProtectionError("this password is empty or cannot be used")
    return key


class Protection:
    """The protection database of a store. Every method works on its own transaction or joins the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._identities: dict[int | None, Identity] = {}
        self._passphrase: bytes | None = None
        self._seal: Seal | None = None  # that was opened last
        database.on_foreign_change(self._identities.clear)

    def initialise(self) -> None:
        """Make the two groups of every realm."""
        self._database.execute(
            "INSERT INTO principal VALUES (-1, ?, -1), (-2, ?, -1)", (ADMINISTRATORS, ANYUSER)
        )

    def id_of(self, name: str) -> int | None:
        """Return the id of the user or group of that name, if there is one."""
        if not _NAME.fullmatch(name):
            return None
        row = self._database.row("SELECT id FROM principal WHERE name = ?", name)
        return row[0] if row else None

    def name_of(self, principal: int) -> str | None:
        """Return the name of a user or group, if it exists."""
        row = self._database.row("SELECT name FROM principal WHERE id = ?", principal)
        return row[0] if row else None

    def label(self, principal: int) -> str:
        """Return the name of a user or group or, of one that is gone, its number."""
        return self.name_of(principal) or str(principal)

    def users(self) -> list[Principal]:
        """Return all users, by id."""
        return [
            Principal(*row)
            for row in self._database.rows("SELECT id, name FROM principal WHERE id > 0 ORDER BY id")
        ]

    def groups(self) -> list[Principal]:
        """Return all groups, the oldest first."""
        rows = self._database.rows("SELECT id, name FROM principal WHERE id < 0 ORDER BY id DESC")
        return [Principal(*row) for row in rows]

    def members(self, group: int) -> list[Principal]:
        """Return the direct members of a group, by id."""
        sql = "SELECT id, name FROM principal JOIN member USING (id) WHERE group_id = ? ORDER BY id"
        return [Principal(*row) for row in self._database.rows(sql, group)]

    def add_user(self, name: str, key: bytes | None = None, *, user: int | None = None) -> int:
        """Make a user, with an id of its own if none is given; return the id. Raises ProtectionError."""
        self._check_name(name)
        with self._database.transaction():
            if user is None:
                user = self._number("last_user", _FIRST_USER, 1)
            if not 0 < user < 1 << 31 or self.name_of(user):
                raise ProtectionError(f"the id {user} cannot be a user's, or is taken")
            self._database.execute("INSERT INTO principal VALUES (?, ?, ?)", (user, name, user))
            if key is not None:
                self.set_key(user, key)
            self._changed()
        return user

    def add_group(self, name: str, owner: int = -1) -> int:
        """Make an empty group; return its id, which is negative. Raises ProtectionError."""
        self._check_name(name)
        with self._database.transaction():
            group = self._number("last_group", -2, -1)
            self._database.execute("INSERT INTO principal VALUES (?, ?, ?)", (group, name, owner))
            self._changed()
        return group

    def remove(self, principal: int) -> None:
        """Remove a user or group, its password and memberships. The id is not given to anybody else."""
        if self.name_of(principal) in {ADMINISTRATORS, ANYUSER}:
            raise ProtectionError("every realm needs this group")
        with self._database.transaction():
            self._database.execute("DELETE FROM principal WHERE id = ?", (principal,))
            self._changed()

    def add_member(self, group: int, principal: int) -> None:
        """Put a user or group into a group. Raises ProtectionError."""
        if group >= 0 or self.name_of(group) is None or self.name_of(principal) is None:
            raise ProtectionError(
                "only existing users and groups can be members, and only of existing groups"
            )
        with self._database.transaction():
            self._database.execute("INSERT OR IGNORE INTO member VALUES (?, ?)", (group, principal))
            self._changed()

    def remove_member(self, group: int, principal: int) -> None:
        """Take a user or group out of a group."""
        with self._database.transaction():
            self._database.execute("DELETE FROM member WHERE group_id = ? AND id = ?", (group, principal))
            self._changed()

    def key_of(self, user: int) -> bytes | None:
        """Return the password key of a user; None if there is none, or the account is closed.

        Raises ProtectionError if it is sealed, and the passphrase is not known.
        """
        row = self._database.row("SELECT key FROM password WHERE id = ?", user)
        if row is None or row[0] in _NO_KEYS:
            return None
        key: bytes = row[0]
        if len(key) == KEY_LENGTH:
            return key
        seal = self._opened()
        try:
            return seal.open(key, user) if seal is not None else None
        except SealError:
            raise ProtectionError(f"the password of user {user} is under another seal") from None

    def can_log_in(self, user: int) -> bool:
        """Whether a user has a password, and the account is not closed."""
        row = self._database.row("SELECT key FROM password WHERE id = ?", user)
        return row is not None and row[0] not in _NO_KEYS

    def has_key(self, user: int) -> bool:
        """Whether the user has an entry in the password table, be it a closed one."""
        return self._database.row("SELECT 1 FROM password WHERE id = ?", user) is not None

    def set_key(self, user: int, key: bytes) -> None:
        """Set the password key of a user who exists. Raises ProtectionError."""
        if len(key) != KEY_LENGTH or user <= 0 or self.name_of(user) is None:
            raise ProtectionError("only existing users have passwords")
        seal = None if key in _NO_KEYS else self._opened()
        kept = key if seal is None else seal.close(key, user)
        with self._database.transaction():
            self._database.execute("INSERT OR REPLACE INTO password VALUES (?, ?)", (user, kept))

    @property
    def is_sealed(self) -> bool:
        """Whether passwords are sealed (seal.py)."""
        return self._stored_seal() is not None

    def unlock(self, passphrase: bytes) -> None:
        """Open the seal with this passphrase, now and when another one comes. Raises ProtectionError."""
        self._passphrase, self._seal = passphrase, None
        self._opened()

    def seal(self, passphrase: bytes) -> None:
        """Seal all passwords anew. Raises ProtectionError if they are sealed and were not unlocked."""
        users = [row[0] for row in self._database.rows("SELECT id FROM password ORDER BY id")]
        keys = {user: self.key_of(user) for user in users}
        seal = Seal(passphrase)
        with self._database.transaction():
            self._database.execute("INSERT OR REPLACE INTO setting VALUES ('seal', ?)", (seal.stored,))
            self._passphrase, self._seal = passphrase, seal
            for user, key in keys.items():
                if key is not None:
                    self.set_key(user, key)

    def remove_sealed(self) -> None:
        """Remove all passwords under a seal that nobody can open any more."""
        with self._database.transaction():
            self._database.execute("DELETE FROM password WHERE length(key) > ?", (KEY_LENGTH,))

    def _stored_seal(self) -> bytes | None:
        row = self._database.row("SELECT value FROM setting WHERE name = 'seal'")
        return row[0] if row else None

    def _opened(self) -> Seal | None:
        stored = self._stored_seal()
        if stored is None or (self._seal is not None and self._seal.stored == stored):
            return self._seal if stored is not None else None
        if self._passphrase is None:
            raise ProtectionError("the passwords are sealed, and the passphrase was not given")
        try:
            self._seal = Seal(self._passphrase, stored)
        except SealError as error:
            raise ProtectionError(f"the passwords are sealed: {error}") from None
        return self._seal

    def close_account(self, user: int) -> None:
        """Refuse the user from now on; the id stays in use (auth.md §3, op 5)."""
        with self._database.transaction():
            self._database.execute("UPDATE password SET key = ? WHERE id = ?", (_NO_KEYS[1], user))

    def identity(self, user: int | None) -> Identity:
        """Return who a Vice id is; None, and an id that does not exist, is nobody: System:AnyUser."""
        known = self._identities.get(user)
        if known is None:
            if len(self._identities) >= 1024:
                self._identities.clear()
            known = self._identities[user] = self._work_out(user)
        return known

    def forget_identities(self) -> None:
        """Work out anew who everybody is: users and groups were replaced."""
        self._changed()

    @property
    def administrators(self) -> int:
        """The id of the group of those who may do what only administrators may."""
        return self._required(ADMINISTRATORS)

    def default_acl(self, anyuser: int) -> Acl:
        """Return the list of a new volume's root: all for administrators, `anyuser` for everybody."""
        entries = [(self.administrators, 127)]
        if anyuser:
            entries.append((self._required(ANYUSER), anyuser))
        return Acl(tuple(entries))

    def _number(self, counter: str, start: int, step: int) -> int:
        row = self._database.row("SELECT value FROM setting WHERE name = ?", counter)
        number = (int(row[0]) if row else start) + step
        while self.name_of(number):
            number += step
        self._database.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (counter, number))
        return number

    def _work_out(self, user: int | None) -> Identity:
        everybody = self._required(ANYUSER)
        anyone = self._closure(everybody)
        if user is None or user <= 0 or self.name_of(user) is None:
            return Identity(everybody, anyone, False, anyone)
        ids = self._closure(user)
        return Identity(user, ids, self.administrators in ids, anyone)

    def _closure(self, principal: int) -> frozenset[int]:
        sql = """
            WITH RECURSIVE am (id) AS (
                VALUES (?) UNION SELECT group_id FROM member JOIN am USING (id)
            ) SELECT id FROM am
        """
        return frozenset(row[0] for row in self._database.rows(sql, principal))

    def _required(self, name: str) -> int:
        found = self.id_of(name)
        if found is None:
            raise ProtectionError(f"the group {name} is missing from the protection database")
        return found

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ProtectionError(
                f"{name!r} cannot be a name: a letter, then no blanks, slashes or @, at most 63 characters"
            )
        if self.id_of(name) is not None:
            raise ProtectionError(f"{name} exists already")

    def _changed(self) -> None:
        self._identities.clear()
