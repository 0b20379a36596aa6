"""Changes: reintegration and its handles, the second phase, and repair by administrators."""

from __future__ import annotations

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.server.containers import sync_containers
from realmfs.server.handles import Handles
from realmfs.server.reintegrate import Blamed, execute, receive_log
from realmfs.server.repairs import DirectoryRepair
from realmfs.server.state import Caller, Found, Refusal, ServerState
from realmfs.server.workingset import WorkingSet
from realmfs.vice import calls
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import Store
from realmfs.vice.repair import unpack_repair
from realmfs.vice.types import Fid, ObjectType, Order, Rights, VersionFlags, VersionVector
from realmfs.vice.wire import NoResults

_MAX_TARGET = 4095
_MAX_REPAIR = 8 << 20
_MAX_VERSION = 0x7FFF0000
_UNSOUND = VersionFlags.INCON | VersionFlags.BARREN | VersionFlags.COP2PENDING


class UpdateCalls:
    """The handlers."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._handles = Handles(state.store.containers, state.started)

    async def reintegrate(self, caller: Caller, args: calls.Reintegrate) -> calls.Reintegrate.Reply:
        """Replay a modify log: all of it, or nothing and the index of the record to blame."""
        nothing = calls.Reintegrate.Reply.zero()
        try:
            self._state.cop2(args.piggy_cop2)
            volume = self._state.group(args.volume)
            batch = await receive_log(caller, volume, args.volume, args.log_size)
            batch.out_of_order = args.out_of_order
            await execute(self._state, caller, batch)
        except Blamed as blamed:
            raise Refusal(blamed.error.number, _with_index(blamed.index)) from blamed
        except CodaError as error:
            raise Refusal(error.number, _with_index(-1)) from error
        stale = tuple(batch.stale[: args.max_stale_dirs])
        return calls.Reintegrate.Reply(
            index=len(batch.records), stale_dirs=stale, new_stamp=nothing.new_stamp, promised=nothing.promised
        )

    async def open_handle(self, caller: Caller, args: calls.OpenReintHandle) -> calls.OpenReintHandle.Reply:
        """Make an empty container for the contents of a store to an existing object."""
        found = self._state.find(args.fid)
        if found.vnode.type is not ObjectType.FILE:
            raise CodaError(Code.EISDIR, "only files can be stored to")
        return calls.OpenReintHandle.Reply(handle=self._handles.open(found.volume))

    async def query_handle(
        self, caller: Caller, args: calls.QueryReintHandle
    ) -> calls.QueryReintHandle.Reply:
        """Say how many bytes a handle has."""
        volume = self._state.volume(args.volume)
        try:
            length = self._handles.length(volume, args.handle)
        except CodaError as error:
            raise Refusal(error.number, calls.QueryReintHandle.Reply(length=0xFFFFFFFF)) from error
        return calls.QueryReintHandle.Reply(length=length)

    async def send_fragment(self, caller: Caller, args: calls.SendReintFragment) -> NoResults:
        """Append to a handle's container: all the bytes that were announced, or none."""
        volume = self._state.volume(args.volume)
        await self._handles.append(volume, args.handle, args.length, caller.request)
        return NoResults()

    async def close_handle(
        self, caller: Caller, args: calls.CloseReintHandle
    ) -> calls.CloseReintHandle.Reply:
        """Replay a log of exactly one store record with the handle's contents."""
        self._state.cop2(args.piggy_cop2)
        volume = self._state.group(args.volume)
        try:
            batch = await receive_log(caller, volume, args.volume, args.log_size)
            with self._handles.closing(volume, args.handle) as batch.handle:
                if len(batch.records) != 1 or not isinstance(batch.records[0], Store):
                    raise CodaError(Code.EINVAL, "a handle goes with exactly one store record")
                await execute(self._state, caller, batch)
        except Blamed as blamed:
            raise blamed.error from blamed
        return calls.CloseReintHandle.Reply(new_stamp=0, promised=False)

    async def cop2(self, caller: Caller, args: calls.Cop2) -> NoResults:
        """Execute the second phase of updates."""
        self._state.cop2(args.entries)
        return NoResults()

    async def resolve(self, caller: Caller, args: calls.Resolve) -> NoResults:
        """Make all replicas equal (resolver.py).

        The only replica is settled: a second phase that was lost is no longer awaited (conflicts.md §7).
        """
        volume = self._state.group(args.fid.volume)
        if self._state.resolve is not None and self._state.store.volumes.replicas(volume) > 1:
            await self._state.resolve(volume.group_id, args.fid[1:])
            return NoResults()
        vnode = self._state.find(args.fid).vnode
        if vnode.vv.cop2_pending and self._state.store.volumes.replicas(volume) == 1:
            with self._state.store.transaction():
                settled = vnode.vv.with_flags(vnode.vv.flags & ~VersionFlags.COP2PENDING)
                self._state.store.vnodes.set_vector(vnode.fid, settled)
        return NoResults()

    async def set_vv(self, caller: Caller, args: calls.SetVV) -> NoResults:
        """Overwrite a version vector, flags included, for administrators only (conflicts.md §5.4)."""
        state = self._state
        state.cop2(args.piggy_cop2)
        found = state.find(args.fid, inconsistent_ok=True)
        caller.require_administrator()
        _check_vector(args.vv)
        async with state.exclusive(found.volume):
            with state.store.transaction():
                state.store.vnodes.set_vector(found.vnode.fid, args.vv)
                state.store.volumes.settle(found.volume.id, 1, 0)
            await state.store.database.durable()
        await state.hosts.break_promises(found.volume, [found.vnode.fid], None)
        return NoResults()

    async def repair(self, caller: Caller, args: calls.Repair) -> calls.Repair.Reply:
        """Give a file or symlink in conflict its new contents, or edit a directory (conflicts.md §5.4).

        Where nobody else has a replica there is nothing that could have diverged: administrators only.
        """
        state = self._state
        found = state.find(args.fid, inconsistent_ok=True)
        if state.store.volumes.replicas(found.volume) == 1:
            caller.require_administrator()
        _check_vector(args.status.vv)
        changed = [found.vnode.fid]
        async with state.exclusive(found.volume):
            found = state.find(args.fid, inconsistent_ok=True)
            self._check_repair(caller, found, args)
            if found.vnode.is_directory:
                changed = await self._repair_directory(caller, found, args)
            else:
                await self._receive_repair(caller, found, args)
            await state.store.database.durable()
        await state.hosts.break_promises(found.volume, changed, None)
        found = state.find(args.fid, inconsistent_ok=True)
        return calls.Repair.Reply(status=state.status(caller, found, promise=False))

    def _check_repair(self, caller: Caller, found: Found, args: calls.Repair) -> None:
        vnode = found.vnode
        if vnode.is_directory and self._state.store.volumes.replicas(found.volume) == 1:
            raise CodaError(Code.EOPNOTSUPP, "a directory with one replica has nothing to be repaired from")
        if not vnode.vv.inconsistent:
            raise CodaError(Code.EINVAL, "the object is not in conflict")
        if vnode.vv.compare(args.status.vv, ignore_inconsistent=True) not in (Order.EQUAL, Order.SUBMITS):
            raise CodaError(Code.EINCOMPATIBLE)
        if not vnode.is_directory and not caller.identity.may(self._state.acl_of(vnode), Rights.WRITE):
            raise CodaError(Code.EACCES)

    async def _repair_directory(self, caller: Caller, found: Found, args: calls.Repair) -> list[Fid]:
        """Execute the commands for this replica; return what they have changed."""
        sink = BytesSink(_MAX_REPAIR)
        await caller.request.receive(sink, _MAX_REPAIR)
        try:
            sections = [one for one in unpack_repair(sink.data) if one.volume == found.volume.id]
        except BadPacket as error:
            raise CodaError(Code.EINVAL, str(error)) from error
        if len(sections) > 1:
            raise CodaError(Code.EINVAL, "two sections for one replica")
        fid, work = found.vnode.fid, WorkingSet(self._state.store, found.volume)
        work.repairing = True
        work.bases[fid] = args.status.vv.with_flags(found.vnode.vv.flags)
        work.touch(work.get(fid), args.store_id)
        repair = DirectoryRepair(self._state, caller, work, fid, args.store_id)
        for command in sections[0].commands if sections else ():
            repair.execute(command)
        work.commit(None)
        work.drop_superseded()
        return work.affected

    async def _receive_repair(self, caller: Caller, found: Found, args: calls.Repair) -> None:
        """Take the new contents and commit them with the status that comes along."""
        containers, vnode = self._state.store.containers, found.vnode
        old, blocks = vnode.container, vnode.blocks
        if vnode.type is ObjectType.SYMLINK:
            link = BytesSink(args.status.length)
            await caller.request.receive(link, _MAX_TARGET)
            vnode.target = link.data
            self._commit_repair(found, args, link.size, blocks)
            return
        with containers.create() as container:
            size = await caller.request.receive(container, args.status.length)
            await sync_containers([container])
            vnode.container, vnode.sha = container.number, container.sha
            self._commit_repair(found, args, size, blocks)
            container.keep()
        containers.remove([old] if old is not None else [])

    def _commit_repair(self, found: Found, args: calls.Repair, size: int, blocks: int) -> None:
        vnode, store, wanted = found.vnode, self._state.store, args.status
        if size != wanted.length:
            raise CodaError(Code.EINVAL, f"{size} bytes came for a repair of {wanted.length}")
        vnode.length, vnode.mtime, vnode.mode = size, wanted.date, wanted.mode & 0o7777
        vnode.owner, vnode.author = wanted.owner, wanted.author
        vnode.data_version += 1
        raised = wanted.vv.raised([found.volume.slot]).with_store_id(args.store_id)
        vnode.vv = raised.with_flags(wanted.vv.flags & ~_UNSOUND | VersionFlags.COP2PENDING)
        with store.transaction():
            store.vnodes.write([vnode])
            store.volumes.settle(found.volume.id, 1, vnode.blocks - blocks)


def _check_vector(vv: VersionVector) -> None:
    """Refuse counters that nobody could have reached and that could not be counted on from."""
    if not all(0 <= version < _MAX_VERSION for version in vv.versions):
        raise CodaError(Code.EINVAL, f"no version vector: {vv}")


def _with_index(index: int) -> calls.Reintegrate.Reply:
    return calls.Reintegrate.Reply(index=index, stale_dirs=(), new_stamp=0, promised=False)
