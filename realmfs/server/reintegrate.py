"""ViceReintegrate and the closing of handles: from a packed log to a committed batch (reintegration.md §2f).

    receive     the log, by side effect; read it: ENOMEM or EINVAL with the index of the first bad record
    lock        the volume, for a moment's waiting; else EWOULDBLOCK
    duplicates  first record not newer than the last known of this client: VLOGSTALE, Index = that
    replay      every record in memory: the first that fails is named by Index, and nothing has happened
    fill        fetch the contents of stores back from the client, or take the handle's; sync them
    commit      one transaction, then the log of the database is synced
    tell        break the promises of all other hosts; then the reply

While contents are fetched everybody else reads the old state undisturbed. A call that dies anywhere before
the commit has done nothing; after it, the client's retry is answered VLOGSTALE, also by a server that was
restarted in between.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

import trio

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.server.certify import Certifier
from realmfs.server.containers import Container, sync_containers
from realmfs.server.state import Caller, ServerState
from realmfs.server.volumes import Volume
from realmfs.server.workingset import WorkingSet
from realmfs.vice import log as modifylog
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, StoreId

logger = logging.getLogger(__name__)

MAX_LOG: Final = 8 << 20
"""Largest packed log that is taken, in bytes; a client sends at most 100 records."""
MAX_RECORDS: Final = 10_000
_CHECKED: Final = 0x7FFFFFFF
"""Clients whose uniquifiers are beyond this are never checked for duplicates (reintegration.md §2.6)."""
_NOBODY: Final = -1


class Blamed(Exception):  # noqa: N818  # an answer, not a mistake
    """A batch that was not applied: why, and the index of the record to blame, or -1."""

    def __init__(self, error: CodaError, index: int) -> None:
        super().__init__(error, index)
        self.error = error
        self.index = index


@dataclass(slots=True)
class Batch:
    """A log on its way into a volume."""

    volume: Volume
    named: int
    """The volume's id as the client gave it."""
    records: list[modifylog.AnyRecord]
    out_of_order: bool = False
    handle: Container | None = None
    """Contents that a handle has brought; without one they are fetched back."""
    stale: list[Fid] = field(default_factory=list)
    """Out: directories that had been changed by others."""


async def receive_log(caller: Caller, volume: Volume, named: int, size: int) -> Batch:
    """Take the packed log from the client and read it. Raises Blamed, RpcError."""
    if not 0 <= size <= MAX_LOG:
        raise Blamed(CodaError(Code.EINVAL, f"a log of {size} bytes"), _NOBODY)
    sink = BytesSink(size)
    await caller.request.receive(sink, size)
    try:
        records = modifylog.unpack_log(sink.data, {volume.id, volume.group_id})
    except modifylog.BadLog as error:
        raise Blamed(CodaError(error.code, str(error)), error.index) from error
    except BadPacket as error:
        raise Blamed(CodaError(Code.ENOMEM, str(error)), _NOBODY) from error
    if len(records) > MAX_RECORDS:
        raise Blamed(CodaError(Code.EINVAL, f"{len(records)} records at once"), _NOBODY)
    return Batch(volume, named, records)


async def execute(state: ServerState, caller: Caller, batch: Batch) -> None:
    """Apply a batch, all of it or nothing, and tell everybody. Raises Blamed."""
    if not batch.records:
        return
    try:
        async with state.exclusive(batch.volume):
            batch.volume = state.volume(batch.named)
            _check_duplicate(state, batch)
            work = WorkingSet(state.store, batch.volume)
            try:
                certifier = _replay(work, caller, batch)
                await _fill(state, caller, batch, work, certifier.stores)
                await sync_containers(work.containers)
                with trio.CancelScope(shield=True):  # what is committed must be made durable, and be told
                    work.commit(_last_store_id(batch))
                    await state.store.database.durable()
            finally:
                work.discard()
    except CodaError as error:
        raise Blamed(error, _NOBODY) from error
    work.drop_superseded()
    batch.stale = list(certifier.stale)
    await state.hosts.break_promises(batch.volume, work.affected, caller.host)


def _check_duplicate(state: ServerState, batch: Batch) -> None:
    first = batch.records[0].store_id
    last = state.store.volumes.duplicate_of(batch.volume.id, first.host)
    if last is not None and first.uniquifier <= min(last, _CHECKED):
        signed = last - (1 << 32) if last > _CHECKED else last
        raise Blamed(CodaError(Code.VLOGSTALE, f"{first} was done before"), signed)


def _replay(work: WorkingSet, caller: Caller, batch: Batch) -> Certifier:
    certifier = Certifier(work, caller.identity, authenticated=caller.session.user is not None)
    for index, record in enumerate(batch.records):
        try:
            certifier.replay(record)
        except CodaError as error:
            logger.debug("record %d of client %s, %s: %s", index, caller.host, type(record).__name__, error)
            raise Blamed(error, index) from error
    return certifier


async def _fill(
    state: ServerState, caller: Caller, batch: Batch, work: WorkingSet, stores: dict[Fid, int]
) -> None:
    """Get the contents of the files that were stored to: of each only the last store's."""
    for fid, length in stores.items():
        if batch.handle is not None:
            if batch.handle.length != length:
                raise CodaError(
                    Code.EINVAL, f"a store of {length} bytes; the handle has {batch.handle.length}"
                )
            work.attach(fid, batch.handle, lent=True)
        elif length:
            container = state.store.containers.create()
            try:
                await state.hosts.fetch_back(caller.host, fid.in_volume(batch.named), container)
                if container.length != length:
                    raise CodaError(Code.EINVAL, f"{container.length} bytes came for a store of {length}")
            except BaseException:
                container.discard()
                raise
            work.attach(fid, container)
        state.counters["total_stores"] += 1
        state.counters["stored_bytes"] += length


def _last_store_id(batch: Batch) -> StoreId | None:
    return None if batch.out_of_order else batch.records[-1].store_id
