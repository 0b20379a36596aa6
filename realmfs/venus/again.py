"""Logging a refused change anew: what stands in its way goes, what it needs and is gone is made again.

Records that must be executed before those that wait are put in front of the log (conflicts.md §4). They rest
only on what the servers have, so nothing that waits has to come before them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from realmfs.cache.containers import Container
from realmfs.cache.log import LogEntry, Role
from realmfs.rpc2.marshal import Packer
from realmfs.venus.face import Caller
from realmfs.venus.node import Node
from realmfs.venus.operation import UNSENT, Tools
from realmfs.venus.theirs import fetch_directory, fetch_unchanged
from realmfs.vice import detours
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Create, MakeDir, Remove, RemoveDir, Store, SymLink
from realmfs.vice.types import Fid, ObjectType, Status, VersionVector

Step = Callable[[LogEntry], None]
"""Something to do inside the transaction, by the author of a record."""
_MAKING = frozenset(kind.OPCODE for kind in (Create, MakeDir, SymLink))
_GONE = frozenset({Code.ENOENT, Code.VNOVNODE})
DOTS = (b".", b"..")


class Again:
    """What settling works with. Methods that ask the servers change nothing; the steps they return do."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._core = tools.core

    # -- what the servers have -------------------------------------------------------------------------

    async def status(self, node: Node, fid: Fid, uid: int) -> Status | None:
        """Return what the servers say of an object; None if they do not have it."""
        await self._core.enter(node.volume)
        try:
            return (await self._core.group(node.volume).get_attr(fid, uid)).status
        except CodaError as error:
            if error.code in _GONE:
                return None
            raise

    async def names(self, above: Node, uid: int) -> tuple[Status, Directory]:
        """Return a directory as the servers have it. Raises CodaError ENOENT if they do not."""
        await self._core.enter(above.volume)
        try:
            return await fetch_unchanged(self._core.group(above.volume), above, uid)
        except CodaError as error:
            if error.code not in _GONE:
                raise
            raise CodaError(Code.ENOENT, f"the servers have no directory {above.label} any more") from error

    async def require_empty(self, node: Node, fid: Fid, uid: int) -> None:
        """Refuse what would take more with it than anybody gave up. Raises CodaError ENOTEMPTY."""
        _, directory = await fetch_directory(self._core.group(node.volume), fid, uid)
        if not directory.is_empty:
            raise CodaError(Code.ENOTEMPTY, f"the servers' {node.label} is a directory with files in it")

    def is_made_here(self, node: Node) -> bool:
        """Tell whether no server has the object yet."""
        return any(entry.opcode in _MAKING for entry in self._core.conflicts.about(node.ino))

    def parents(self, entry: LogEntry) -> list[Node]:
        """Return the directories in which a record changes names."""
        return [self._core.nodes.by_number(number) for number, role in entry.about if role & Role.PARENT]

    # -- what is in the way of a name ------------------------------------------------------------------

    async def clear(self, caller: Caller, node: Node, above: Node, name: bytes) -> Step:
        """Find out what the servers have under the name that an object shall have; return how it goes.

        Where they lack the directory, too, that is made anew. Raises CodaError ENOTEMPTY for a directory
        that is not empty.
        """
        if self.is_made_here(above):
            return _nothing
        if await self.status(above, above.fid, caller.uid) is None:
            return await self._directory_anew(caller, above)
        _, directory = await self.names(above, caller.uid)
        found = directory.lookup(name)
        if found is None or found == node.fid[1:]:
            return _nothing
        fid = Fid(node.volume.id, *found)
        status = await self.status(node, fid, caller.uid)
        if status is None:
            return _nothing
        if fid.is_directory:
            await self.require_empty(node, fid, caller.uid)
        theirs = self._core.nodes.get(node.volume, fid)
        return lambda like: self._remove(like, above, name, theirs, status)

    def _remove(self, like: LogEntry, above: Node, name: bytes, theirs: Node, status: Status) -> None:
        kind = RemoveDir if theirs.is_directory else Remove
        last = theirs.is_directory or status.links <= 1
        links = 0 if last else status.links - 1
        if theirs.ours:  # what is here rests on another version, and it will be seen whether that is theirs
            self._core.nodes.change_status(theirs, links=links)
        else:
            if not theirs.same_version(status.vv):
                theirs = self._core.replaced_elsewhere(theirs)
            self._core.nodes.take_version(theirs, replace(status, links=links))
        record = kind(
            mtime=int(self._core.now()), store_id=UNSENT, parent=above.fid, name=name, fid=theirs.fid
        )
        self._prepend(like, record, [theirs], [above])
        if last:
            self._core.kernel_forget(theirs)
            self._core.nodes.leave(theirs)

    # -- what is gone ----------------------------------------------------------------------------------

    async def _directory_anew(self, caller: Caller, node: Node) -> Step:
        """Return how a directory is made again that the servers have no longer, with what waits in it."""
        if node.fid.is_root or not node.parent:
            raise CodaError(Code.ENOENT, f"the servers have no directory {node.label} any more")
        above = self._core.nodes.by_number(node.parent)
        before = await self.clear(caller, node, above, node.name)
        await self._tools.fetcher.directory(above, caller.uid)

        def make(like: LogEntry) -> None:
            self._enter(like, node, above, node.name, links=2)
            directory = self._tools.fetcher.present(node)
            assert directory is not None  # with changes in it, it cannot be replaced
            for name, vnode, unique in list(directory.items()):
                child = node.volume.nodes.get((vnode, unique))
                if name not in DOTS and (child is None or not self.is_made_here(child)):
                    directory.delete(name)
            self._core.nodes.save_directory(node, directory)
            before(like)

        return make

    async def file_anew(self, caller: Caller, node: Node, above: Node, name: bytes) -> Step:
        """Return how a file or link is made again that the servers have no longer.

        Raises CodaError ENOENT if its contents are not here.
        """
        if node.is_directory:
            raise CodaError(Code.ENOENT, f"the servers have no directory {node.label} any more")
        content = self._tools.fetcher.at_hand(node)
        if node.type is ObjectType.FILE and (content is None or not content.whole):
            raise CodaError(
                Code.ENOENT, f"{node.label} is gone at the servers, and its contents are not here"
            )
        before = await self.clear(caller, node, above, name)
        await self._tools.fetcher.directory(above, caller.uid)

        def make(like: LogEntry) -> None:
            about = self._core.conflicts.about(node.ino)
            stored = any(one.opcode == Store.OPCODE for one in about)
            self._enter(like, node, above, name, links=1)
            before(like)
            if content is not None and content.length and not stored:
                assert node.status is not None
                record = Store(mtime=node.status.date, store_id=UNSENT, fid=node.fid, length=content.length)
                self._append(like, record, [node], contents=content)
            self._core.cache.log.remove(one for one in about if one.opcode != Store.OPCODE)
            self._core.cache.containers.at_end(lambda: self._tools.fetcher.settle(node))

        return make

    def _enter(self, like: LogEntry, node: Node, above: Node, name: bytes, *, links: int) -> None:
        """Give an object a fresh fid and its name, and log that it is made."""
        core, status = self._core, node.status
        directory = self._tools.fetcher.present(above)
        if directory is None or status is None:
            raise CodaError(Code.EWOULDBLOCK, above.label)
        fid = self._tools.fids.new(node.volume, node.type, like.uid)
        self._tools.fids.rebind(node, fid)
        if name in directory:
            directory.rebind(name, fid.vnode, fid.unique)
        else:
            directory.insert(name, fid.vnode, fid.unique)
        core.nodes.save_directory(above, directory)
        core.nodes.change_status(above, length=directory.length)
        node.parent, node.name = above.ino, name
        core.nodes.change_status(node, vv=VersionVector(), links=links, data_version=0, parent=above.fid[1:])
        self._prepend(like, _making(node, above, name, like.uid, int(core.now())), [node], [above])

    # -- the log ---------------------------------------------------------------------------------------

    def _prepend(
        self, like: LogEntry, record: AnyRecord, objects: Sequence[Node], parents: Sequence[Node]
    ) -> None:
        """Log a record in front of all others, by the author of another. Inside a transaction."""
        steps = (record,) if self._core.settings.own_servers else detours.steps(record)
        for step in reversed(steps):
            self._append(like, step, objects, parents, prepend=True)

    def _append(
        self,
        like: LogEntry,
        record: AnyRecord,
        objects: Sequence[Node],
        parents: Sequence[Node] = (),
        *,
        contents: Container | None = None,
        prepend: bool = False,
    ) -> None:
        packer = Packer()
        record.pack_into(packer)
        self._core.cache.log.append(
            like.volume,
            packer.done(),
            uid=like.uid,
            identity=like.identity,
            time=int(self._core.now()),
            objects=[node.ino for node in objects],
            parents=[node.ino for node in parents],
            contents=contents,
            prepend=prepend,
        )
        for node in (*objects, *parents):
            if not node.dirty:
                node.dirty = True
                self._core.cache.on_rollback(node.mark_clean)


def _making(node: Node, above: Node, name: bytes, uid: int, now: int) -> AnyRecord:
    assert node.status is not None
    mode = node.status.mode
    if node.type is ObjectType.SYMLINK:
        return SymLink(
            mtime=now, store_id=UNSENT, parent=above.fid, name=name, content=node.link or b"", fid=node.fid,
            owner=uid, mode=mode,
        )  # fmt: skip
    kind = MakeDir if node.is_directory else Create
    return kind(mtime=now, store_id=UNSENT, parent=above.fid, name=name, owner=uid, mode=mode, fid=node.fid)


def _nothing(like: LogEntry) -> None:
    """Nothing is in the way."""
