"""Replaying one record of a modify log: is it allowed, does it fit, what does it do (reintegration.md §2.3f).

Directories are not compared by version at all: a name that is free is free, whoever changed the directory
meanwhile. Files and symbolic links must be exactly those that the client changed: their store id is the one
in the record, or it is a conflict. Rights are those that the caller has now, on the directory as it is now.

The order of checks is the document's: the error tells the client which conflict it has.
"""

from __future__ import annotations

from typing import Final

from realmfs.server.access import Acl, Identity
from realmfs.server.views import MODE, NOWHERE, OWNER, Node
from realmfs.server.vnodes import Vnode, new_directory
from realmfs.server.workingset import WorkingSet
from realmfs.vice import log
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Rights, VersionVector

_LINK_MODE: Final = 0o777
_OWNER_EXECUTE: Final = 0o100
_MODE: Final = 0o7777
_MAX_TARGET: Final = 4095
_DOTS: Final = (b".", b"..")


class Certifier:
    """Replays the records of one batch, in order, into a working set."""

    def __init__(self, work: WorkingSet, identity: Identity, *, authenticated: bool) -> None:
        self._work = work
        self._identity = identity
        self._author = identity.user & 0xFFFFFFFF
        self._authenticated = authenticated
        self.stores: dict[Fid, int] = {}
        """Files stored to that still exist, with the length of the last store: their data are due."""
        self.stale: dict[Fid, None] = {}
        """Directories that others had changed before the batch."""

    def replay(self, record: log.AnyRecord) -> None:
        """Certify and apply one record. Raises CodaError, and the working set is then good for nothing."""
        match record:
            case log.Create() | log.MakeDir() | log.SymLink():
                self._insert_new(record)
            case log.Link():
                self._link(record)
            case log.Remove():
                self._remove(record)
            case log.RemoveDir():
                self._remove_directory(record)
            case log.Rename():
                self._rename(record)
            case log.Store():
                self._store(record)
            case log.Utimes() | log.Chmod() | log.Chown():
                self._set_attribute(record)

    # names

    def _insert_new(self, record: log.Create | log.MakeDir | log.SymLink) -> None:
        parent, contents = self._parent(record.parent, record.name, record.parent_vv)
        fid = self._own(record.fid)
        if record.name in contents:
            raise CodaError(Code.EEXIST, "the name is taken")
        acl = self._require(parent, Rights.INSERT)
        match record:
            case log.MakeDir():
                below = Directory.new(fid[1:], parent.fid[1:])
                made = new_directory(fid, parent.fid[1:], self._author, record.mode, record.mtime, acl)
                self._work.create(made, below)
                parent.links += 1
            case log.SymLink():
                self._work.create(made := self._new_symlink(record, fid, parent))
            case log.Create():
                mode = record.mode & _MODE
                made = self._new_leaf(fid, ObjectType.FILE, parent, mode, record.mtime, data_version=0)
                self._work.create(made)
        self._enter(parent, contents, record.name, fid, record)
        self._work.touch(made, record.store_id)

    def _link(self, record: log.Link) -> None:
        parent, contents = self._parent(record.parent, record.name, record.parent_vv)
        if record.name in contents:
            raise CodaError(Code.EEXIST, "the name is taken")
        file = self._work.get(self._own(record.fid))
        if file.type is not ObjectType.FILE:
            raise CodaError(Code.EISDIR, "only files can have several names")
        self._same(file, record.vv)
        if file.parent_fid != parent.fid:
            raise CodaError(Code.EXDEV, "all names of a file are in one directory")
        self._require(parent, Rights.INSERT)
        file.links += 1
        self._enter(parent, contents, record.name, file.fid, record)
        self._work.touch(file, record.store_id)

    def _remove(self, record: log.Remove) -> None:
        parent, contents = self._parent(record.parent, record.name, record.parent_vv)
        child = self._child(parent, contents, record.name)
        if child.is_directory:
            raise CodaError(Code.EISDIR)
        self._same(child, record.vv)
        self._require(parent, Rights.DELETE)
        mount = child.type is ObjectType.SYMLINK and not child.mode & _OWNER_EXECUTE
        if mount and not self._identity.administrator:
            raise CodaError(Code.EACCES, "only administrators remove mount links")
        child.links -= 1
        self._leave(parent, contents, record.name, child, record)
        if child.links > 0:
            self._work.touch(child, record.store_id)
        else:
            self.stores.pop(child.fid, None)
            self._work.remove(child)

    def _remove_directory(self, record: log.RemoveDir) -> None:
        parent, contents = self._parent(record.parent, record.name, record.parent_vv)
        child = self._child(parent, contents, record.name)
        if not self._work.directory(child.fid).is_empty:
            raise CodaError(Code.ENOTEMPTY)
        self._require(parent, Rights.DELETE)
        parent.links -= 1
        self._leave(parent, contents, record.name, child, record)
        self._work.remove(child)

    def _rename(self, record: log.Rename) -> None:
        source, from_contents = self._parent(record.old_parent, record.old_name, record.old_parent_vv)
        target, to_contents = self._parent(record.new_parent, record.new_name, record.new_parent_vv)
        moved = self._child(source, from_contents, record.old_name)
        if record.new_name in to_contents:
            raise CodaError(Code.EINCOMPATIBLE, "the new name is taken")
        if moved.is_directory:
            self._check_no_loop(moved.fid, target)
            self._note_base(moved, record.fid, record.vv)
        else:
            self._same(moved, record.vv)
        across = source.fid != target.fid
        if across and moved.links > 1 and not moved.is_directory:
            raise CodaError(Code.EXDEV, "a file with several names cannot leave its directory")
        self._require(source, Rights.DELETE)
        self._require(target, Rights.INSERT)
        self._leave(source, from_contents, record.old_name, moved, record, to=target.fid[1:])
        self._enter(target, to_contents, record.new_name, moved.fid, record)
        if across:
            moved.parent = target.fid[1:]
            if moved.is_directory:
                self._change_parent(moved, source, target, record)
        self._work.touch(moved, record.store_id)

    def _change_parent(self, moved: Vnode, source: Vnode, target: Vnode, record: log.Rename) -> None:
        source.links -= 1
        target.links += 1
        below = self._work.directory(moved.fid)
        below.move_to(target.fid[1:])
        self._resize_directory(moved, below)
        moved.data_version += 1

    # objects

    def _store(self, record: log.Store) -> None:
        file = self._work.get(self._own(record.fid))
        if file.type is not ObjectType.FILE:
            raise CodaError(Code.EISDIR, "only files can be stored to")
        self._same(file, record.vv)
        if record.length < 0:
            raise CodaError(Code.EINVAL)
        if not self._is_virgin_owner(file) and not self._identity.may(self._work.acl(file), Rights.WRITE):
            raise CodaError(Code.EACCES)
        self._work.supersede(file.fid, file)
        self._work.resize(file, record.length)
        file.mtime, file.author = record.mtime, self._author
        file.data_version += 1
        self.stores[file.fid] = record.length
        self._work.touch(file, record.store_id)

    def _set_attribute(self, record: log.Utimes | log.Chmod | log.Chown) -> None:
        vnode = self._work.get(self._own(record.fid))
        if vnode.is_directory:
            self._note_base(vnode, record.fid, record.vv)
        else:
            self._same(vnode, record.vv)
        if isinstance(record, log.Chmod) and vnode.type is ObjectType.SYMLINK:
            raise CodaError(Code.EACCES, "symbolic links have no mode of their own")
        if not self._identity.administrator:
            self._require_setattr(vnode, chown=isinstance(record, log.Chown))
        match record:
            case log.Utimes():
                vnode.mtime = record.date
            case log.Chmod():
                vnode.mode = record.mode & _MODE
                if vnode.is_directory:
                    self._work.set_attribute(vnode, MODE, record.store_id)
            case log.Chown():
                vnode.owner = record.owner
                if vnode.is_directory:
                    self._work.set_attribute(vnode, OWNER, record.store_id)
        vnode.author = self._author
        self._work.touch(vnode, record.store_id)

    def _require_setattr(self, vnode: Vnode, *, chown: bool) -> None:
        if chown and not self._owns(vnode):
            raise CodaError(Code.EACCES, "only the owner gives an object away")
        if self._is_virgin_owner(vnode):
            if chown:
                raise CodaError(Code.EACCES)
            return
        acl = self._work.acl(vnode)
        if vnode.is_directory:
            allowed = self._identity.may(acl, Rights.INSERT) or self._identity.may(acl, Rights.DELETE)
        else:
            allowed = self._identity.may(acl, Rights.WRITE)
        if not allowed:
            raise CodaError(Code.EACCES)

    # what the operations share

    def _own(self, fid: Fid) -> Fid:
        return fid.in_volume(self._work.volume.id)

    def _parent(self, fid: Fid, name: bytes, vv: VersionVector) -> tuple[Vnode, Directory]:
        """Return a directory and its contents for a record that names an entry in it.

        Note if the client's is stale.
        """
        parent = self._work.get(self._own(fid))
        if not parent.is_directory:
            raise CodaError(Code.ENOTDIR)
        if name in _DOTS:
            raise CodaError(Code.EINVAL)
        self._note_base(parent, fid, vv)
        return parent, self._work.directory(parent.fid)

    def _note_base(self, directory: Vnode, fid: Fid, vv: VersionVector) -> None:
        """Note whether a directory is not what the client knew when it made a record of it."""
        if directory.vv.versions != vv.versions or directory.vv.store_id != vv.store_id:
            self.stale[fid] = None
        if directory.vv.store_id != vv.store_id:
            self._work.overtaken(directory.fid)

    def _child(self, parent: Vnode, contents: Directory, name: bytes) -> Vnode:
        entry = contents.lookup(name)
        if entry is None:
            raise CodaError(Code.ENOENT)
        child = self._work.get(Fid(parent.fid.volume, *entry))
        if child.parent_fid != parent.fid:
            raise CodaError(Code.EINVAL, f"{child.fid} is not at home in {parent.fid}")
        return child

    def _same(self, vnode: Vnode, vv: VersionVector) -> None:
        """Raise CodaError EINCOMPATIBLE unless the object's last update is the one the client knew of."""
        if vnode.vv.store_id != vv.store_id:
            raise CodaError(Code.EINCOMPATIBLE, f"{vnode.fid} was changed by {vnode.vv.store_id}")

    def _require(self, directory: Vnode, right: Rights) -> Acl:
        acl = self._work.acl(directory)
        if not self._identity.may(acl, right):
            raise CodaError(Code.EACCES)
        return acl

    def _owns(self, vnode: Vnode) -> bool:
        return self._authenticated and vnode.owner == self._author

    def _is_virgin_owner(self, vnode: Vnode) -> bool:
        """Whether this is a file that its owner created and nobody has stored to: that needs no right."""
        return vnode.type is ObjectType.FILE and vnode.data_version == 0 and self._owns(vnode)

    def _check_no_loop(self, moved: Fid, target: Vnode) -> None:
        """Raise CodaError ELOOP if the directory would end up in itself."""
        above: Vnode | None = target
        while above is not None:
            if above.fid == moved:
                raise CodaError(Code.ELOOP)
            above = self._work.get(above.parent_fid) if above.parent[0] else None

    def _enter(self, parent: Vnode, contents: Directory, name: bytes, fid: Fid, record: log.Record) -> None:
        contents.insert(name, *fid[1:])
        self._work.entered(parent.fid, name, record.store_id)
        self._changed(parent, contents, record)

    def _leave(
        self,
        parent: Vnode,
        contents: Directory,
        name: bytes,
        child: Vnode,
        record: log.Record,
        to: Node = NOWHERE,
    ) -> None:
        contents.delete(name)
        self._work.left(parent.fid, name, child, record.store_id, to)
        self._changed(parent, contents, record)

    def _changed(self, parent: Vnode, contents: Directory, record: log.Record) -> None:
        self._resize_directory(parent, contents)
        parent.mtime, parent.author = record.mtime, self._author
        parent.data_version += 1
        self._work.touch(parent, record.store_id)

    def _resize_directory(self, vnode: Vnode, contents: Directory) -> None:
        if contents.length != vnode.length:
            self._work.resize(vnode, contents.length)

    def _new_leaf(
        self, fid: Fid, kind: ObjectType, parent: Vnode, mode: int, mtime: int, *, data_version: int
    ) -> Vnode:
        author = self._author
        vv = VersionVector()
        return Vnode(fid, kind, 1, 0, data_version, vv, mtime, author, author, mode, parent.fid[1:])

    def _new_symlink(self, record: log.SymLink, fid: Fid, parent: Vnode) -> Vnode:
        if not 0 < len(record.content) <= _MAX_TARGET:
            raise CodaError(Code.EINVAL, "the contents of a symbolic link are empty or too long")
        mode = record.mode & _MODE if self._identity.administrator else _LINK_MODE
        made = self._new_leaf(fid, ObjectType.SYMLINK, parent, mode, record.mtime, data_version=1)
        made.length, made.target = len(record.content), record.content
        return made
