"""Sending the modify log: one sender per volume with waiting records (reintegration.md §§2, 5).

                       ┌────────────────────────── woken: a record, a server, a token, a close
                       ▼
    idle ──► choose a batch ──► translate local fids ──► freeze (store ids) ──► thread, pack, send
      ▲            ▲                                                                   │
      │            ├── committed: versions, COP2, records deleted ◄── 0, or already done and shown to be so
      │            ├── thawed, sent again after a pause          ◄── busy, no space, no token: nothing applied
      │            ├── thawed, one record blocked with a reason  ◄── refused: waits for a person
      │            └── still frozen: outcome unknown             ◄── no answer
      │                      │
      └── nothing left       └──► settle: ask for the objects; if one carries the store id of a record of the
                                  batch, all of it was done (a batch is atomic); else it is sent again

What must not happen, and why it does not

* Lost: a record is deleted only in `_commit`, which needs a server's 0 or an object seen with the record's
  store id.
* Applied twice: store ids stay with frozen records, over restarts as well. A server that knows them answers
  EALREADY; one that has forgotten finds other store ids in the objects and refuses. While an outcome is
  unknown nothing else of the volume is sent.
* Believed too easily: EALREADY counts only for a batch that was sent before under these store ids, which
  are never used twice; for any other it is not about us, and the batch gets new store ids.
* Changed under way: contents of a store are an immutable container from the moment they were logged;
  servers fetch them from there while our call waits (`source`). Nothing cancels a frozen record.
"""

import logging
import os
import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile

import trio

from realmfs.cache.containers import Container
from realmfs.cache.errors import ContainerLost
from realmfs.cache.log import LogEntry, Role, State
from realmfs.realms.handles import HandleStore
from realmfs.realms.types import ANYUSER, Reintegrated
from realmfs.rpc2.transfer import FileSource, Source
from realmfs.venus.batch import Batch, Kind, Waiting, choose
from realmfs.venus.certify import refusal
from realmfs.venus.commit import Committer, vectors_of
from realmfs.venus.core import Core
from realmfs.venus.events import ChangeSent, Conflict, Reintegrating, VolumeChanged
from realmfs.venus.events import Waiting as WaitingFor
from realmfs.venus.fids import Fids
from realmfs.venus.passing import forget_passing
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Store, pack_log, thread, unpack_log
from realmfs.vice.types import Fid

log = logging.getLogger(__name__)

LOOK_AHEAD = 500  # records looked at to fill a batch
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
SPACE_PAUSE = 60.0
OPEN_FILES_PAUSE = 10.0  # their close wakes the sender; their age does not
PATIENT = 5  # answers that may be passing trouble (EIO, EINVAL of a transfer) before they count as a refusal
BUSY = frozenset({Code.EWOULDBLOCK, Code.ERETRY, Code.EALREADY})
NO_SPACE = frozenset({Code.EDQUOT, Code.ENOSPC})
NOT_ALLOWED = frozenset({Code.EPERM, Code.EACCES})
NO_ANSWER = frozenset({Code.ETIMEDOUT})
PASSING = frozenset({Code.EIO, Code.EINVAL, Code.ENXIO})


@dataclass(slots=True)
class Flight:
    """A batch on its way: entries, the records as sent, and the contents that servers will fetch."""

    batch: Batch
    entries: list[LogEntry]
    records: list[AnyRecord]
    contents: dict[Fid, Container] = field(default_factory=dict)

    def close(self) -> None:
        """Let go of the contents."""
        for content in self.contents.values():
            content.close()
        self.contents.clear()


class Sender:
    """Sends one volume's log until it is empty or something is in the way."""

    def __init__(self, core: Core, fids: Fids, committer: Committer, volume: VolumeState) -> None:
        self._core = core
        self._fids = fids
        self._committer = committer
        self._volume = volume
        self._wake = trio.Event()
        self._pause = 0.0
        self._failures = 0
        self._handle: HandleStore | None = None  # goes on where it stopped, as long as it is of
        self._handle_contents = 0  # this container
        self.flight: Flight | None = None
        self.force = False

    def wake(self) -> None:
        """Something changed: look again."""
        self._wake.set()

    async def run(self) -> None:
        """Send whatever waits, for ever."""
        while True:
            self._wake = trio.Event()
            try:
                progress = await self._cycle()
            except CodaError as error:
                log.info("%s: %s", self._volume.name, error)
                progress = False
                self._slow_down()
            except (OSError, ContainerLost) as error:
                log.error("%s: the log cannot be sent: %s", self._volume.name, error)
                progress = False
                self._slow_down()
            if progress:
                self._pause = 0.0
                continue
            with trio.move_on_after(self._pause or float("inf")):
                await self._wake.wait()

    def _slow_down(self, least: float = FIRST_PAUSE) -> None:
        """Wait longer each time, by chance not in step with other clients."""
        self._pause = min(max(self._pause * 2, least), max(LONGEST_PAUSE, least)) * random.uniform(0.8, 1.2)

    async def _cycle(self) -> bool:
        """Send one batch; tell whether to go on at once."""
        volume = self._volume
        head = self._core.cache.log.entries(volume.key, limit=1)
        self._pause, pause = 0.0, self._pause
        if not head:
            volume.drained.unpark_all()
            self._say("")
            return False
        self._pause = pause
        if volume.place is None:
            await self._core.enter(volume)
            return True
        if not self._may_send(head[0]):
            self._pause = 0.0
            return False
        entries = self._core.cache.log.entries(volume.key, limit=LOOK_AHEAD)
        frozen = [entry for entry in entries if entry.frozen]
        if frozen:
            return await self._settle(frozen)
        batch = self._choose(list(takewhile(partial(_same_author, head[0]), entries)))
        if batch is None:
            self._pause = OPEN_FILES_PAUSE
            self._say("files that are open for writing")
            return False
        return await self._send(batch, [entry for entry in entries if entry.sequence in batch.sequences])

    def _may_send(self, head: LogEntry) -> bool:
        """Tell whether the oldest record may go. While it may not, each new change costs only this look."""
        volume = self._volume
        reason = ""
        if not volume.reachable:
            reason = "servers"
        elif sent_as(head) != ANYUSER and not self._core.volumes.may_send(volume, head.uid, head.identity):
            reason = "tokens"
        elif head.state & State.BLOCKED and not head.frozen:
            reason = "a decision"
        self._say(reason)
        return not reason

    def _say(self, reason: str) -> None:
        volume = self._volume
        if volume.waiting_for == reason:
            return
        volume.waiting_for = reason
        records = self._core.cache.log.summary(volume.key).records
        flags = (reason,) if reason else ()
        self._core.events.publish(VolumeChanged(volume.name, volume.realm, volume.reachable, records, flags))
        owner = self._core.cache.log.owner(volume.key)
        if reason == "tokens" and owner is not None:
            self._core.events.publish(WaitingFor(volume.name, owner[0], reason))

    def _choose(self, entries: Sequence[LogEntry]) -> Batch | None:
        settings = self._core.settings
        return choose(
            [self._waiting(entry) for entry in entries],
            own_servers=settings.own_servers,
            records=settings.batch_records,
            files=settings.batch_files,
            big=settings.big_store,
        )

    def _waiting(self, entry: LogEntry) -> Waiting:
        numbers = frozenset(number for number, _ in entry.about)
        return Waiting(
            entry.sequence,
            entry.opcode,
            numbers,
            entry.length,
            blocked=bool(entry.state & State.BLOCKED),
            held=entry.opcode == Store.OPCODE and self._is_open(entry),
        )

    def _is_open(self, entry: LogEntry) -> bool:
        """Tell whether a store waits for its file to be closed; databases keep files open for days."""
        node = self._core.nodes.in_memory(object_of(entry))
        if node is None or not node.writers:
            return False
        return self._core.now() - entry.time < self._core.settings.open_store_age

    # -- sending ---------------------------------------------------------------------------------------

    async def _send(self, batch: Batch, entries: list[LogEntry]) -> bool:
        core, volume = self._core, self._volume
        uid = sent_as(entries[0])
        if await self._is_hopeless(entries):
            return True
        await self._fids.prepare(volume, entries, uid)
        # No checkpoint up to the freeze: what was chosen is what is frozen.
        self._fids.translate(volume, entries)
        with core.cache.transaction():
            current = [core.cache.log.get(volume.key, entry.sequence) for entry in entries]
            entries = core.cache.log.freeze(entry for entry in current if entry is not None)
        if not entries:
            return True
        return await self._fly(batch, entries, was_sent=False)

    async def _fly(self, batch: Batch, entries: list[LogEntry], *, was_sent: bool) -> bool:
        core, volume = self._core, self._volume
        flight = self.flight = self._flight(batch, entries)
        total = core.cache.log.summary(volume.key).records
        core.events.publish(Reintegrating(volume.name, total, total))
        try:
            outcome = await self._transmit(flight)
        finally:
            self.flight = None
            flight.close()
        progress = self._conclude(flight, outcome, was_sent)
        left = core.cache.log.summary(volume.key).records
        core.events.publish(Reintegrating(volume.name, left, total))
        if progress:
            self._failures = 0
        return progress

    async def _is_hopeless(self, entries: list[LogEntry]) -> bool:
        """Tell whether servers would refuse a batch for its names; it is then kept from them (certify.py)."""
        if self._core.settings.own_servers:
            return False
        records = [full_record(self._core, entry) for entry in entries]
        found = await refusal(self._core, self._volume, records, sent_as(entries[0]))
        if found is not None:
            self._refused(entries, found[1], found[0])
        return found is not None

    def _flight(self, batch: Batch, entries: list[LogEntry]) -> Flight:
        core = self._core
        records = [full_record(core, entry) for entry in entries]
        flight = Flight(batch, entries, thread(records, vectors_of(core, self._volume, records)))
        try:
            for entry, record in zip(entries, flight.records, strict=True):
                if entry.container is not None and isinstance(record, Store):
                    if record.fid in flight.contents:
                        flight.contents.pop(record.fid).close()  # only the last store of a file is fetched
                    flight.contents[record.fid] = core.cache.containers.open(entry.container)
        except BaseException:
            flight.close()
            raise
        return flight

    async def _transmit(self, flight: Flight) -> Reintegrated:
        core, volume = self._core, self._volume
        group = core.group(volume)
        uid = sent_as(flight.entries[0])
        packed = pack_log(flight.records)
        if flight.batch.kind is Kind.HANDLE:
            ((fid, content),) = flight.contents.items()
            if self._handle is None or self._handle.fid != fid or self._handle_contents != content.id:
                self._handle = HandleStore(fid, _Contents(content), uid)
                self._handle_contents = content.id
            else:
                self._handle.source = _Contents(content)
            core.events.publish(ChangeSent("SendReintFragment", f"{volume.name}, {fid} [{content.length}]"))
            outcome = await group.store_by_handle(self._handle, packed)
            if outcome.code is not Code.ETIMEDOUT:
                self._handle = None
            return outcome
        core.events.publish(
            ChangeSent("Reintegrate", f"{volume.name}, ({len(flight.records)}, {len(packed)})")
        )
        return await group.reintegrate(packed, uid)

    def source(self, fid: Fid) -> Source:
        """Return the frozen contents that a server fetches back. Raises CodaError ENOENT."""
        content = self.flight.contents.get(fid) if self.flight is not None else None
        if content is None:
            raise CodaError(Code.ENOENT, f"no store of {fid} is on its way")
        # A descriptor of its own: a server may read on after our call has ended and the container is closed.
        descriptor = os.dup(content.fd)
        source = _Lent(descriptor, 0, content.length)
        weakref.finalize(source, os.close, descriptor)
        return source

    # -- what came of it -------------------------------------------------------------------------------

    def _conclude(self, flight: Flight, outcome: Reintegrated, was_sent: bool) -> bool:
        """Take in how a batch ended; tell whether to go on at once."""
        code = outcome.code
        if was_sent and outcome.known:
            known = {*outcome.update_set, *outcome.known}
            outcome = replace(outcome, update_set=tuple(sorted(known)))
        if code is Code.SUCCESS:
            self._committer.commit(self._volume, flight.entries, flight.records, outcome)
            return True
        if code is Code.EALREADY and was_sent and outcome.index >= _last_uniquifier(flight.entries):
            self._committer.found(self._volume, flight.entries, flight.records, outcome.known)
            return True
        if outcome.uncertain or code in NO_ANSWER or (code in BUSY and was_sent):
            # Still frozen: the next cycle settles it. Only a server that returns makes a difference; one that
            # is busy may be so with this very batch, sent before.
            self._failures += 1
            if not outcome.uncertain and code is Code.ETIMEDOUT and not was_sent:
                self._thaw(flight.entries, Code.ETIMEDOUT)
            self._slow_down()
            return False
        if code in BUSY:
            self._thaw(flight.entries, code)
            self._slow_down()
        elif code in NO_SPACE:
            self._thaw(flight.entries, code)
            self._slow_down(SPACE_PAUSE)
        elif code in NOT_ALLOWED and self._went_as_nobody(flight):
            self._thaw(flight.entries, code)
            if self._core.volumes.has_token(self._volume, flight.entries[0].uid):
                return True  # from now on they go as the user's own
            self._say("tokens")
            self._slow_down(SPACE_PAUSE)
        elif code in PASSING and self._failures < PATIENT:
            self._failures += 1
            self._thaw(flight.entries, code)
            self._slow_down()
        else:
            self._refused(flight.entries, code, outcome.index)
            return True
        return False

    def _went_as_nobody(self, flight: Flight) -> bool:
        head = flight.entries[0]
        return sent_as(head) == ANYUSER or not self._core.volumes.has_token(self._volume, head.uid)

    def _thaw(self, entries: Sequence[LogEntry], code: Code) -> None:
        core = self._core
        with core.cache.transaction():
            current = [core.cache.log.get(self._volume.key, entry.sequence) for entry in entries]
            still = [entry for entry in current if entry is not None]
            core.nodes.cleaned(core.cache.log.thaw(still, reason=int(code)))
            forget_passing(core, still)

    def _refused(self, entries: Sequence[LogEntry], code: Code, index: int) -> None:
        """Mark the record that servers refuse; it and all behind it wait for a person (conflicts.md §2.2)."""
        core = self._core
        self._failures = 0
        self._thaw(entries, code)
        guilty = entries[index if 0 <= index < len(entries) else 0]
        current = core.cache.log.get(self._volume.key, guilty.sequence)
        if current is None:
            return
        with core.cache.transaction():
            core.cache.log.set_reason(current, int(code), blocked=True)
        node = core.nodes.by_number(object_of(current))
        log.info("%s: the servers refuse a change of %s: %s", self._volume.name, core.path(node), code.name)
        core.events.publish(Conflict(core.path(node), str(node.fid), local=True))

    async def _settle(self, frozen: list[LogEntry]) -> bool:
        """Find out whether records whose outcome is unknown have been executed; if not, send them again."""
        records = [full_record(self._core, entry) for entry in frozen]
        slots = await self._committer.executed_at(self._volume, frozen, records)
        if slots:
            self._committer.found(self._volume, frozen, records, slots)
            return True
        if await self._is_hopeless(frozen):
            return True
        opcodes = {entry.opcode for entry in frozen}
        big = len(frozen) == 1 and frozen[0].length > self._core.settings.big_store
        kind = Kind.HANDLE if big and opcodes == {Store.OPCODE} else Kind.MIXED
        batch = Batch(kind, tuple(entry.sequence for entry in frozen))
        return await self._fly(batch, frozen, was_sent=True)


class _Lent(FileSource):
    """Contents that a server reads when it likes; the descriptor is closed with the last reference."""

    __slots__ = ("__weakref__",)


class _Contents:
    """The transport's view of an immutable container that the flight keeps open."""

    def __init__(self, content: Container) -> None:
        self._content = content
        self.size = content.length

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes of the contents."""
        return self._content.read(offset, count)


def object_of(entry: LogEntry) -> int:
    """Return the inode number of what a record makes, changes, moves or removes."""
    return next(number for number, role in entry.about if role & Role.OBJECT)


def _same_author(first: LogEntry, other: LogEntry) -> bool:
    """Tell whether two records may go in one call: it is made as one user."""
    author = first.uid, first.identity, sent_as(first)
    return author == (other.uid, other.identity, sent_as(other))


def sent_as(entry: LogEntry) -> int:
    """Return the local user whose connections a record is sent on.

    What somebody did without a token goes out as what it is, on open connections, whether he has logged in
    since or not. What servers would not let nobody do was done by rights that he once had: it waits for his
    login, and goes as his own then.
    """
    as_nobody = not entry.identity and entry.reason not in NOT_ALLOWED
    return ANYUSER if as_nobody else entry.uid


def _last_uniquifier(entries: Sequence[LogEntry]) -> int:
    return max(entry.store_id.uniquifier for entry in entries if entry.store_id is not None)


def full_record(core: Core, entry: LogEntry) -> AnyRecord:
    """Return a waiting record as a value: with its store id, and the fid that is not stored in it."""
    (record,) = unpack_log(entry.record)
    record = replace(record, store_id=entry.store_id or record.store_id)
    if record.fid == Fid.zero():
        identity = core.cache.inodes.identity(object_of(entry))
        if identity is not None:
            record = replace(record, fid=identity[1])
    return record


class Reintegrator:
    """All senders. A volume gets one with its first record and keeps it."""

    def __init__(self, core: Core, fids: Fids, committer: Committer) -> None:
        self._core = core
        self._fids = fids
        self._committer = committer
        self._senders: dict[int, Sender] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what waits, for ever."""
        async with trio.open_nursery() as self._nursery:
            for key in self._core.cache.log.volumes():
                self.wake(self._core.volumes.by_key(key))
            task_status.started()
            await trio.sleep_forever()

    def wake(self, volume: VolumeState) -> None:
        """Look at a volume's log: something was logged, closed, or has come up."""
        sender = self._senders.get(volume.key)
        if sender is None:
            if self._nursery is None or not self._core.cache.log.summary(volume.key).records:
                return
            sender = self._senders[volume.key] = Sender(self._core, self._fids, self._committer, volume)
            self._nursery.start_soon(sender.run)
        sender.wake()

    def wake_all(self) -> None:
        """Look at all logs: a token has come, or we are on line again."""
        for volume in self._core.volumes:
            self.wake(volume)

    def source(self, volume: VolumeState, fid: Fid) -> Source:
        """Return the frozen contents that a server fetches back. Raises CodaError ENOENT."""
        sender = self._senders.get(volume.key)
        if sender is None:
            raise CodaError(Code.ENOENT, f"nothing of {volume.name} is on its way")
        return sender.source(fid)
