"""After a batch: what the servers now have becomes what we know (reintegration.md §§1.4, 2.5, 2.8).

The versions of all objects of the batch advance here as they do at the servers once the second phase (COP2)
has arrived, so that nothing needs to be fetched again. What servers call stale, because others changed the
same directories meanwhile, is suspect: we have our own names in it, not theirs. So it gets a store id that no
server has, and is fetched again as soon as no change of ours waits in it. That of our update would tell us
that we have all of it. (Reference servers give it an id of their own if they have other changes there than we
knew, reintegration.md §2.7. If they only count differently, for a second phase that is late, the new version
is right, and a further batch must name it.) New objects have no promise yet; one ValidateAttrs for all gets
it, in the background, and the kernel need not be told to forget them.

Reference servers raise the version of a directory, too, in which a batch changed nothing but files that were
there before (`consulted`). Nobody tells its second phase, which is that of the directory's last own update:
we do. Without it the replicas of nearly every directory of a large log would differ, and the next client that
looks would have them resolved one by one.
"""

import functools
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from realmfs.cache.log import LogEntry
from realmfs.realms.types import Reintegrated
from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import (
    AnyRecord,
    Remove,
    RemoveDir,
    Rename,
    committed,
    consulted,
    last_store_ids,
    unpack_log,
)
from realmfs.vice.types import Fid, StoreId, VersionVector

log = logging.getLogger(__name__)

Bases = Mapping[Fid, VersionVector]
"""Versions that records begin from instead of the cached ones: of directories that others change, too."""
NO_BASES: Bases = MappingProxyType({})
PROBES = 3  # objects of a batch that are asked for to learn whether it was executed


class Committer:
    """Takes in that batches were executed."""

    def __init__(self, core: Core, validator: Validator) -> None:
        self._core = core
        self._validator = validator

    def commit(
        self,
        volume: VolumeState,
        entries: Sequence[LogEntry],
        records: Sequence[AnyRecord],
        outcome: Reintegrated,
        bases: Bases = NO_BASES,
    ) -> None:
        """Advance versions, delete the records, queue the second phase. No checkpoint.

        Where `bases` are other versions than the cached ones, what is cached is none of the servers' yet:
        neither that which it was made from, for our names are in it.
        """
        core, slots = self._core, outcome.update_set
        rebased = {fid for fid, vv in bases.items() if not _same(version_of(core, volume, fid), vv)}
        before = vectors_of(core, volume, records)
        vectors = committed(records, {**before, **bases}, slots)
        seconds: dict[StoreId, list[Fid]] = {}
        for fid, store_id in last_store_ids(records).items():
            seconds.setdefault(store_id, []).append(fid)
        for fid, vv in self.consulted(volume, records, vectors, bases).items():
            vectors[fid] = vv.raised(slots)
            seconds.setdefault(vv.store_id, []).append(fid)
        stale = {fid[1:] for fid in (vectors if outcome.stale_overflow else outcome.stale_dirs)}
        with core.cache.transaction():
            cleaned = core.cache.log.remove(core.cache.log.current(entries))
            for fid, vv in vectors.items():
                if fid in rebased:
                    if fid not in before:  # it was but consulted
                        continue
                    vv = before[fid].with_store_id(core.cache.log.new_store_id())
                elif fid.is_directory and fid[1:] in stale and self._is_outdated(volume, fid, cleaned):
                    vv = vv.with_store_id(core.cache.log.new_store_id())
                self._advance(volume, fid, vv)
            core.nodes.cleaned(cleaned)
        group = core.group(volume)
        for store_id, fids in seconds.items():
            group.queue_cop2(store_id, slots, [fid for fid in fids if fid.is_directory])
        self._suspect(volume, vectors if outcome.stale_overflow else {*outcome.stale_dirs, *rebased})
        if outcome.needs_resolve:
            core.flights.start(("resolve", volume.key), lambda: self._resolve(volume, list(vectors)))
        self._renew((core.nodes.in_memory(number) for number in cleaned), entries[0].uid)
        if not core.cache.log.summary(volume.key).records:
            volume.drained.unpark_all()
        core.shrunk.unpark_all()

    def consulted(
        self,
        volume: VolumeState,
        records: Sequence[AnyRecord],
        changed: Collection[Fid],
        bases: Bases = NO_BASES,
    ) -> dict[Fid, VersionVector]:
        """Return the directories that servers raise without a change, with the versions they have before.

        Where we are wrong, the store id still says that what is cached is what the servers have, but not of a
        directory in one place only (`Node.same_version`), of which there is no second phase either.
        """
        core = self._core
        if core.any_own(volume) or volume.replicas == 1:
            return {}
        found: dict[Fid, VersionVector] = {}
        for fid in consulted(records):
            above = self._directory_of(volume, fid)
            if above is None or above in changed or above in found:
                continue
            vv = bases.get(above) or version_of(core, volume, above)
            if vv is not None and not vv.is_runt:
                found[above] = vv
        return found

    def _directory_of(self, volume: VolumeState, fid: Fid) -> Fid | None:
        """Return the directory in which servers have a file; None if we do not know."""
        core = self._core
        node = volume.nodes.get(fid[1:])
        if node is not None:
            number, parent = node.ino, node.parent
        else:
            row = core.cache.objects.find(volume.realm_id, fid)
            if row is None:
                return None
            number, parent = row.number, row.parent
        above = core.nodes.in_memory(parent)
        if above is None or above.dirty:  # then what waits may be the name of this file
            renames = [entry for entry, _ in core.cache.log.about(number) if entry.opcode == Rename.OPCODE]
            if renames:
                (first,) = unpack_log(renames[-1].record)
                assert isinstance(first, Rename)
                return first.old_parent
        known = core.cache.inodes.identity(parent) if parent else None
        return known[1] if known is not None else None

    def _is_outdated(self, volume: VolumeState, fid: Fid, cleaned: Collection[int]) -> bool:
        """Tell whether the names in a stale directory are to be taken for those of no version."""
        return self._core.any_own(volume) or self._core.cache.inodes.find(volume.realm_id, fid) in cleaned

    def _advance(self, volume: VolumeState, fid: Fid, vv: VersionVector) -> None:
        core = self._core
        node = volume.nodes.get(fid[1:])
        if node is not None and node.status is not None:
            core.nodes.change_status(node, vv=vv)
            return
        row = core.cache.objects.find(volume.realm_id, fid)
        if row is not None and row.status is not None:
            core.cache.objects.update(row.number, status=replace(row.status, vv=vv))

    def _suspect(self, volume: VolumeState, fids: Iterable[Fid]) -> None:
        for fid in fids:
            node = volume.nodes.get(fid[1:])
            if node is not None:
                node.promise = None
                node.breaks += 1

    async def _resolve(self, volume: VolumeState, fids: list[Fid]) -> None:
        """Bring servers that were not reached up to date: directories first, for they hold the others."""
        group = self._core.group(volume)
        await group.flush_cop2()
        for fid in sorted(fids, key=lambda one: not one.is_directory):
            try:
                await group.resolve(fid)
            except CodaError as error:
                log.info("%s: not resolved: %s", fid, error)

    def _renew(self, nodes: Iterable[Node | None], uid: int) -> None:
        """Get promises for objects that have none, or tell the kernel that it can't rely on them any more."""
        suspect = [node for node in nodes if node is not None and not node.valid and not node.gone]
        limit = self._core.settings.validate_batch
        for start in range(0, len(suspect), limit):
            part = suspect[start : start + limit]
            self._core.flights.start(("renew", part[0].ino), functools.partial(self._renew_part, part, uid))

    async def _renew_part(self, nodes: Sequence[Node], uid: int) -> None:
        try:
            await self._validator.renew(nodes, uid)
        finally:
            for node in nodes:
                if not node.valid:
                    self._core.kernel_forget(node)

    # -- was it done? ----------------------------------------------------------------------------------

    def found(
        self,
        volume: VolumeState,
        entries: Sequence[LogEntry],
        records: Sequence[AnyRecord],
        slots: Sequence[int],
    ) -> None:
        """Take in that a batch whose outcome was unknown had been executed, by the servers of these slots.

        The second phase must not name any others: a version that claims a server which missed the update
        hides what that server was told by somebody else. They get it by resolution; all is suspect.
        """
        behind = any(slot not in slots for slot in self._core.group(volume).slots_up)
        outcome = Reintegrated(
            Code.SUCCESS, -1, tuple(slots), uncertain=False, needs_resolve=behind, stale_overflow=True
        )
        self.commit(volume, entries, records, outcome)

    async def executed_at(
        self, volume: VolumeState, entries: Sequence[LogEntry], records: Sequence[AnyRecord]
    ) -> tuple[int, ...]:
        """Return the slots whose servers have executed a batch of unknown outcome, of those that are up.

        An object with a store id of the batch proves it, since a batch is executed as a whole. Raises
        CodaError: ETIMEDOUT if nobody answers, EWOULDBLOCK if somebody does not say.
        """
        group = self._core.group(volume)
        gone = {record.fid for record in records if isinstance(record, Remove | RemoveDir)}
        finals = [final for final in last_store_ids(records).items() if final[0] not in gone]
        slots: set[int] = set()
        for fid, store_id in (*finals[:1], *finals[1:][-PROBES:]):
            slots.update(await group.holders(fid, store_id, entries[0].uid))
        return tuple(sorted(slots))


def _same(one: VersionVector | None, other: VersionVector) -> bool:
    return one is not None and one.store_id == other.store_id


def vectors_of(core: Core, volume: VolumeState, records: Sequence[AnyRecord]) -> dict[Fid, VersionVector]:
    """Return the cached versions of all objects that records touch."""
    vectors: dict[Fid, VersionVector] = {}
    for record in records:
        for fid in record.objects():
            if fid not in vectors:
                vectors[fid] = version_of(core, volume, fid) or VersionVector()
    return vectors


def version_of(core: Core, volume: VolumeState, fid: Fid) -> VersionVector | None:
    """Return the cached version of an object; None if there is none."""
    node = volume.nodes.get(fid[1:])
    status = node.status if node is not None else None
    if status is None:
        row = core.cache.objects.find(volume.realm_id, fid)
        status = row.status if row is not None else None
    return status.vv if status is not None else None
