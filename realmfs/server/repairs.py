"""Repairing a directory in conflict: what a ViceRepair brings for one replica (conflicts.md §5.3, §5.4).

They are edits of this replica only; each replica gets its own, so that afterwards all are the same. The mark
stays: the next resolution looks whether they really are, and takes it away (repaired.py). What a command
creates is a shell, whose contents resolution brings from the replica that has them.
"""

from __future__ import annotations

import time
from typing import Final

from realmfs.server.access import MAX_ENTRIES, Acl
from realmfs.server.state import Caller, ServerState
from realmfs.server.views import ACL, MODE, NOWHERE, OWNER, Node
from realmfs.server.vnodes import Vnode, new_directory
from realmfs.server.workingset import WorkingSet
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.repair import RepairCommand, RepairOp
from realmfs.vice.types import Fid, ObjectType, Rights, StoreId, VersionFlags, VersionVector

_SHELL: Final = VersionVector().with_flags(VersionFlags.BARREN)
_KINDS: Final = {
    RepairOp.CREATE_FILE: (ObjectType.FILE, 0o644),
    RepairOp.CREATE_SYMLINK: (ObjectType.SYMLINK, 0o777),
    RepairOp.CREATE_DIRECTORY: (ObjectType.DIRECTORY, 0o755),
}
_MAX_DEPTH: Final = 256


class DirectoryRepair:
    """The commands for one directory, executed in a working set that tolerates what is marked."""

    def __init__(self, state: ServerState, caller: Caller, work: WorkingSet, fid: Fid, op: StoreId) -> None:
        self._state = state
        self._caller = caller
        self._work = work
        self._fid = fid
        self._op = op

    def execute(self, command: RepairCommand) -> None:
        """Do one. Raises CodaError."""
        directory = self._work.get(self._fid)
        match command.op:
            case RepairOp.CREATE_FILE | RepairOp.CREATE_SYMLINK | RepairOp.CREATE_DIRECTORY:
                self._create(directory, command)
            case RepairOp.CREATE_LINK:
                self._link(directory, command)
            case RepairOp.REMOVE | RepairOp.REMOVE_DIRECTORY:
                self._remove(directory, command.name, 0)
            case RepairOp.MOVE:
                self._move(command)
            case RepairOp.SET_ACL | RepairOp.SET_NEGATIVE_ACL:
                self._set_acl(directory, command)
            case RepairOp.SET_MODE | RepairOp.SET_OWNER | RepairOp.SET_MTIME:
                self._set_status(directory, command)

    # entries

    def _create(self, directory: Vnode, command: RepairCommand) -> None:
        acl = self._require(directory, Rights.INSERT)
        contents = self._work.directory(directory.fid)
        if command.name in contents:
            raise CodaError(Code.EEXIST)
        kind, mode = _KINDS[command.op]
        fid, parent, author = command.fid.in_volume(directory.fid.volume), directory.fid[1:], directory.author
        below: Directory | None = None
        if kind is ObjectType.DIRECTORY:
            made = new_directory(fid, parent, author, mode, int(time.time()), acl)
            below = Directory.new(fid[1:], parent)
            directory.links += 1
        else:
            made = Vnode(fid, kind, 1, 0, 0, _SHELL, int(time.time()), author, author, mode, parent)
        made.vv = _SHELL
        try:
            self._work.create(made, below)
        except CodaError as error:
            raise CodaError(Code.EINVAL, str(error)) from error
        self._work.plant(made)
        self._enter(directory, contents, command.name, fid[1:])

    def _link(self, directory: Vnode, command: RepairCommand) -> None:
        self._require(directory, Rights.INSERT)
        contents = self._work.directory(directory.fid)
        if command.name in contents:
            raise CodaError(Code.EEXIST)
        file = self._work.get(command.fid.in_volume(directory.fid.volume))
        if file.is_directory or file.parent_fid != directory.fid:
            raise CodaError(Code.EXDEV)
        file.links += 1
        self._work.plant(file)
        self._enter(directory, contents, command.name, file.fid[1:])

    def _remove(self, directory: Vnode, name: bytes, depth: int) -> None:
        """Remove an entry, and a directory with all that is in it."""
        if depth > _MAX_DEPTH:
            raise CodaError(Code.ELOOP)
        self._require(directory, Rights.DELETE)
        contents = self._work.directory(directory.fid)
        child = self._child(directory, contents, name)
        if child.is_directory:
            for below in list(self._work.directory(child.fid).names()):
                if below not in (b".", b".."):
                    self._remove(child, below, depth + 1)
            directory.links -= 1
        self._leave(directory, contents, name, child)
        child.links -= 0 if child.is_directory else 1
        if child.is_directory or child.links <= 0:
            self._work.remove(child)
        else:
            self._work.plant(child)

    def _move(self, command: RepairCommand) -> None:
        volume = self._fid.volume
        _, *words = command.parameters
        source, target = (self._work.get(Fid(volume, *place)) for place in (words[0:2], words[2:4]))
        if not (source.vv.inconsistent or target.vv.inconsistent):
            raise CodaError(Code.EINVAL, "neither directory is in conflict")
        self._require(source, Rights.DELETE)
        self._require(target, Rights.INSERT)
        from_contents, to_contents = self._work.directory(source.fid), self._work.directory(target.fid)
        if command.new_name in to_contents:
            raise CodaError(Code.EEXIST)
        child = self._child(source, from_contents, command.name)
        if child.is_directory and source.fid != target.fid:
            self._check_no_loop(child.fid, target)
            source.links -= 1
            target.links += 1
            below = self._work.directory(child.fid)
            below.move_to(target.fid[1:])
            self._work.resize(child, below.length)
        self._leave(source, from_contents, command.name, child, to=target.fid[1:])
        self._enter(target, to_contents, command.new_name, child.fid[1:])
        child.parent = target.fid[1:]
        self._work.plant(child)

    def _check_no_loop(self, moved: Fid, above: Vnode) -> None:
        for _ in range(_MAX_DEPTH):
            if above.fid == moved:
                raise CodaError(Code.ELOOP)
            if above.parent == NOWHERE:
                return
            above = self._work.get(above.parent_fid)
        raise CodaError(Code.ELOOP)

    def _child(self, directory: Vnode, contents: Directory, name: bytes) -> Vnode:
        entry = contents.lookup(name)
        if entry is None or name in (b".", b".."):
            raise CodaError(Code.ENOENT)
        return self._work.get(Fid(directory.fid.volume, *entry))

    def _enter(self, directory: Vnode, contents: Directory, name: bytes, node: Node) -> None:
        contents.insert(name, *node)
        self._work.entered(directory.fid, name, self._op)
        self._changed(directory, contents)

    def _leave(
        self, directory: Vnode, contents: Directory, name: bytes, child: Vnode, to: Node = NOWHERE
    ) -> None:
        contents.delete(name)
        self._work.left(directory.fid, name, child, self._op, to)
        self._changed(directory, contents)

    def _changed(self, directory: Vnode, contents: Directory) -> None:
        if contents.length != directory.length:
            self._work.resize(directory, contents.length)
        directory.data_version += 1
        if not self._work.is_removed(directory.fid):
            self._work.touch(directory, self._op)

    # attributes

    def _set_acl(self, directory: Vnode, command: RepairCommand) -> None:
        acl = directory.acl or Acl(())
        if not self._owns(directory) and not self._caller.identity.may(acl, Rights.ADMINISTER):
            raise CodaError(Code.EACCES)
        who = self._state.store.protection.id_of(command.name.decode("utf-8", "replace"))
        if who is None:
            raise CodaError(Code.ENOENT, f"there is no user or group {command.name!r}")
        negative = command.op is RepairOp.SET_NEGATIVE_ACL
        old = acl.negative if negative else acl.positive
        rights = command.parameters[0]
        new = tuple(entry for entry in old if entry[0] != who) + (((who, rights),) if rights else ())
        directory.acl = Acl(acl.positive, new) if negative else Acl(new, acl.negative)
        if len(directory.acl.positive) + len(directory.acl.negative) > MAX_ENTRIES:
            raise CodaError(Code.E2BIG)
        self._work.set_attribute(directory, ACL, self._op)
        self._work.touch(directory, self._op)

    def _set_status(self, directory: Vnode, command: RepairCommand) -> None:
        value = command.parameters[0]
        if command.op is RepairOp.SET_OWNER:
            self._caller.require_administrator()
            directory.owner = value
            self._work.set_attribute(directory, OWNER, self._op)
        else:
            acl = directory.acl or Acl(())
            may = self._caller.identity.may
            if not self._owns(directory) and not (may(acl, Rights.INSERT) or may(acl, Rights.DELETE)):
                raise CodaError(Code.EACCES)
            if command.op is RepairOp.SET_MODE:
                directory.mode = value & 0o7777
                self._work.set_attribute(directory, MODE, self._op)
            else:
                directory.mtime = value
        self._work.touch(directory, self._op)

    def _owns(self, vnode: Vnode) -> bool:
        return self._caller.session.user is not None and vnode.owner == self._caller.identity.user

    def _require(self, directory: Vnode, right: Rights) -> Acl:
        acl = directory.acl or Acl(())
        if not self._caller.identity.may(acl, right):
            raise CodaError(Code.EACCES)
        return acl
