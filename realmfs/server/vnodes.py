"""The objects of a store: status, directory pages, symbolic links' contents, names of containers.

A `Vnode` is a mutable copy of a row. Handlers read one, answer, and drop it; a batch of changes collects the
ones it touches and writes them back in one transaction. Directories that batches have parsed are kept for the
next batch; who changes one takes it away first, so that a batch that fails leaves no half-changed copy
behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from realmfs.server.access import Acl
from realmfs.server.database import Database
from realmfs.server.merge import digest
from realmfs.server.volumes import VERSIONS
from realmfs.vice.directory import Directory
from realmfs.vice.types import ROOT, Fid, ObjectType, StoreId, VersionFlags, VersionVector

_COLUMNS = (
    "volume, vnode, uniq, type, links, length, data_version, versions, store_host, store_unique, flags, "
    "mtime, author, owner, mode, parent_vnode, parent_unique, container, sha, target, acl"
)
_HOLES = ", ".join("?" * 21)
_KEPT_DIRECTORIES = 256
_KEPT_OTHERS = 4096


@dataclass(slots=True)
class Vnode:
    """An object: its fid under the replica's volume id, and all that the store knows of it but data."""

    fid: Fid
    type: ObjectType
    links: int
    length: int
    data_version: int
    vv: VersionVector
    mtime: int
    author: int
    owner: int
    mode: int
    parent: tuple[int, int]
    """Vnode and unique of the parent directory; (0, 0) of a volume root."""
    container: int | None = None
    sha: bytes | None = None
    target: bytes | None = None
    acl: Acl | None = None
    """Of a directory: its access list."""

    @property
    def parent_fid(self) -> Fid:
        """The fid of the parent directory, whose access list governs everything that is no directory."""
        return Fid(self.fid.volume, *self.parent)

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.type is ObjectType.DIRECTORY

    @property
    def blocks(self) -> int:
        """What the object counts for in its volume's quota, in 1 KiB blocks (vice.md §1.3)."""
        return max(1, (self.length + 1023) >> 10)


class Vnodes:
    """The tables `vnode` and `page`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._directories: OrderedDict[Fid, Directory] = OrderedDict()
        self._others: OrderedDict[StoreId, set[StoreId]] = OrderedDict()
        self.on_uneven: Callable[[Fid], None] = lambda fid: None
        """Told of objects of which a replica may have missed an update or a second phase, without a mark."""
        database.on_foreign_change(self._directories.clear)

    def find(self, fid: Fid) -> Vnode | None:
        """Return the object, if it exists; the fid's volume is the replica's."""
        row = self._database.row(
            f"SELECT {_COLUMNS} FROM vnode WHERE volume = ? AND vnode = ? AND uniq = ?", *fid
        )
        return _vnode(row) if row else None

    def all(self, volume: int) -> list[Vnode]:
        """Return all objects of a volume."""
        return [
            _vnode(row)
            for row in self._database.rows(f"SELECT {_COLUMNS} FROM vnode WHERE volume = ?", volume)
        ]

    def write(self, vnodes: Iterable[Vnode]) -> None:
        """Insert or replace rows."""
        self._database.executemany(
            f"INSERT OR REPLACE INTO vnode VALUES ({_HOLES})", [_row(vnode) for vnode in vnodes]
        )

    def set_vector(self, fid: Fid, vv: VersionVector) -> None:
        """Replace the version vector of an object."""
        self._database.execute(
            "UPDATE vnode SET versions = ?, store_host = ?, store_unique = ?, flags = ? "
            "WHERE volume = ? AND vnode = ? AND uniq = ?",
            (VERSIONS.pack(*vv.versions), *vv.store_id, vv.flags, *fid),
        )

    def remove(self, fids: Iterable[Fid]) -> None:
        """Delete objects and the pages of directories."""
        gone = [tuple(fid) for fid in fids]
        for table in ("vnode", "page"):
            self._database.executemany(
                f"DELETE FROM {table} WHERE volume = ? AND vnode = ? AND uniq = ?", gone
            )

    def count_update(self, fid: Fid, base: VersionVector, slot: int, store_id: StoreId) -> VersionVector:
        """Return the vector of an object that an update changes, for the caller to write."""
        if base.cop2_pending:
            self.on_uneven(fid)
        raised = base.raised([slot]).with_store_id(store_id)
        return raised.with_flags(base.flags | VersionFlags.COP2PENDING)

    def id_upon(self, directory: Fid, base: VersionVector, store_id: StoreId) -> StoreId:
        """Return the store id for an update of a directory that was made without knowledge of its version.

        Who made it does not have what comes out, and where others' changes have not arrived something else
        comes out. So this id is of the update upon what was there: equal ones mean equal names. (Reference
        servers make a new one each, reintegration.md §2.7, and replicas that are equal must be resolved.)
        The second phase names the update; it is found in memory, and may be lost with it.
        """
        other = digest("upon", directory[1:], base.store_id, store_id)
        self._others.setdefault(store_id, set()).add(other)
        while len(self._others) > _KEPT_OTHERS:
            self._others.popitem(last=False)
        return other

    def pending(self, store_id: StoreId) -> list[Vnode]:
        """Return the objects whose last update was this one and still waits for its second phase."""
        return [
            _vnode(row)
            for known in (store_id, *sorted(self._others.get(store_id, ())))
            for row in self._database.rows(
                f"SELECT {_COLUMNS} FROM vnode WHERE store_host = ? AND store_unique = ? AND flags & 8",
                *known,
            )
        ]

    def containers(self) -> set[int]:
        """Return the numbers of all containers that a row names."""
        return {
            row[0] for row in self._database.rows("SELECT container FROM vnode WHERE container IS NOT NULL")
        }

    def image(self, fid: Fid) -> bytes:
        """Return a directory as clients fetch it."""
        rows = self._database.rows(
            "SELECT bytes FROM page WHERE volume = ? AND vnode = ? AND uniq = ? ORDER BY number", *fid
        )
        return b"".join(row[0] for row in rows)

    def take_directory(self, fid: Fid) -> Directory:
        """Return the contents of a directory, to be changed by the caller alone.

        Raises BadPacket if damaged.
        """
        kept = self._directories.pop(fid, None)
        return kept if kept is not None else Directory.parse(self.image(fid))

    def keep_directory(self, fid: Fid, directory: Directory) -> None:
        """Keep contents that are as stored, for the next one who takes them."""
        self._directories[fid] = directory
        while len(self._directories) > _KEPT_DIRECTORIES:
            self._directories.popitem(last=False)

    def forget_directory(self, fid: Fid) -> None:
        """Drop the kept contents of a directory: they are being replaced."""
        self._directories.pop(fid, None)

    def drop_pages(self, fid: Fid) -> None:
        """Delete all pages of a directory, before others are written."""
        self._database.execute("DELETE FROM page WHERE volume = ? AND vnode = ? AND uniq = ?", tuple(fid))

    def write_pages(self, fid: Fid, pages: Mapping[int, bytes]) -> None:
        """Store pages of a directory, by number."""
        self._database.executemany(
            "INSERT OR REPLACE INTO page VALUES (?, ?, ?, ?, ?)",
            [(*fid, number, page) for number, page in pages.items()],
        )


def new_directory(fid: Fid, parent: tuple[int, int], author: int, mode: int, mtime: int, acl: Acl) -> Vnode:
    """Return a fresh directory: two links, one page, data version 1 (reintegration.md §2.4).

    (0, 0) has no parent.
    """
    return Vnode(
        fid,
        ObjectType.DIRECTORY,
        2,
        2048,
        1,
        VersionVector(),
        mtime,
        author,
        author,
        mode & 0o7777,
        parent,
        acl=acl,
    )


def new_root(volume: int, owner: int, mtime: int, acl: Acl) -> tuple[Vnode, Directory]:
    """Return the root of a new volume; its `..` is itself (directories.md §2.5)."""
    fid = Fid.root(volume)
    return new_directory(fid, (0, 0), owner, 0o755, mtime, acl), Directory.new(ROOT, ROOT)


def _vnode(row: tuple[Any, ...]) -> Vnode:
    volume, vnode, unique, kind, links, length, data_version, versions, host, store_unique, flags, *rest = row
    mtime, author, owner, mode, parent_vnode, parent_unique, container, sha, target, acl = rest
    return Vnode(
        fid=Fid(volume, vnode, unique),
        type=ObjectType(kind),
        links=links,
        length=length,
        data_version=data_version,
        vv=VersionVector(VERSIONS.unpack(versions), StoreId(host, store_unique), flags),
        mtime=mtime,
        author=author,
        owner=owner,
        mode=mode,
        parent=(parent_vnode, parent_unique),
        container=container,
        sha=sha,
        target=target,
        acl=Acl.unpack(acl) if acl is not None else None,
    )


def _row(vnode: Vnode) -> tuple[Any, ...]:
    vv = vnode.vv
    identity = (*vnode.fid, int(vnode.type), vnode.links, vnode.length, vnode.data_version)
    version = (VERSIONS.pack(*vv.versions), *vv.store_id, vv.flags & ~VersionFlags.LOCAL)
    status = (vnode.mtime, vnode.author, vnode.owner, vnode.mode, *vnode.parent)
    acl = vnode.acl.pack() if vnode.acl is not None else None
    return (*identity, *version, *status, vnode.container, vnode.sha, vnode.target, acl)
