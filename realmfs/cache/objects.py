"""Cached files, directories and symlinks: one row each, read when asked for.

An object is known by its inode number. Rows are detached values: venus keeps its own object in memory,
fills it from an `ObjectRow`, and writes changed columns through `update`. What must never disagree with
another table is kept here: `flags & DIRTY` belongs to the modify log, `container` to `attach`, `tick` to
`touch`.
"""

import enum
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, Unpack

from realmfs.cache.container import Container
from realmfs.cache.containers import Containers
from realmfs.cache.database import Database
from realmfs.cache.directories import Directories
from realmfs.cache.errors import CacheFull
from realmfs.cache.inodes import split_key, volume_key
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.types import Fid, Status

ANY_USER: Final = -1
"""The uid under which the rights of everybody are cached."""
MAX_RIGHTS: Final = 9
"""Any user and eight others (client.md §1)."""


class Flags(enum.IntFlag):
    """What is special about an object."""

    NONE = 0
    DIRTY = 1
    """Pending changes are about it. Set and cleared by the modify log."""
    LOCAL = 2
    """It exists only here: its fid is local, or it was made by realmfs (conflict views)."""
    CONFLICT = 4
    """The servers cannot agree on it, or refuse our changes to it."""


KEEP: Final = Flags.DIRTY | Flags.LOCAL | Flags.CONFLICT
"""Objects with any of these are never replaced. The schema's indexes know this number."""


@dataclass(slots=True)
class ObjectRow:
    """One row: what is known of an object."""

    number: int
    realm: int
    fid: Fid
    parent: int = 0
    """Number of the directory it was last found in; 0 = none known."""
    name: bytes = b""
    status: Status | None = None
    """None: a runt, of which only the fid is known."""
    rights: Mapping[int, int] = field(default_factory=dict)
    """Rights by local uid, and of ANY_USER. Which are valid is not remembered: none, after a start."""
    link: bytes | None = None
    """Text of a symlink or mount link."""
    container: int | None = None
    """Contents of a file, whole or in part."""
    sha: bytes | None = None
    flags: Flags = Flags.NONE
    mount: int = 0
    """Of a mount link: number of the root of the volume mounted there."""
    hoard: int = 0
    hoard_uid: int = -1
    tick: int = 0


class Columns(TypedDict, total=False):
    """What `Objects.update` can change."""

    parent: int
    name: bytes
    status: Status | None
    rights: Mapping[int, int]
    link: bytes | None
    sha: bytes | None
    flags: Flags
    mount: int
    hoard: int
    hoard_uid: int


_COLUMNS = (
    "o.number, i.volume, i.vnode, i.uniquifier, o.parent, o.name, o.status, o.rights, o.link, o.container,"
    " o.sha, o.flags, o.mount, o.hoard, o.hoard_uid, o.tick"
)
_BY_NUMBER = f"SELECT {_COLUMNS} FROM object AS o JOIN inode AS i ON i.number = o.number WHERE o.number = ?"
_BY_FID = (
    f"SELECT {_COLUMNS} FROM inode AS i JOIN object AS o ON o.number = i.number"
    " WHERE i.volume = ? AND i.vnode = ? AND i.uniquifier = ? AND i.past = 0"
)
_CHILDREN = "SELECT number FROM object WHERE parent = ? AND number > ? ORDER BY number LIMIT ?"
_INSERT = (
    "INSERT INTO object (number, parent, name, status, rights, link, container, sha, flags, mount, hoard,"
    " hoard_uid, tick)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_IN_VOLUME = "FROM inode AS i JOIN object AS o ON o.number = i.number WHERE i.volume = ? AND i.past = 0"
_MEMORY_TICKS = 1000
"""References kept in memory before they are written in one go."""


class Objects:
    """The table of objects. `count` of them are here."""

    def __init__(
        self, database: Database, containers: Containers, directories: Directories, bound: int
    ) -> None:
        self._database = database
        self._containers = containers
        self._directories = directories
        self._bound = bound
        self._ticks: dict[int, int] = {}
        self.reload()

    def reload(self) -> None:
        """Count again from the database."""
        rows = self._database.rescue("SELECT count(*) FROM object")
        self.count: int = rows[0][0] if rows else 0
        self.tick: int = self._database.value("SELECT tick FROM state")

    def change_bound(self, bound: int) -> None:
        """Hold at most so many from now on."""
        self._bound = bound

    # -- reading -----------------------------------------------------------------------------------------

    def load(self, number: int) -> ObjectRow | None:
        """Return the object of an inode number."""
        row = self._database.row(_BY_NUMBER, (number,))
        return None if row is None else _object(row)

    def find(self, realm: int, fid: Fid) -> ObjectRow | None:
        """Return the object of a fid."""
        row = self._database.row(_BY_FID, (realm << 32 | fid.volume, fid.vnode, fid.unique))
        return None if row is None else _object(row)

    def children(self, number: int, *, after: int = 0, limit: int = -1) -> list[int]:
        """Return the inode numbers of the cached objects last found in this directory, in their order.

        Only those greater than `after`, at most `limit` (-1: all).
        """
        return [child for (child,) in self._database.rows(_CHILDREN, (number, after, limit))]

    def has_children(self, number: int) -> bool:
        """Is any object in this directory cached?"""
        return self._database.row("SELECT 1 FROM object WHERE parent = ? LIMIT 1", (number,)) is not None

    def of_volume(self, key: int, page: int) -> Iterator[list[int]]:
        """Yield the numbers of a volume's cached objects, `page` at a time; they may change between."""
        query = (
            f"SELECT o.number, i.vnode, i.uniquifier {_IN_VOLUME} AND (i.vnode, i.uniquifier) > (?, ?)"
            " ORDER BY i.vnode, i.uniquifier LIMIT ?"
        )
        last = (-1, -1)
        while rows := self._database.rows(query, (key, *last, page)):
            yield [number for number, _, _ in rows]
            last = rows[-1][1:]

    def of_volume_within(self, key: int, after: int, last: int) -> list[int]:
        """Return the numbers of a volume's cached objects behind `after` and up to `last`, in order."""
        query = f"SELECT o.number {_IN_VOLUME} AND o.number > ? AND o.number <= ? ORDER BY o.number"
        return [number for (number,) in self._database.rows(query, (key, after, last))]

    def in_conflict(self) -> list[int]:
        """Return the numbers of the objects that the servers cannot agree on."""
        query = "SELECT number FROM object WHERE flags & 4 <> 0 ORDER BY number"
        return [number for (number,) in self._database.rows(query)]

    def count_in(self, key: int) -> int:
        """Return how many objects of a volume are cached."""
        query = f"SELECT count(*) {_IN_VOLUME}"
        count: int = self._database.value(query, (key,))
        return count

    # -- changing; inside a transaction ------------------------------------------------------------------

    def add(self, row: ObjectRow) -> None:
        """Enter a new object.

        Its number has been given out. CacheFull at the limit: `replacement` makes room.
        """
        if self.count >= self._bound:
            raise CacheFull(f"the cache holds {self.count} objects, its limit")
        self._database.write(
            _INSERT,
            (
                row.number,
                row.parent,
                row.name,
                _pack_status(row.status),
                _pack_rights(row.rights),
                row.link,
                row.container,
                row.sha,
                int(row.flags),
                row.mount,
                row.hoard,
                row.hoard_uid,
                row.tick,
            ),
        )
        self._counted(1)

    def update(self, number: int, **columns: Unpack[Columns]) -> None:
        """Change the named columns of an object."""
        values: list[Any] = []
        for name, value in columns.items():
            convert = _CONVERT.get(name)
            values.append(value if convert is None else convert(value))
        assignments = ", ".join([f"{name} = ?" for name in columns])
        self._database.write(f"UPDATE object SET {assignments} WHERE number = ?", (*values, number))

    def forget_rights(self, realm: int, uid: int) -> None:
        """Forget the rights of a user in all objects of a realm. Inside a transaction."""
        query = (
            "SELECT o.number, o.rights FROM object AS o JOIN inode AS i ON i.number = o.number"
            " WHERE i.volume BETWEEN ? AND ? AND instr(o.rights, ?)"
        )
        volumes = volume_key(realm, 0), volume_key(realm, 2**32 - 1)
        for number, packed in self._database.rows(query, (*volumes, struct.pack("<i", uid))):
            rights = _unpack_rights(packed)
            if rights.pop(uid, None) is not None:
                self.update(number, rights=rights)

    def raise_hoard(self, number: int, hoard: int, uid: int) -> None:
        """See to it that an object has at least this hoard priority. Nothing if it is not cached."""
        self._database.write(
            "UPDATE object SET hoard = ?1, hoard_uid = ?2 WHERE number = ?3 AND hoard < ?1",
            (hoard, uid, number),
        )

    def bytes_of(self, number: int) -> int:
        """Return how many bytes of an object's contents are here."""
        query = "SELECT c.bytes FROM object AS o JOIN container AS c ON c.id = o.container WHERE o.number = ?"
        return self._database.value(query, (number,)) or 0

    def hoard_after(self, number: int, limit: int) -> list[tuple[int, int]]:
        """Return number and hoard priority of the next objects in order of number."""
        query = "SELECT number, hoard FROM object WHERE number > ? ORDER BY number LIMIT ?"
        return [(found, hoard) for found, hoard in self._database.rows(query, (number, limit))]

    def attach(self, number: int, container: Container | None) -> None:
        """Give an object its contents, writing the container's row, or take them away.

        What it had is released. But if the new container is being written, the old contents are kept as the
        previous ones, until a store of the new ones is logged or they are taken back.
        """
        query = (
            "SELECT o.container, o.previous, coalesce(c.writing, 0) FROM object AS o"
            " LEFT JOIN container AS c ON c.id = o.container WHERE o.number = ?"
        )
        row = self._database.row(query, (number,))
        if row is None:
            raise KeyError(number)
        new = None
        if container is not None:
            self._containers.save(container)
            new = container.id
        old, previous, was_writing = row
        if old == new:
            return
        kept = None
        if container is not None and container.writing:
            kept = previous if was_writing else old
        self._database.write(
            "UPDATE object SET container = ?, previous = ? WHERE number = ?", (new, kept, number)
        )
        for gone in {old, previous} - {None, kept}:
            self._containers.release(gone)

    def take_back(self, number: int) -> None:
        """Return to the previous contents, or to none: what was being written is given up."""
        row = self._database.row("SELECT container, previous FROM object WHERE number = ?", (number,))
        if row is None:
            raise KeyError(number)
        self._database.write(
            "UPDATE object SET container = previous, previous = NULL WHERE number = ?", (number,)
        )
        if row[0] is not None:
            self._containers.release(row[0])

    def drop(self, number: int) -> None:
        """Forget an object with its contents. Its number stays."""
        row = self._database.row("SELECT container, previous FROM object WHERE number = ?", (number,))
        if row is None:
            return
        self._database.write("DELETE FROM object WHERE number = ?", (number,))
        self._directories.drop(number)
        for container in set(row) - {None}:
            self._containers.release(container)
        self._ticks.pop(number, None)
        self._counted(-1)

    def mark_conflict(self, number: int, on: bool) -> None:
        """Note that the servers cannot agree on an object, or that they do again."""
        query = "UPDATE object SET flags = flags | 4" if on else "UPDATE object SET flags = flags & ~4"
        self._database.write(f"{query} WHERE number = ?", (number,))

    def renumber(self, old: int, new: int) -> None:
        """Move a clean object from a past inode number to its fid's new one, without its contents.

        Those are of the old number, and whoever has it open keeps them.
        """
        self.attach(old, None)
        self._database.write("UPDATE object SET number = ? WHERE number = ?", (new, old))
        self._database.write("UPDATE object SET parent = ? WHERE parent = ?", (new, old))
        self._database.write("UPDATE object SET mount = ? WHERE mount = ?", (new, old))
        self._directories.move(old, new)
        self._ticks.pop(old, None)

    def _counted(self, step: int) -> None:
        self.count += step
        self._database.on_rollback(lambda: self._uncounted(step))

    def _uncounted(self, step: int) -> None:
        self.count -= step

    # -- recency -----------------------------------------------------------------------------------------

    def touch(self, number: int) -> None:
        """Note a reference to an object. Kept in memory; written by `flush_ticks`."""
        self.tick += 1
        self._ticks[number] = self.tick

    @property
    def ticks_to_flush(self) -> bool:
        """Have so many references been noted that they should be written?"""
        return len(self._ticks) >= _MEMORY_TICKS

    def flush_ticks(self) -> None:
        """Write the references noted. Inside a transaction."""
        for number, tick in self._ticks.items():
            self._database.write("UPDATE object SET tick = ? WHERE number = ?", (tick, number))
        self._database.write("UPDATE state SET tick = ?", (self.tick,))
        self._ticks.clear()

    def forget_recency(self) -> None:
        """Make every object as if never referred to (`cfs clearpriorities`). Inside a transaction."""
        self._ticks.clear()
        self._database.write("UPDATE object SET tick = 0")


# -- between columns and values --------------------------------------------------------------------------


def _object(row: tuple[Any, ...]) -> ObjectRow:
    (
        number,
        volume,
        vnode,
        unique,
        parent,
        name,
        status,
        rights,
        link,
        container,
        sha,
        flags,
        mount,
        hoard,
        hoard_uid,
        tick,
    ) = row
    realm, volume = split_key(volume)
    return ObjectRow(
        number,
        realm,
        Fid(volume, vnode, unique),
        parent,
        name,
        None if status is None else Status.unpack_argument(Unpacker(status)),
        _unpack_rights(rights),
        link,
        container,
        sha,
        _FLAGS[flags],
        mount,
        hoard,
        hoard_uid,
        tick,
    )


_FLAGS = [Flags(value) for value in range(KEEP + 1)]


def _pack_status(status: Status | None) -> bytes | None:
    if status is None:
        return None
    packer = Packer()
    status.pack(packer)
    return packer.done()


def _pack_rights(rights: Mapping[int, int]) -> bytes:
    if len(rights) > MAX_RIGHTS:
        raise ValueError(f"rights of {len(rights)} users")
    return b"".join([_RIGHTS.pack(*entry) for entry in rights.items()])


def _unpack_rights(packed: bytes) -> dict[int, int]:
    return dict(_RIGHTS.iter_unpack(packed))


_RIGHTS = struct.Struct("<iI")
_CONVERT: Final[dict[str, Any]] = {"status": _pack_status, "rights": _pack_rights, "flags": int}
