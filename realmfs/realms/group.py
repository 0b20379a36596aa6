"""The servers of one volume as one: what the cache manager calls.

Every call asks the servers that are not known to be down and makes one answer of theirs; disagreement
between replicas is resolved here, or ends in EINCONS. `user` is a local user id, or ANYUSER. `patience`, in
seconds, bounds the wait; None means the setting (10 s). All calls raise CodaError and nothing else:
ETIMEDOUT, no server answers; EWOULDBLOCK, they do but are busy; EINCONS, a conflict; what the servers say
otherwise, as vice.md §7.2 translates it.
"""

from collections.abc import Mapping, Sequence
from math import inf

import trio

from realmfs.realms import reading, repairing, single, sweep, updating, volumecalls
from realmfs.realms.context import Context
from realmfs.realms.core import Core
from realmfs.realms.fetching import Transfer
from realmfs.realms.handles import HandleStore
from realmfs.realms.server import Server, State
from realmfs.realms.types import AccessListAnswer, Attributes, Reintegrated, SinkAt, Stamps
from realmfs.realms.volume import Replica
from realmfs.realms.volumecalls import VolumeState
from realmfs.rpc2.transfer import Sink, Source
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, FidRange, ObjectType, Status, StoreId, VersionVector, VolumeStatus

REINTEGRATE_PATIENCE = 120.0
"""A batch with back-fetches, at servers that wait for somebody's dead client (vice.md §4.3)."""


class Group:
    """One volume's servers."""

    def __init__(
        self, context: Context, volume_id: int, replicated: bool, replicas: Sequence[Replica]
    ) -> None:
        self.core = Core(context, volume_id, replicated, replicas)

    @property
    def reachable(self) -> bool:
        """Whether any server is not known to be down."""
        return any(replica.server.available for replica in self.core.replicas)

    @property
    def resolving(self) -> bool:
        """Whether servers are making their replicas equal at our request."""
        return self.core.resolving > 0

    @property
    def slots_up(self) -> tuple[int, ...]:
        """The slots of servers not known to be down."""
        return tuple(replica.slot for replica in self.core.replicas if replica.server.available)

    @property
    def servers_up(self) -> tuple[Server, ...]:
        """The servers not known to be down."""
        return tuple(replica.server for replica in self.core.replicas if replica.server.available)

    @property
    def ours(self) -> bool:
        """Whether every server of the group is known to run realmfs, too; False until all were met."""
        return self.core.all_ours

    @property
    def silence(self) -> float:
        """Seconds since anything came from that server, of those not known to be down, that is quiet longest.

        A server that cannot call back gives up its promises unheard; this bounds how long ago that may be.
        """
        now = trio.current_time()
        heard = (replica.server.last_heard for replica in self.core.replicas if replica.server.available)
        return max((now - time if time is not None else inf for time in heard), default=inf)

    # objects

    async def get_attr(self, fid: Fid, user: int, *, patience: float | None = None) -> Attributes:
        """Ask for an object's status."""
        return await reading.get_attr(self.core, fid, user, self.core.patience(patience))

    async def settled(self, directory: Fid, user: int) -> VersionVector | None:
        """Return the version of a directory that others change, too, once it is the same at all servers up.

        An update made without it would need resolution, and in the midst of theirs end in a conflict
        (cop2.py). None: nobody else was heard to change it, or these servers do not mind.
        """
        if not self.core.is_shared(directory):
            return None
        patience = self.core.patience(None)
        return (await reading.get_attr(self.core, directory, user, patience, weakly=False)).status.vv

    async def holders(
        self, fid: Fid, store_id: StoreId, user: int, *, patience: float | None = None
    ) -> tuple[int, ...]:
        """Return the slots of the servers up whose own copy is at this store id, each asked for itself."""
        return await reading.holders(self.core, fid, store_id, user, self.core.patience(patience))

    async def validate(
        self, objects: Sequence[tuple[Fid, VersionVector]], user: int, *, patience: float | None = None
    ) -> dict[Fid, bool]:
        """Ask whether cached versions, at most 51 of this volume, are still the servers', with promises.

        False says only that the object must be asked about by itself.
        """
        return await reading.validate(self.core, objects, user, self.core.patience(patience))

    async def fetch(
        self,
        fid: Fid,
        user: int,
        sink_at: SinkAt,
        *,
        vv: VersionVector | None = None,
        length: int | None = None,
        offset: int = 0,
        count: int | None = None,
        ask_all: bool = True,
        patience: float | None = None,
    ) -> Attributes:
        """Fetch contents.

        `count` bytes (None: to the end) from `offset`, into `sink_at(offset)` (see SinkAt).

        Nothing known: give neither `vv` nor `length`, get status and data in one round. Known status: give
        both, the bytes are then of that version or VersionChangedError is raised, with the new attributes.
        Directories and symlinks only as a whole. `ask_all=False`: the caller holds a promise for `vv`, so
        only the server that sends data is asked; the result promises nothing. The patience starts anew
        whenever data advances.
        """
        transfer = Transfer(self.core, fid, user, sink_at, self.core.patience(patience), vv, length)
        return await transfer.run(offset, count, ask_all)

    def sources(self) -> Sequence[Replica]:
        """Return the servers worth fetching small objects from. Raises CodaError ETIMEDOUT if none is up."""
        return single.sources(self.core)

    async def fetch_one(
        self, replica: Replica, fid: Fid, user: int, sink: Sink, *, patience: float | None = None
    ) -> Status:
        """Fetch a small object from one server; not to be used before `validate` has found it current."""
        return await single.fetch_one(self.core, replica, fid, user, sink, self.core.patience(patience))

    @property
    def sweeps(self) -> bool:
        """Whether it pays to ask for many objects in one sweep."""
        return sweep.worthwhile(self.core)

    async def sweep(
        self, fids: Sequence[Fid], user: int, limit: int | None, *, patience: float | None = None
    ) -> dict[Fid, sweep.Found]:
        """Ask for many objects of the volume at once; see sweep.py. What is left out must be asked for."""
        return await sweep.sweep(self.core, fids, user, limit, self.core.patience(patience))

    async def get_acl(self, fid: Fid, user: int, *, patience: float | None = None) -> AccessListAnswer:
        """Ask for a directory's access list as text."""
        return await reading.get_acl(self.core, fid, user, self.core.patience(patience))

    async def set_acl(
        self,
        fid: Fid,
        text: bytes,
        status: Status,
        store_id: StoreId,
        user: int,
        *,
        patience: float | None = None,
    ) -> Status:
        """Replace a directory's access list and queue the second phase; `status` is the present one.

        Replace a directory's access list and queue the second phase; `status` is the directory's present
        one.

        The store id must be new. Returns the new status, its version already what COP2 will make it.
        """
        bound = self.core.patience(patience)
        return await updating.set_acl(self.core, fid, text, status, store_id, user, bound)

    async def resolve(self, fid: Fid, *, patience: float | None = None) -> None:
        """Have the servers make the replicas of an object equal; treat it as suspect afterwards."""
        await self.core.resolve(fid, self.core.patience(patience))

    # conflicts

    async def replica_statuses(
        self, fid: Fid, user: int, *, patience: float | None = None
    ) -> dict[int, Status]:
        """Ask each server up for the status of its own copy, in conflict or not; by slot."""
        return await repairing.replica_statuses(self.core, fid, user, self.core.patience(patience))

    async def repair(
        self,
        fid: Fid,
        source: Source,
        status: Status,
        store_id: StoreId,
        user: int,
        *,
        patience: float | None = None,
    ) -> dict[int, Code]:
        """Give an object in conflict new contents at all servers; see repairing.py."""
        bound = self.core.patience(patience)
        return await repairing.repair(self.core, fid, source, status, store_id, user, bound)

    async def clear_conflict(
        self, fid: Fid, versions: Mapping[int, VersionVector], user: int, *, patience: float | None = None
    ) -> None:
        """Take the mark of a conflict from replicas that are known to be equal."""
        await repairing.clear(self.core, fid, versions, user, self.core.patience(patience))

    # the volume

    async def volume_status(self, user: int, *, patience: float | None = None) -> VolumeState:
        """Ask for state, quota and texts of the volume."""
        return await volumecalls.volume_status(self.core, user, self.core.patience(patience))

    async def set_volume_status(
        self,
        store_id: StoreId,
        user: int,
        *,
        max_quota: int = -1,
        offline: bytes = b"",
        motd: bytes = b"",
        patience: float | None = None,
    ) -> None:
        """Set quota (1 KiB blocks, -1: leave it) and texts; for administrators."""
        status = VolumeStatus.request(self.core.volume_id, max_quota=max_quota)
        bound = self.core.patience(patience)
        await updating.set_volume_status(self.core, status, offline, motd, store_id, user, bound)

    async def volume_stamps(self, user: int, *, patience: float | None = None) -> Stamps:
        """Acquire the volume's stamps and promise.

        Only while every cached object of it is valid (client.md §3).
        """
        return await volumecalls.volume_stamps(self.core, user, self.core.patience(patience))

    async def validate_volumes(
        self, volumes: Sequence[tuple[int, Sequence[int]]], user: int, *, patience: float | None = None
    ) -> list[int]:
        """Ask whether volumes on exactly these servers, at most 50, still have these stamps.

        Per volume 1: unchanged and promised; 0: unchanged; -1: changed.
        """
        return await volumecalls.validate_volumes(self.core, volumes, user, self.core.patience(patience))

    async def alloc_fids(
        self, kind: ObjectType, count: int, user: int, *, patience: float | None = None
    ) -> FidRange:
        """Reserve fids, at most 32 at once, perhaps fewer than asked for."""
        return await volumecalls.alloc_fids(self.core, kind, count, user, self.core.patience(patience))

    # updates

    async def reintegrate(
        self,
        records: bytes,
        user: int,
        *,
        out_of_order: bool = False,
        first_alone: bool = False,
        patience: float | None = None,
    ) -> Reintegrated:
        """Replay a packed modify log at all servers; contents are fetched back from the Listener.

        `first_alone`: at one server first, for it may die of the log. Raises CodaError only before anything
        was sent; afterwards all there is to say is in the result. The caller queues the second phase of each
        record with `queue_cop2`.
        """
        bound = self.core.patience(REINTEGRATE_PATIENCE if patience is None else patience)
        return await updating.reintegrate(self.core, records, user, out_of_order, bound, first_alone)

    async def fill_handles(self, store: HandleStore, *, patience: float | None = None) -> Reintegrated:
        """Bring the contents of a large store to all servers, ahead of `store_by_handle`.

        SUCCESS: all that are up have them. Nothing is executed, so other updates may be made meanwhile. After
        an interruption (ETIMEDOUT) call again with the same `store`: it goes on where it stopped.
        """
        return await store.fill(self.core, self.core.patience(patience).seconds)

    async def meet(self) -> None:
        """Contact the servers not met yet: one that comes up while others are asked voids what they say."""
        async with trio.open_nursery() as nursery:
            for replica in self.core.replicas:
                if replica.server.state is State.UNKNOWN and replica.server.online:
                    nursery.start_soon(replica.server.reach)

    async def try_all(self) -> None:
        """See to it that no server counts as down only because it was not tried since another came up.

        Updates made before every server has been tried end at some of the servers and need resolution. Waits
        as long as one that is down may take to answer.
        """
        up = [r.server.since for r in self.core.replicas if r.server.state is State.UP]
        behind = (
            [
                r.server
                for r in self.core.replicas
                if r.server.state is State.DOWN and r.server.since < max(up)
            ]
            if up
            else []
        )
        if not any(server.online for server in behind):
            return
        async with trio.open_nursery() as nursery:
            for server in behind:
                nursery.start_soon(server.try_again)

    async def store_by_handle(
        self, store: HandleStore, record: bytes, *, patience: float | None = None
    ) -> Reintegrated:
        """Store a large file at all servers: `record` is the packed log of its one store record.

        After an interruption (ETIMEDOUT) call again with the same `store`: it goes on where it stopped.
        """
        return await store.run(self.core, record, self.core.patience(patience).seconds)

    def queue_cop2(
        self, store_id: StoreId, update_set: Sequence[int], directories: Sequence[Fid] = ()
    ) -> None:
        """Have the second phase of an update delivered soon.

        `update_set` are the slots that executed it, `directories` what it changed of that kind.
        """
        if self.core.replicated and update_set:
            self.core.cop2.put(store_id, update_set, directories)
            self.core.deliver_cop2()

    async def flush_cop2(self) -> None:
        """Deliver second phases now."""
        await self.core.flush_cop2()
