"""Inode numbers: who a number is, for as long as anyone may ask.

A number is given to a fid when the cache first hears of it and never to another one. It outlives the
object's stay in the cache, a restart of the daemon, and the translation of a local fid into a real one. A
fid takes a new number (`renew`) when what it names is no longer the same to the kernel: it changed its
type, or it changed elsewhere while open here; the old number, now *past*, still leads to its fid until the
next start, when the kernel has forgotten it.

Numbers come from a counter in memory that is ahead of its persistent mark by at most `_STEP`, so that
giving one out costs no further page of the database; a start continues at the mark, and up to `_STEP` of
2^63 numbers are lost.
"""

from realmfs.cache.database import Database
from realmfs.vice.types import Fid

ROOT_NUMBER = 1
"""The root of the mount, where the realms are."""
_STEP = 4096


def volume_key(realm: int, volume: int) -> int:
    """Return the integer by which tables name a volume of a realm."""
    return realm << 32 | volume


def split_key(key: int) -> tuple[int, int]:
    """Return the realm id and the volume id of a volume key."""
    return key >> 32, key & 0xFFFFFFFF


class Inodes:
    """The table of inode numbers. Keeps at most `bound` that no cached object or pending change needs."""

    def __init__(self, database: Database, bound: int) -> None:
        self._database = database
        self._bound = bound
        self._next: int = database.value("SELECT next_number FROM state")
        self._mark = self._next

    def find(self, realm: int, fid: Fid) -> int | None:
        """Return the number of a fid, if it has one."""
        number: int | None = self._database.value(
            "SELECT number FROM inode WHERE volume = ? AND vnode = ? AND uniquifier = ? AND past = 0",
            (realm << 32 | fid.volume, fid.vnode, fid.unique),
        )
        return number

    def number(self, realm: int, fid: Fid) -> int:
        """Return the number of a fid, giving it one if it has none. Inside a transaction."""
        known = self.find(realm, fid)
        return self._add(realm, fid) if known is None else known

    def new(self, realm: int, fid: Fid) -> int:
        """Give a number to a fid that cannot have one: just made here. Inside a transaction."""
        return self._add(realm, fid)

    def identity(self, number: int) -> tuple[int, Fid] | None:
        """Return realm and fid of a number, past ones too; None if it was never given out or is long gone."""
        row = self._database.row("SELECT volume, vnode, uniquifier FROM inode WHERE number = ?", (number,))
        if row is None:
            return None
        realm, volume = split_key(row[0])
        return realm, Fid(volume, row[1], row[2])

    def is_past(self, number: int) -> bool:
        """Whether the fid of this number has a newer one."""
        return bool(self._database.value("SELECT past FROM inode WHERE number = ?", (number,)))

    def retire(self, number: int) -> int:
        """Make a number past and return the new one of the same fid.

        Objects and pages stay under the old number: `Objects.renumber` moves them. Inside a transaction.
        """
        identity = self.identity(number)
        if identity is None:
            raise KeyError(number)
        self._database.write("UPDATE inode SET past = 1 WHERE number = ?", (number,))
        return self._add(*identity)

    def translate(self, number: int, fid: Fid) -> None:
        """Let a number mean another fid of the same realm: a local fid became a real one.

        Inside a transaction.
        """
        identity = self.identity(number)
        if identity is None:
            raise KeyError(number)
        self._database.write(
            "UPDATE inode SET volume = ?, vnode = ?, uniquifier = ? WHERE number = ?",
            (volume_key(identity[0], fid.volume), fid.vnode, fid.unique, number),
        )

    def _add(self, realm: int, fid: Fid) -> int:
        if self._next >= self._mark:
            mark = self._mark
            self._mark = self._next + _STEP
            self._database.write("UPDATE state SET next_number = ?", (self._mark,))
            self._database.on_rollback(lambda: self._unmark(mark))
        number = self._next
        self._next += 1
        self._database.write(
            "INSERT INTO inode (number, volume, vnode, uniquifier, past) VALUES (?, ?, ?, ?, 0)",
            (number, realm << 32 | fid.volume, fid.vnode, fid.unique),
        )
        return number

    def _unmark(self, mark: int) -> None:
        self._mark = mark

    def prune(self) -> None:
        """Forget past numbers and, beyond the bound, the oldest that nothing needs.

        At start only, when the kernel knows none. Inside a transaction.
        """
        self._database.write(
            "DELETE FROM inode WHERE past = 1"
            " AND NOT EXISTS (SELECT 1 FROM log_object WHERE log_object.number = inode.number)"
            " AND NOT EXISTS (SELECT 1 FROM recovered WHERE recovered.number = inode.number)"
        )
        excess = self._database.value("SELECT count(*) FROM inode") - self._bound
        if excess > 0:
            self._database.write(
                "DELETE FROM inode WHERE number IN (SELECT number FROM inode AS i"
                " WHERE NOT EXISTS (SELECT 1 FROM object WHERE object.number = i.number)"
                " AND NOT EXISTS (SELECT 1 FROM object WHERE object.parent = i.number)"
                " AND NOT EXISTS (SELECT 1 FROM log_object WHERE log_object.number = i.number)"
                " AND NOT EXISTS (SELECT 1 FROM recovered WHERE recovered.number = i.number)"
                " ORDER BY number LIMIT ?)",
                (excess,),
            )
