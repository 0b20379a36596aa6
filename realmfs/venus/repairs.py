"""Repairing what the servers cannot agree on (conflicts.md §5).

    file, link     one version's contents go to all servers by Repair, which takes the mark away
    directory      a list of edits for each replica goes to all servers by Repair. Then all are equal but
                   still marked; their own resolution compares them and takes the mark away. Objects that a
                   replica got by an edit are empty there; the resolution of each fills them

Repair demands that every replica is marked. Where not all are, the servers' resolution marks them all, or
turns out to solve the matter.

To keep both means: the newest version of a file keeps the name, the others become new files beside it; a
directory gets all names that any server has.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from realmfs.realms.group import Group
from realmfs.rpc2.transfer import BytesSource, Source
from realmfs.venus.copies import Copies, free_name
from realmfs.venus.face import Caller
from realmfs.venus.flight import Contents
from realmfs.venus.merge import Merge, MisfitError, ReplicaView, merge, rounds, union
from realmfs.venus.node import Node
from realmfs.venus.operation import Tools
from realmfs.venus.versions import Version, Versions
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.repair import ReplicaRepair, pack_repair
from realmfs.vice.types import Fid, ObjectType, Status

log = logging.getLogger(__name__)

DOTS = (b".", b"..")
MOST_FILLED = 1000  # objects resolved after the repair of a directory; others are when they are looked at
AT_ONCE = 4
REPAIR_PATIENCE = 60.0


class Repairer:
    """Settles server/server conflicts."""

    def __init__(self, tools: Tools, versions: Versions, copies: Copies) -> None:
        self._tools = tools
        self._core = tools.core
        self._versions = versions
        self._copies = copies

    async def keep_server(self, caller: Caller, node: Node, server: str | None) -> None:
        """Make one server's version everybody's; without a name, if they do not differ after all.

        Raises CodaError: EINVAL, there is no version of that name, or several and none was named; EACCES.
        """
        if await self._resolved(node):
            return
        chosen = _choose(await self._candidates(caller, node), server)
        if node.is_directory:
            plan = await self.plan(caller, node, server)
            await self._apply(caller, node, plan.sections, plan.created)
        else:
            await self._store_version(caller, node, chosen)
        self._core.settled(node, f"server {chosen.name.decode()}")

    async def keep_both(self, caller: Caller, node: Node) -> list[str]:
        """Keep all versions; return the names of the new files."""
        if await self._resolved(node):
            return []
        if node.is_directory:
            plan = await self.plan(caller, node, None)
            await self._apply(caller, node, plan.sections, plan.created)
            names = []
        else:
            names = await self._keep_all(caller, node)
        self._core.settled(node, "both")
        return names

    async def keep_contents(self, caller: Caller, node: Node, contents: bytes | Node) -> None:
        """Give a file the contents that somebody has made of its versions, or those of our own version."""
        if node.is_directory:
            raise CodaError(Code.EISDIR, node.label)
        if await self._resolved(node):
            raise CodaError(Code.EAGAIN, f"{node.label} is not in conflict any more")
        newest = _newest(await self._candidates(caller, node))
        status = replace(self._status(newest), date=int(self._core.now()))
        if isinstance(contents, Node):
            async with self._lent(contents, caller) as source:
                await self._store(caller, node, replace(status, length=source.size), source)
        else:
            given = BytesSource(contents)
            await self._store(caller, node, replace(status, length=given.size), given)
        self._core.settled(node, "contents")

    async def apply_fix_file(self, caller: Caller, node: Node, sections: Sequence[ReplicaRepair]) -> None:
        """Edit the replicas of a directory as a person says."""
        if not node.is_directory:
            raise CodaError(Code.ENOTDIR, node.label)
        if await self._resolved(node):
            raise CodaError(Code.EAGAIN, f"{node.label} is not in conflict any more")
        created = {command.fid[1:]: None for section in sections for command in section.commands}
        created.pop((0, 0), None)
        await self._apply(caller, node, sections, tuple(created))
        self._core.settled(node, "fix file")

    # -- directories -----------------------------------------------------------------------------------

    async def plan(self, caller: Caller, node: Node, server: str | None) -> Merge:
        """Return the edits that make the replicas of a directory equal: as one server's, or all there is."""
        candidates = await self._candidates(caller, node)
        views = [await self._view(one, caller) for one in candidates]
        model = views[candidates.index(_choose(candidates, server) if server else _newest(candidates))]
        target = model.names if server else union(views, free_name)
        types: dict[tuple[int, int], ObjectType] = {}
        for one, view in zip(candidates, views, strict=True):
            for fid in view.names.values():
                if fid not in types:
                    types[fid] = await self._type(one, fid, caller)
        return merge(views, target, model, types, node.volume.id, (node.fid.vnode, node.fid.unique))

    async def _view(self, version: Version, caller: Caller) -> ReplicaView:
        directory = await self._tools.fetcher.directory(version.node, caller.uid)
        group = self._core.group(version.node.volume)
        status = self._status(version)
        answer = await group.get_acl(version.node.fid, caller.uid)
        assert version.replica is not None
        names = {name: (vnode, unique) for name, vnode, unique in directory.items() if name not in DOTS}
        tag = version.name.split(b".")[0]
        acl = AccessList.parse(answer.text)
        return ReplicaView(version.replica.volume_id, tag, names, status.mode, status.owner, acl)

    async def _type(self, version: Version, fid: tuple[int, int], caller: Caller) -> ObjectType:
        if fid[0] % 2:
            return ObjectType.DIRECTORY
        volume = version.node.volume
        child = self._core.nodes.get(volume, Fid(volume.id, *fid))
        await self._tools.validator.status(child, caller.uid)
        return child.type

    async def _apply(
        self,
        caller: Caller,
        node: Node,
        sections: Sequence[ReplicaRepair],
        created: Sequence[tuple[int, int]],
    ) -> None:
        group = self._core.group(node.volume)
        candidates = await self._candidates(caller, node)
        views = [await self._view(one, caller) for one in candidates]
        try:
            steps = rounds(views, sections, (node.fid.vnode, node.fid.unique))
        except MisfitError as error:
            raise CodaError(Code.EINVAL, str(error)) from error
        newest = self._status(_newest(candidates))
        for step in steps or [[]]:
            data = pack_repair(step)
            await self._repair(caller, node, replace(newest, length=len(data)), BytesSource(data))
        await self._unmark(caller, node, group)
        await self._fill(node, group, created)

    async def _unmark(self, caller: Caller, node: Node, group: Group) -> None:
        """Have the servers compare the replicas, which are equal now, and take the mark from them."""
        try:
            await group.resolve(node.fid, patience=REPAIR_PATIENCE)
        except CodaError as error:
            log.info("%s: resolution after its repair: %s", node.label, error)
        statuses = await group.replica_statuses(node.fid, caller.uid)
        if not any(one.vv.inconsistent for one in statuses.values()):
            return
        views = [await self._view(one, caller) for one in await self._candidates(caller, node)]
        if any(view.names != views[0].names for view in views):
            raise CodaError(Code.EINCONS, f"the replicas of {node.label} still differ after the repair")
        first = next(iter(statuses.values())).vv
        for one in statuses.values():
            first = first.maximum(one.vv)
        equal = first.with_store_id(self._core.cache.log.new_store_id())
        await group.clear_conflict(node.fid, dict.fromkeys(statuses, equal), caller.uid)

    async def _fill(self, node: Node, group: Group, created: Sequence[tuple[int, int]]) -> None:
        """Resolve objects that some replica has only as an empty shell."""
        limit = trio.Semaphore(AT_ONCE)

        async def fill(fid: Fid) -> None:
            async with limit:
                try:
                    await group.resolve(fid, patience=REPAIR_PATIENCE)
                except CodaError as error:
                    log.info("%s: resolution of what its repair has made: %s", node.label, error)

        async with trio.open_nursery() as nursery:
            for vnode, unique in created[:MOST_FILLED]:
                nursery.start_soon(fill, Fid(node.volume.id, vnode, unique))

    # -- files and links -------------------------------------------------------------------------------

    async def _keep_all(self, caller: Caller, node: Node) -> list[str]:
        candidates = await self._candidates(caller, node)
        newest = _newest(candidates)
        above = self._core.nodes.by_number(self._core.conflicts.shown(node).parent)
        seen = {newest.node.status.vv.store_id if newest.node.status else None}
        names = []
        for version in candidates:
            status = self._status(version)
            if status.vv.store_id in seen:
                continue
            seen.add(status.vv.store_id)
            names.append(await self._keep_beside(caller, above, node.name, version, status))
        await self._store_version(caller, node, newest)
        return [name.decode("utf-8", "replace") for name in names]

    async def _keep_beside(
        self, caller: Caller, above: Node, name: bytes, version: Version, status: Status
    ) -> bytes:
        tag = version.name.split(b".")[0] if not version.name[:1].isdigit() else version.name
        author = Caller(caller.uid, caller.gid, caller.pid, kernel=False)
        if status.type is ObjectType.SYMLINK:
            text = await self._tools.fetcher.link(version.node, caller.uid)
            return await self._copies.link_beside(author, above, name, tag, text)
        async with self._tools.fetcher.contents(version.node, caller.uid) as content:
            return await self._copies.beside(author, above, name, tag, status.mode, content)

    @asynccontextmanager
    async def _lent(self, node: Node, caller: Caller) -> AsyncIterator[Source]:
        """Lend out what a file or link holds; the node's status is of the same version."""
        if node.type is ObjectType.SYMLINK:
            yield BytesSource(await self._tools.fetcher.link(node, caller.uid))
            return
        async with self._tools.fetcher.contents(node, caller.uid) as content:
            yield Contents(content)

    async def _store_version(self, caller: Caller, node: Node, version: Version) -> None:
        """Have all servers hold one server's version."""
        async with self._lent(version.node, caller) as source:
            await self._store(caller, node, self._status(version), source)

    async def _store(self, caller: Caller, node: Node, status: Status, source: Source) -> None:
        if source.size != status.length:
            raise CodaError(Code.EAGAIN, f"{node.label} has just changed")
        await self._repair(caller, node, status, source)
        statuses = await self._core.group(node.volume).replica_statuses(node.fid, caller.uid)
        if any(one.vv.inconsistent for one in statuses.values()):
            raise CodaError(Code.EINCONS, f"{node.label} is still in conflict after the repair")

    # -- the call --------------------------------------------------------------------------------------

    async def _candidates(self, caller: Caller, node: Node) -> list[Version]:
        await self._core.enter(node.volume)
        found = [one for one in await self._versions.all(caller, node) if one.replica is not None]
        if not found:
            raise CodaError(Code.ETIMEDOUT, f"no server shows its version of {node.label}")
        return found

    def _status(self, version: Version) -> Status:
        if version.node.status is None:
            raise CodaError(Code.EAGAIN, version.node.label)
        return version.node.status

    async def _resolved(self, node: Node) -> bool:
        """Tell whether the conflict is gone by now; see to it that otherwise every replica is marked."""
        group = self._core.group(node.volume)
        for _ in range(2):
            statuses = await group.replica_statuses(node.fid, -1)
            marked = [one.vv.inconsistent for one in statuses.values()]
            if all(marked):
                return False
            try:
                await group.resolve(node.fid, patience=REPAIR_PATIENCE)
            except CodaError as error:
                if error.code is not Code.EINCONS:
                    raise
                continue
            if not any(marked):
                break
        self._core.settled(node, "by the servers")
        return True

    async def _repair(self, caller: Caller, node: Node, status: Status, source: Source) -> None:
        group = self._core.group(node.volume)
        store_id = self._core.cache.log.new_store_id()
        codes = await group.repair(node.fid, source, status, store_id, caller.uid, patience=REPAIR_PATIENCE)
        for slot, code in codes.items():
            if code is not Code.SUCCESS:
                server = group.core.servers[slot]
                raise CodaError(code, f"{server} refuses to repair {node.label}")
        if node.ours:  # what was refused of ours is settled next, and may be given up then
            return
        with self._core.cache.transaction():
            fresh = self._core.replaced_elsewhere(node)
        fresh.promise, fresh.stale = None, True
        fresh.edition += 1


def _choose(candidates: Sequence[Version], server: str | None) -> Version:
    """Return the version of a server. Raises CodaError EINVAL if it is not clear which."""
    names = [one.name.decode() for one in candidates]
    if server is not None:
        for one, name in zip(candidates, names, strict=True):
            if server in (
                name,
                name.split(".")[0],
                str(one.replica.server.address[0] if one.replica else ""),
            ):
                return one
        raise CodaError(Code.EINVAL, f"no version of {server}: there are {', '.join(names)}")
    store_ids = {one.node.status.vv.store_id for one in candidates if one.node.status is not None}
    if len(store_ids) > 1:
        raise CodaError(Code.EINVAL, f"name the server whose version to keep: {', '.join(names)}")
    return candidates[0]


def _newest(candidates: Sequence[Version]) -> Version:
    return max(candidates, key=lambda one: one.node.status.date if one.node.status is not None else 0)
