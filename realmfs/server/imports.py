"""Filling a volume with a tree of files of this machine, fast: ten thousand small files in a few seconds.

Nothing goes through log records and certification: rows, pages and containers are made directly, several
hundred objects a transaction. The volume is off line while this runs (`filling`), and goes on line in one
transaction after everything is on the disk; broken off, the volume is worthless and the next import into it
starts anew.

Hard links between files of one directory stay hard links; across directories, which Coda does not have, they
become files of their own. Sockets, pipes and devices, and names that Coda forbids, are reported and left out.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from realmfs.server.access import Acl
from realmfs.server.database import StoreError
from realmfs.server.store import NOBODY, ServerStore
from realmfs.server.vnodes import Vnode, new_directory
from realmfs.server.volumes import Volume
from realmfs.vice.directory import MAX_NAME, Directory
from realmfs.vice.errors import CodaError
from realmfs.vice.names import is_expanded, is_reserved
from realmfs.vice.types import Fid, ObjectType, StoreId, VersionFlags, VersionVector

log = logging.getLogger(__name__)

BATCH: Final = 500
"""Objects per transaction."""
MAX_TARGET: Final = 1023
MAX_FILE: Final = 0x7FFFFFFF


@dataclass(slots=True)
class Imported:
    """What an import did."""

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """What was left out: path below the imported directory, and why."""

    @property
    def objects(self) -> int:
        """How many objects were made."""
        return self.files + self.directories + self.links


def import_tree(store: ServerStore, volume: str, path: Path, owner: int | None = None) -> Imported:
    """Fill the empty volume of this name with the contents of the directory `path`; blocking.

    Everything belongs to `owner` (a Vice id) or else to nobody, with the modes and times it has;
    all directories get the access list of the volume's root. Raises StoreError: no such volume, not empty, or
    `path` cannot be read; OSError if the disk fails.
    """
    row = store.volumes.named(volume)
    if row is None:
        raise StoreError(f"there is no volume {volume}")
    if not path.is_dir():
        raise StoreError(f"{path} is no directory")
    root = store.vnodes.find(store.root_of(row))
    if root is None or root.acl is None:
        raise StoreError(f"the volume {volume} has no root")
    if not row.filling and not store.vnodes.take_directory(root.fid).is_empty:
        raise StoreError(f"the volume {volume} is not empty")
    with store.transaction():
        store.volumes.begin_filling(row)
    store.containers.remove_all_but(store.vnodes.containers())
    work = _Import(store, row, root.acl, owner or NOBODY)
    done = work.fill(root, path)
    os.sync()
    with store.transaction():
        store.volumes.filled(row.id)
    store.database.sync()
    log.info("%s: imported %d objects, %d bytes from %s", volume, done.objects, done.bytes, path)
    return done


def forbidden(name: bytes) -> str | None:
    """Return why Coda cannot have an entry of this name; None if it can (directories.md §3.3)."""
    if len(name) > MAX_NAME:
        return "the name is too long"
    if is_reserved(name):
        return "names of this form mark conflicts"
    if is_expanded(name):
        return "clients replace the end of such a name"
    return None


class _LeftOut(Exception):  # noqa: N818  # nothing is wrong, only impossible
    """An entry that the volume cannot have; the text says why."""


class _Place:
    """A directory being imported: its row and contents, its source, and the files met in it."""

    def __init__(self, vnode: Vnode, source: Path, shown: Path, parent: Vnode | None = None) -> None:
        self.vnode = vnode
        self.source = source
        self.shown = shown
        self.contents = Directory.new(vnode.fid[1:], (parent or vnode).fid[1:])
        self.files: dict[tuple[int, int], Vnode] = {}


class _Import:
    """One run, with what is not yet written."""

    def __init__(self, store: ServerStore, volume: Volume, acl: Acl, owner: int) -> None:
        self._store = store
        self._volume = volume
        self._acl = acl
        self._owner = owner
        self._vector = VersionVector().raised([volume.slot]).with_flags(VersionFlags(0))
        self._done = Imported()
        self._vnodes: list[Vnode] = []
        self._pages: list[tuple[Fid, Directory]] = []
        self._blocks = 0
        self._unique = 1
        self._slots = {True: 0, False: -1}
        self._server = store.number
        self._stamps = range(0)

    def fill(self, root: Vnode, path: Path) -> Imported:
        """Walk the tree, a directory at a time; its parent has entered it already."""
        info = path.stat()
        root.links, root.mode, root.mtime = 2, stat.S_IMODE(info.st_mode), _mtime(info)
        todo = [_Place(root, path, Path())]
        while todo:
            place = todo.pop()
            for entry in self._entries(place):
                try:
                    child = self._import(place, entry)
                except _LeftOut as reason:
                    self._done.skipped.append((str(place.shown / entry.name), str(reason)))
                    continue
                if child.is_directory:
                    todo.append(_Place(child, Path(entry.path), place.shown / entry.name, place.vnode))
            place.vnode.length = place.contents.length
            place.vnode.vv = self._next_vector()
            self._pages.append((place.vnode.fid, place.contents))
            self._add(place.vnode)
        self._flush()
        return self._done

    def _entries(self, place: _Place) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(place.source) as listing:
                return sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._done.skipped.append((str(place.shown), f"cannot be read: {error.strerror}"))
            return []

    def _import(self, place: _Place, entry: os.DirEntry[str]) -> Vnode:
        """Make the object for an entry and enter it into its directory. Raises _LeftOut, OSError."""
        name = os.fsencode(entry.name)
        reason = forbidden(name)
        if reason:
            raise _LeftOut(reason)
        try:
            info = entry.stat(follow_symlinks=False)
            child = self._linked(place, info) or self._make(place.vnode, entry, info)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise _LeftOut(f"cannot be read: {error.strerror}") from error
        try:
            place.contents.insert(name, *child.fid[1:])
        except CodaError as error:
            if child.container is not None and child.links == 1:
                self._store.containers.remove([child.container])
            raise _LeftOut(str(error)) from error
        if child.is_directory:
            place.vnode.links += 1
        else:
            self._add(child)
            place.files[info.st_dev, info.st_ino] = child
        self._count(child)
        return child

    def _linked(self, place: _Place, info: os.stat_result) -> Vnode | None:
        """Return the file of the same directory that this is another name of, with the link counted."""
        first = place.files.get((info.st_dev, info.st_ino)) if info.st_nlink > 1 else None
        if first is not None:
            first.links += 1
            self._blocks -= first.blocks  # it is added a second time, with the new count
        return first

    def _make(self, parent: Vnode, entry: os.DirEntry[str], info: os.stat_result) -> Vnode:
        mode, mtime = stat.S_IMODE(info.st_mode), _mtime(info)
        if stat.S_ISDIR(info.st_mode):
            fid = self._fid(directory=True)
            return new_directory(fid, parent.fid[1:], self._owner, mode, mtime, self._acl)
        if stat.S_ISLNK(info.st_mode):
            target = os.fsencode(os.readlink(entry.path))
            if len(target) > MAX_TARGET:
                raise _LeftOut("the link's contents are too long")
            made = self._leaf(parent, ObjectType.SYMLINK, len(target), 0o777, mtime)
            made.target = target
            return made
        if not stat.S_ISREG(info.st_mode):
            raise _LeftOut("neither file, directory nor symbolic link")
        if info.st_size > MAX_FILE:
            raise _LeftOut("files of 2 GiB and more are beyond the protocol")
        made = self._leaf(parent, ObjectType.FILE, 0, mode, mtime)
        if info.st_size:
            container = self._store.containers.adopt(Path(entry.path))
            container.close()
            made.length, made.container, made.sha = container.length, container.number, container.sha
        return made

    def _count(self, child: Vnode) -> None:
        done = self._done
        done.directories += child.is_directory
        done.links += child.type is ObjectType.SYMLINK
        if child.type is ObjectType.FILE and child.links == 1:
            done.files += 1
            done.bytes += child.length

    def _leaf(self, parent: Vnode, kind: ObjectType, length: int, mode: int, mtime: int) -> Vnode:
        fid, owner = self._fid(directory=False), self._owner
        return Vnode(fid, kind, 1, length, 1, self._next_vector(), mtime, owner, owner, mode, parent.fid[1:])

    def _fid(self, *, directory: bool) -> Fid:
        self._unique += 1
        self._slots[directory] += 1
        return Fid(self._volume.id, 2 * self._slots[directory] + (1 if directory else 2), self._unique)

    def _next_vector(self) -> VersionVector:
        """One update made by this server; its store ids carry the server's number (vice.md §1)."""
        if not self._stamps:
            first = self._store.new_store_ids(BATCH)
            self._stamps = range(first, first + BATCH)
        stamp, self._stamps = self._stamps[0], self._stamps[1:]
        return self._vector.with_store_id(StoreId(self._server, stamp))

    def _add(self, vnode: Vnode) -> None:
        self._vnodes.append(vnode)
        self._blocks += vnode.blocks
        if len(self._vnodes) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        with self._store.transaction():
            self._store.vnodes.write(self._vnodes)
            for fid, contents in self._pages:
                self._store.vnodes.write_pages(fid, contents.take_dirty())
            self._store.volumes.settle(self._volume.id, len(self._vnodes), self._blocks)
            slots = (self._slots[False] + 1, self._slots[True] + 1)
            self._store.volumes.note_marks(self._volume.id, self._unique + 1, *slots)
        self._vnodes.clear()
        self._pages.clear()
        self._blocks = 0


def _mtime(info: os.stat_result) -> int:
    return min(max(0, int(info.st_mtime)), 0xFFFFFFFF)
