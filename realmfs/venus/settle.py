"""Settling a change that the servers refuse: ours is kept, or theirs, or both (conflicts.md §4).

    keep server   the refused records go, with all that rest on them; what they changed is as at the servers.
                  A directory in which other changes still wait is built anew: the servers' names, and then
                  those changes once more
    keep local    the change is made again upon what the servers have by now. Records carry no versions until
                  they are sent, so mostly it is enough to take over the servers' version: what is sent next
                  rests on it. What stands in the way of a name is removed first; a file that the servers have
                  no longer is made anew
    keep both     ours gets another name beside theirs

Whoever settles has asked the servers first, so it needs them. Everything else happens in one transaction,
after which the conflict is over here; should the servers refuse again it comes back. What cannot be kept is
refused, and nothing has changed then.
"""

import logging
from dataclasses import replace

from realmfs.cache.log import LogEntry
from realmfs.rpc2.marshal import Packer
from realmfs.venus.again import Again, Step
from realmfs.venus.copies import Copies, free_name
from realmfs.venus.discard import Discarder
from realmfs.venus.face import Caller
from realmfs.venus.flight import full_record
from realmfs.venus.node import Node
from realmfs.venus.operation import Tools
from realmfs.venus.removing import RemoveName
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import (
    AnyRecord,
    Chmod,
    Chown,
    Create,
    Link,
    MakeDir,
    Remove,
    RemoveDir,
    Rename,
    Store,
    SymLink,
    Utimes,
)
from realmfs.vice.types import Fid, Status

log = logging.getLogger(__name__)

_RIGHTS = frozenset({Code.EACCES, Code.EPERM})
_NAMING = (Create, MakeDir, SymLink, Link)


class Settler:
    """Settles local/global conflicts."""

    def __init__(self, tools: Tools, discarder: Discarder, copies: Copies) -> None:
        self._tools = tools
        self._core = tools.core
        self._again = Again(tools)
        self._discarder = discarder
        self._copies = copies

    async def keep_server(self, caller: Caller, node: Node) -> None:
        """Give the refused changes of an object up. Raises CodaError: EWOULDBLOCK if one is on its way."""
        heir = self._core.conflicts.heir(node.ino)
        await self._discarder.discard(caller, self._discarder.resting_on(node.ino))
        self._core.settled(node, "server")
        if heir is not None:
            await self._clean_up(caller, *heir)

    async def keep_local(self, caller: Caller, node: Node) -> None:
        """Make the refused changes of an object again. Raises CodaError for what cannot be done."""
        held = self._held(node)
        record = full_record(self._core, held[0])
        if held[0].reason in _RIGHTS:
            with self._core.cache.transaction():
                self._release(node)
        elif isinstance(record, _NAMING):
            await self._make_all_the_same(caller, node, held[0], record.name)
        elif isinstance(record, Remove | RemoveDir):
            await self._remove_all_the_same(caller, node, held, record)
        elif isinstance(record, Rename):
            await self._move_all_the_same(caller, node, held[0], record)
        else:
            await self._change_all_the_same(caller, node, held[0])
        self._core.settled(node, "local")

    async def keep_both(self, caller: Caller, node: Node) -> str:
        """Keep ours beside theirs; return its name, "" if one name serves both."""
        held = self._held(node)
        record = full_record(self._core, held[0])
        if await self._is_taken(caller, node, held[0], record):
            name = await self._rename_ours(caller, node, held[0], record)
        elif isinstance(record, Store) and await self._is_something(caller, node):
            name = await self._copy_beside(caller, node, held[0])
        elif isinstance(record, Remove | RemoveDir):
            heir = self._core.conflicts.heir(node.ino)
            if heir is None:
                await self.keep_server(caller, node)
                return ""
            name = await self._rename_ours(caller, *heir, full_record(self._core, heir[1]))
            await self._discarder.discard(caller, held)
        else:
            await self.keep_local(caller, node)
            return ""
        self._core.settled(node, "both")
        return name.decode("utf-8", "replace")

    # -- what all ways need ----------------------------------------------------------------------------

    def _held(self, node: Node) -> list[LogEntry]:
        held = self._core.conflicts.held(node.ino)
        if not held:
            raise CodaError(Code.ENOENT, f"no change of {node.label} was refused")
        return held

    def _release(self, node: Node) -> None:
        """Let the sender have the records of an object again. Inside a transaction."""
        for entry in self._core.conflicts.held(node.ino):
            self._core.cache.log.set_reason(entry, 0, blocked=False)

    async def _theirs(self, node: Node, uid: int) -> Status | None:
        return await self._again.status(node, node.fid, uid)

    def _place(self, node: Node) -> tuple[Node, bytes]:
        """Return the directory and the name under which an object in conflict is shown."""
        view = self._core.conflicts.shown(node)
        number, name = (view.parent, view.name) if view.parent else (node.parent, node.name)
        return self._core.nodes.by_number(number), name

    # -- the change, once more -------------------------------------------------------------------------

    async def _make_all_the_same(self, caller: Caller, node: Node, entry: LogEntry, name: bytes) -> None:
        (above,) = self._again.parents(entry)
        clear = await self._again.clear(caller, node, above, name)
        with self._core.cache.transaction():
            clear(entry)
            self._release(node)

    async def _remove_all_the_same(
        self, caller: Caller, node: Node, held: list[LogEntry], record: Remove | RemoveDir
    ) -> None:
        (above,) = self._again.parents(held[0])
        theirs = await self._theirs(node, caller.uid)
        _, directory = await self._again.names(above, caller.uid)
        if theirs is None or directory.lookup(record.name) != node.fid[1:]:
            heir = self._core.conflicts.heir(node.ino)
            clear = await self._again.clear(caller, heir[0], above, record.name) if heir is not None else None
            await self._discarder.discard(caller, held)  # it is gone there, too, or has moved away
            if clear is not None:
                with self._core.cache.transaction():
                    clear(held[0])
            return
        if node.is_directory:
            await self._again.require_empty(node, node.fid, caller.uid)
        with self._core.cache.transaction():
            if not (node.is_directory or node.gone or node.same_version(theirs.vv) or self._stores(node)):
                self._require_closed(node)  # it has other names
                self._core.nodes.drop_data(node)
            self._core.nodes.change_status(node, vv=theirs.vv)
            self._release(node)

    async def _clean_up(self, caller: Caller, node: Node, entry: LogEntry) -> None:
        """Remove what a program wrote to save a file, once the saving has been given up.

        It is at the servers already, under the name of a moment. A file with a name that looks as if a
        person had chosen it just has that name again.
        """
        record = full_record(self._core, entry)
        if not isinstance(record, Rename) or not _is_passing(record.old_name):
            return
        above = self._again.parents(entry)[0]
        author = Caller(entry.uid, caller.gid, 0, kernel=False)
        try:
            await RemoveName(self._tools, author, above, record.old_name, directory=False).run()
        except CodaError as error:
            log.info("%r stays: %s", record.old_name, error)

    async def _change_all_the_same(self, caller: Caller, node: Node, entry: LogEntry) -> None:
        theirs = await self._theirs(node, caller.uid)
        make = None if theirs is not None else await self._anew(caller, node, *self._place(node))
        names = await self._names(node, theirs, caller.uid)
        with self._core.cache.transaction():
            if theirs is not None:
                self._adopt(node, theirs, names)
            elif make is not None:
                make(entry)
            self._release(node)

    async def _anew(self, caller: Caller, node: Node, above: Node, name: bytes) -> Step:
        return await self._again.file_anew(caller, node, above, name)

    async def _names(self, node: Node, theirs: Status | None, uid: int) -> tuple[Status, Directory] | None:
        """Return what `_adopt` needs of a directory: its names belong to the version."""
        if theirs is None or not node.is_directory:
            return None
        return await self._again.names(node, uid)

    def _stores(self, node: Node) -> bool:
        """Tell whether contents that were written here wait to be sent."""
        return any(entry.opcode == Store.OPCODE for entry in self._core.conflicts.about(node.ino))

    def _require_closed(self, node: Node) -> None:
        if node.open:
            raise CodaError(Code.EBUSY, f"{node.label} is open")

    def _adopt(self, node: Node, theirs: Status, names: tuple[Status, Directory] | None) -> None:
        """Let what was changed here rest on the servers' version. Inside a transaction."""
        if names is not None:
            self._discarder.rebase(node, *names)
            self._core.kernel_forget(node, pages=True)
            return
        if self._stores(node):
            self._core.nodes.change_status(node, vv=theirs.vv, links=theirs.links)
            return
        self._require_closed(node)
        records = [full_record(self._core, entry) for entry in self._core.conflicts.about(node.ino)]
        mine: dict[str, int] = {}
        for record in records:
            if isinstance(record, Utimes):
                mine["date"] = record.date
            elif isinstance(record, Chmod):
                mine["mode"] = record.mode
            elif isinstance(record, Chown):
                mine["owner"] = record.owner
        if not node.same_version(theirs.vv):
            self._core.nodes.drop_data(node)
        taken = {"length": theirs.length, "date": theirs.date, "mode": theirs.mode, "owner": theirs.owner}
        self._core.nodes.change_status(
            node, vv=theirs.vv, links=theirs.links, author=theirs.author, **(taken | mine)
        )
        self._core.kernel_forget(node, pages=True)

    async def _move_all_the_same(self, caller: Caller, node: Node, entry: LogEntry, record: Rename) -> None:
        parents = self._again.parents(entry)
        theirs = await self._theirs(node, caller.uid)
        if theirs is None:
            make = await self._anew(caller, node, parents[-1], record.new_name)
            with self._core.cache.transaction():
                make(entry)
                self._release(node)
            return
        old_name = await self._present_name(caller, node, parents[0], record.old_name)
        clear = await self._again.clear(caller, node, parents[-1], record.new_name)
        names = await self._names(node, theirs, caller.uid)
        with self._core.cache.transaction():
            self._adopt(node, theirs, names)
            if old_name != record.old_name:
                self._rewrite(entry, replace(record, old_name=old_name))
            self._release(node)
            clear(entry)

    async def _present_name(self, caller: Caller, node: Node, above: Node, name: bytes) -> bytes:
        """Return what an object is called at the servers, in the same directory. Raises CodaError EXDEV."""
        _, directory = await self._again.names(above, caller.uid)
        if directory.lookup(name) == node.fid[1:]:
            return name
        for other, vnode, unique in directory.items():
            if (vnode, unique) == node.fid[1:]:
                return other
        raise CodaError(Code.EXDEV, f"others have moved {node.label} to another directory")

    def _rewrite(self, entry: LogEntry, record: AnyRecord) -> None:
        packer = Packer()
        record.pack_into(packer)
        self._core.cache.log.rewrite(entry, packer.done())

    # -- both ------------------------------------------------------------------------------------------

    async def _is_something(self, caller: Caller, node: Node) -> bool:
        """Tell whether the servers have an object still, or another under its name."""
        if await self._theirs(node, caller.uid) is not None:
            return True
        above, name = self._place(node)
        if await self._again.status(above, above.fid, caller.uid) is None:
            return False
        _, directory = await self._again.names(above, caller.uid)
        return name in directory

    async def _is_taken(self, caller: Caller, node: Node, entry: LogEntry, record: AnyRecord) -> bool:
        """Tell whether the servers have something else under the name that a record gives an object."""
        if not isinstance(record, (*_NAMING, Rename)):
            return False
        try:
            _, directory = await self._again.names(self._again.parents(entry)[-1], caller.uid)
        except CodaError as error:
            if error.code is Code.ENOENT:
                return False
            raise
        name = record.new_name if isinstance(record, Rename) else record.name
        return directory.lookup(name) not in (None, node.fid[1:])

    async def _rename_ours(self, caller: Caller, node: Node, entry: LogEntry, record: AnyRecord) -> bytes:
        """Give ours another name in the records that make it, and theirs its name back."""
        core, above = self._core, self._again.parents(entry)[-1]
        status, directory = await self._again.names(above, caller.uid)
        old = record.new_name if isinstance(record, Rename) else getattr(record, "name", b"")
        here = self._tools.fetcher.present(above)
        taken = {*directory.names(), *(here.names() if here is not None else ())}
        name = free_name(old, b"local", taken)
        with core.cache.transaction():
            for one in core.conflicts.about(node.ino):
                renamed = _with_name(full_record(core, one), above.fid, old, name)
                if renamed is not None:
                    self._rewrite(one, renamed)
            self._discarder.rebase(above, status, directory)
            if (node.parent, node.name) == (above.ino, old):
                node.name = name
                core.nodes.save(node)
            self._release(node)
        core.kernel_forget(above, pages=True)
        for changed in (old, name):
            core.kernel_forget_name(above.ino, changed)
        return name

    async def _copy_beside(self, caller: Caller, node: Node, entry: LogEntry) -> bytes:
        """Make a new file of our contents, and give the change of the old one up."""
        above, name = self._place(node)
        newest = self._core.conflicts.about(node.ino)
        container = next(one.container for one in reversed(newest) if one.container is not None)
        mode = node.status.mode if node.status is not None else 0o644
        author = Caller(entry.uid, caller.gid, 0, kernel=False)
        with self._core.cache.containers.open(container) as content:
            name = await self._copies.beside(author, above, name, b"local", mode, content)
        await self._discarder.discard(caller, self._discarder.resting_on(node.ino))
        return name


def _is_passing(name: bytes) -> bool:
    """Tell whether programs give such names to files that they rename in the next moment."""
    return name.startswith((b".", b"~", b"#")) or name.endswith((b"~", b"#", b".tmp", b".part", b".new"))


def _with_name(record: AnyRecord, parent: Fid, old: bytes, new: bytes) -> AnyRecord | None:
    """Return a record with another name for what it makes, takes or moves; None if it is about none."""
    if isinstance(record, Rename):
        if (record.new_parent, record.new_name) == (parent, old):
            return replace(record, new_name=new)
        if (record.old_parent, record.old_name) == (parent, old):
            return replace(record, old_name=new)
    elif isinstance(record, (*_NAMING, Remove, RemoveDir)) and (record.parent, record.name) == (parent, old):
        return replace(record, name=new)
    return None
