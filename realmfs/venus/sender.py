"""Sending the modify log: one sender per volume with waiting records (reintegration.md §§2, 5).

                       ┌────────────────────────── woken: a record, a server, a token, a close, a person
                       ▼
    idle ──► choose a batch ──► translate local fids ──► freeze (store ids) ──► thread, pack, send
      ▲            ▲   │                                                           │
      │            │   └──► large stores: upload beside all this (uploads.py)      │
      │            │                                                               │
      │            ├── committed: versions, COP2, records deleted ◄── 0, or already done and shown to be so
      │            ├── thawed, sent again after a pause          ◄── busy, no space, no token: nothing applied
      │            ├── thawed, one record blocked with a reason  ◄── refused: waits for a person; what does
      │            │                                                 not depend on it goes on (batch.py)
      │            └── still frozen: outcome unknown             ◄── no answer
      │                      │
      └── nothing left       └──► settle: ask for the objects; if one carries the store id of a record of the
                                  batch, all of it was done (a batch is atomic); else it is checked against
                                  what the servers have now, and sent again, at one server first

What must not happen, and why it does not

* Lost: a record is deleted only in `Committer.commit`, which needs a server's 0, an object seen with the
  record's store id, or names at the servers that are as if all of the batch had been done.
* Applied twice: store ids stay with frozen records, over restarts as well. A server that knows them answers
  EALREADY; one that has forgotten finds other store ids in the objects and refuses. While an outcome is
  unknown nothing else of the volume is sent.
* Believed too easily: see outcome.py.
* Changed under way: contents of a store are an immutable container from the moment they were logged;
  servers fetch them from there while our call waits (`source`). Nothing cancels a frozen record.
* Dead servers: what a server may have died of is looked at again, goes to one server first, and from the
  third doubtful outcome on record by record; one that has taken servers with it by itself is blocked.
"""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain, islice, takewhile
from math import inf

import trio

from realmfs.cache.errors import CacheFull
from realmfs.cache.log import LogEntry, Role, State
from realmfs.realms.types import ANYUSER, Reintegrated
from realmfs.rpc2.transfer import Source
from realmfs.venus.batch import Batch, Choice, Kind, Rules, Waiting, Why, choose
from realmfs.venus.certify import Certifier
from realmfs.venus.commit import NO_BASES, Bases, Committer
from realmfs.venus.conflicts import object_of
from realmfs.venus.core import Core
from realmfs.venus.events import ChangeSent, Reintegrating, VolumeChanged
from realmfs.venus.events import Waiting as WaitingFor
from realmfs.venus.fids import Fids
from realmfs.venus.flight import (
    Contents,
    ContentsLost,
    Flight,
    full_record,
    last_uniquifier,
    sent_as,
)
from realmfs.venus.outcome import PAUSED, SERVERS, TOKENS, Judgement, Next, judge
from realmfs.venus.passing import forget_passing
from realmfs.venus.uploads import Upload, handle_store
from realmfs.venus.volume import VolumeState
from realmfs.venus.writeback import Policies, Policy
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Store, pack_log, unpack_log
from realmfs.vice.types import Fid

log = logging.getLogger(__name__)

LOOK_AHEAD = 1000  # records among which more of the kind that was sent last is looked for
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
OPEN_FILES_PAUSE = 10.0  # their close wakes the sender; their age does not
SINGLY = 3  # doubtful outcomes in a row from which on records are sent one by one
FATAL = 6  # ... and from which on a single record is kept from the servers
LOOK_COST = (
    1e-4  # seconds, ten times what one more record costs a look: by so much fruitless looks are spread
)
LONGEST_BREATH = 2.0
LINGER, LINGER_MOST = 0.05, 0.5
BASES = 3  # looks at directories that others change all the time
BEHIND = frozenset({Code.ENOENT, Code.EINCOMPATIBLE, Code.EEXIST, Code.ENOTEMPTY, Code.EINVAL})
UPLOADS = 1  # large stores of a volume brought to the servers at once
LEAST_BIG = 256 << 10


class Sender:
    """Sends one volume's log until it is empty or something is in the way."""

    def __init__(
        self, core: Core, fids: Fids, committer: Committer, volume: VolumeState, policies: Policies
    ) -> None:
        self._core = core
        self._fids = fids
        self._committer = committer
        self._certifier = Certifier(core, volume, committer)
        self._volume = volume
        self._policies = policies
        self._wake = trio.Event()
        self._pause = 0.0  # how long to wait now; 0: until woken
        self._back_off = 0.0  # the last pause because of trouble; the next one is longer
        self._backing_off = False
        self._failures = 0
        self._doubts = 0  # doubtful outcomes in a row
        self._kind: Kind | None = None  # of the last batch
        self._logged = -inf  # when the last record was logged
        self._alone = 0  # so many records are sent one by one
        self._fruitless = 0  # so many records were looked at in vain
        self._unsettled = True  # there may be frozen records
        self._uploads: dict[int, Upload] = {}
        self._nursery: trio.Nursery | None = None
        self._flight: Flight | None = None
        self.force = False  # send what waits for its age, too
        self._rests = False  # nothing more can be done for now
        self._rested = trio.lowlevel.ParkingLot()  # who waits for that

    def wake(self, *, urgent: bool = True) -> None:
        """Something changed: look again. Not urgent is a new record, which ends no back-off."""
        self._unsettled |= urgent
        if not urgent:
            self._logged = trio.current_time()
        if urgent or not self._backing_off:
            self._wake.set()

    def source(self, fid: Fid) -> Source:
        """Return the frozen contents that a server fetches back. Raises CodaError ENOENT."""
        if self._flight is None:
            raise CodaError(Code.ENOENT, f"no store of {fid} is on its way")
        return self._flight.source(fid)

    async def run(self) -> None:
        """Send whatever waits, for ever."""
        async with trio.open_nursery() as self._nursery:
            while True:
                self._wake = trio.Event()
                if await self._step():
                    self._back_off = 0.0
                    continue
                # Each new record wakes us; many that wait must not be looked at for each.
                await trio.sleep(min(self._fruitless * LOOK_COST, LONGEST_BREATH))
                if self._wake.is_set():
                    continue
                self._rests = True
                self._rested.unpark_all()
                with trio.move_on_after(self._pause or float("inf")):
                    await self._wake.wait()
                self._rests = False

    async def send_all(self) -> None:
        """Send what waits, whatever its age; returns when it is done or nothing more can go for now."""
        self.force, self._rests = True, False
        self.wake()
        while not self._rests or (self._volume.reachable and (self._uploading or self._backing_off)):
            await self._rested.park()

    async def _step(self) -> bool:
        self._backing_off = False
        try:
            return await self._cycle()
        except ContentsLost as lost:
            self._contents_lost(lost)
            return True
        except CodaError as error:
            log.info("%s: %s", self._volume.name, error)
        except OSError as error:
            if isinstance(error, CacheFull) and self._core.cache.last_resort():
                return True
            log.error("%s: the log cannot be sent: %s", self._volume.name, error)
        self._slow_down()
        return False

    def _slow_down(self, least: float = FIRST_PAUSE) -> None:
        """Wait longer each time, by chance not in step with other clients."""
        self._backing_off = True
        self._back_off = min(max(self._back_off * 2, least), max(LONGEST_PAUSE, least))
        self._pause = self._back_off * random.uniform(0.8, 1.2)

    async def _cycle(self) -> bool:
        """Send one batch; tell whether to go on at once."""
        volume, waiting = self._volume, self._core.cache.log
        head = waiting.entries(volume.key, limit=1)
        self._pause = 0.0
        self._fruitless = 0
        if not head:
            self._nothing_left()
            return False
        if volume.place is None:
            await self._core.enter(volume)
            return True
        if not self._may_send(head[0]):
            self._back_off = 0.0
            return False
        if self._unsettled:
            frozen = waiting.frozen(volume.key)
            if frozen:
                return await self._settle(frozen)
            self._unsettled = False
        await self._linger()
        self._tend_uploads()
        choice, entries = self._choose(head[0])
        self._start_uploads(choice.uploads, entries)
        if choice.batch is None:
            self._nothing_now(choice.why, entries)
            return False
        self._say("")
        chosen = set(choice.batch.sequences)
        return await self._send(choice.batch, [entry for entry in entries if entry.sequence in chosen])

    async def _linger(self) -> None:
        """Let records come together while they follow one another: many cost little more than one."""
        limit = trio.current_time() + LINGER_MOST
        while not self.force and self._core.cache.log.summary(self._volume.key).records < (
            self._core.settings.batch_records
        ):
            now = trio.current_time()
            if now - self._logged > LINGER or now > limit:
                return
            await trio.sleep(LINGER)

    def _nothing_left(self) -> None:
        self.force = False
        self._tend_uploads()
        self._volume.drained.unpark_all()
        self._say("")

    def _nothing_now(self, why: Why, entries: Sequence[LogEntry]) -> None:
        self._say(why.value)
        self.force = self.force and why is Why.UPLOAD
        if self._backing_off:
            return
        self._pause = OPEN_FILES_PAUSE if why is Why.OPEN else 0.0
        self._fruitless = len(entries)
        age = self._policy.age
        if why is Why.YOUNG or age:
            oldest = next((entry.time for entry in entries if self._is_young(entry)), None)
            if oldest is not None:
                wait = max(oldest + age - self._core.now(), 0.1)
                self._pause = min(self._pause or wait, wait)

    def _may_send(self, head: LogEntry) -> bool:
        """Tell whether anything may go. While it may not, each new change costs only this look."""
        volume = self._volume
        reason = ""
        if not volume.reachable:
            reason = SERVERS
        elif self._policies.paused and not self.force:
            reason = PAUSED
        elif sent_as(head) != ANYUSER and not self._core.volumes.may_send(volume, head.uid, head.identity):
            reason = TOKENS
        if reason:
            self._say(reason)
        return not reason

    def _say(self, reason: str) -> None:
        volume = self._volume
        if volume.waiting_for == reason:
            return
        volume.waiting_for = reason
        records = self._core.cache.log.summary(volume.key).records
        flags = (reason,) if reason else ()
        self._core.events.publish(
            VolumeChanged(volume.name, volume.realm, volume.state.value, records, flags)
        )
        owner = self._core.cache.log.owner(volume.key)
        if reason == TOKENS and owner is not None:
            self._core.events.publish(WaitingFor(volume.name, owner[0], reason))

    # -- choosing --------------------------------------------------------------------------------------

    def _choose(self, head: LogEntry) -> tuple[Choice, list[LogEntry]]:
        """Return what to send next, and the records that were looked at."""
        rules = self._rules()
        entries: list[LogEntry] = []
        mine = takewhile(
            partial(_same_author, head), self._core.cache.log.walk(self._volume.key, rules.records)
        )
        if self._kind is not None:  # of the same kind as the last one, if there is much of that
            choice = choose(map(self._waiting, _kept(islice(mine, LOOK_AHEAD), entries)), rules, self._kind)
            if choice.batch is not None and len(choice.batch.sequences) > rules.records // 2:
                return choice, entries
        choice = choose(map(self._waiting, chain(entries.copy(), _kept(mine, entries))), rules)
        if choice.batch is not None and (self._alone or self._doubts >= SINGLY):
            choice = replace(choice, batch=replace(choice.batch, sequences=choice.batch.sequences[:1]))
        self._kind = choice.batch.kind if choice.batch is not None else None
        return choice, entries

    @property
    def _policy(self) -> Policy:
        return self._policies.of(self._volume.key)

    @property
    def _own(self) -> bool:
        """Whether all servers are realmfs's own, which take anything."""
        return self._core.all_own(self._volume)

    def _rules(self) -> Rules:
        """Return what fits into a batch: what is back-fetched holds locks at the servers (§2.2)."""
        settings = self._core.settings
        slowest = min(
            (s.bandwidth for s in self._core.group(self._volume).servers_up if s.bandwidth), default=None
        )
        big, size = settings.big_store, settings.big_store * 4
        if slowest is not None:
            big = min(big, max(int(slowest), LEAST_BIG))
            size = max(int(slowest * self._policy.time), big)
        return Rules(self._own, settings.batch_records, settings.batch_files, big, size)

    def _waiting(self, entry: LogEntry) -> Waiting:
        store = entry.opcode == Store.OPCODE
        upload = self._uploads.get(entry.sequence)
        return Waiting(
            entry.sequence,
            entry.opcode,
            frozenset([number for number, role in entry.about if role & Role.OBJECT]),
            frozenset([number for number, role in entry.about if role & Role.PARENT]),
            frozenset() if store else _names(entry.record),
            entry.length,
            blocked=bool(entry.state & State.BLOCKED),
            held=store and self._is_open(entry),
            young=self._is_young(entry),
            uploaded=upload is not None and upload.code is Code.SUCCESS,
        )

    def _is_young(self, entry: LogEntry) -> bool:
        age = self._policy.age
        return bool(age) and not self.force and entry.time + age > self._core.now()

    def _is_open(self, entry: LogEntry) -> bool:
        """Tell whether a store waits for its file to be closed; databases keep files open for days."""
        node = self._core.nodes.in_memory(object_of(entry))
        if node is None or not node.writers or self._policy.synchronous:
            return False
        return self._core.now() - entry.time < self._core.settings.open_store_age

    # -- large stores ----------------------------------------------------------------------------------

    @property
    def _uploading(self) -> bool:
        return any(upload.code is None for upload in self._uploads.values())

    def _tend_uploads(self) -> None:
        """Take in what became of uploads: done, interrupted, refused, or not wanted any more."""
        for sequence, upload in list(self._uploads.items()):
            entry = self._core.cache.log.get(self._volume.key, sequence)
            if entry is None:
                upload.cancel()
                del self._uploads[sequence]
            elif upload.code is not None and upload.code is not Code.SUCCESS:
                del self._uploads[sequence]
                outcome = Reintegrated(upload.code, -1, (), uncertain=False)
                self._follow([entry], self._judge([entry], outcome, was_sent=False, by_handle=True), outcome)

    def _start_uploads(self, sequences: Sequence[int], entries: Sequence[LogEntry]) -> None:
        assert self._nursery is not None
        for entry in entries:
            if len(self._uploads) >= UPLOADS or self._backing_off:
                return
            if entry.sequence in sequences and entry.sequence not in self._uploads:
                upload = self._uploads[entry.sequence] = Upload(self._core, self._volume, entry)
                self._nursery.start_soon(self._upload, upload)

    async def _upload(self, upload: Upload) -> None:
        await upload.run()
        self.wake()

    # -- sending ---------------------------------------------------------------------------------------

    async def _send(self, batch: Batch, entries: list[LogEntry]) -> bool:
        core, volume = self._core, self._volume
        await core.group(volume).try_all()
        for _ in range(BASES):
            before = await self._certifier.bases(entries)
            refused = await self._foresee(entries)
            if refused is not None:
                return refused
            await self._fids.prepare(volume, entries, sent_as(entries[0]))
            bases = await self._certifier.bases(entries)
            if bases == before:
                break
        # No checkpoint up to the freeze: what was chosen is what is frozen.
        self._fids.translate(volume, entries)
        with core.cache.transaction():
            entries = core.cache.log.freeze(core.cache.log.current(entries))
        if not entries:
            return True
        return await self._fly(batch, entries, was_sent=False, bases=bases)

    async def _fly(
        self, batch: Batch, entries: list[LogEntry], *, was_sent: bool, bases: Bases = NO_BASES
    ) -> bool:
        core, volume = self._core, self._volume
        self._unsettled = True
        flight = self._flight = Flight.prepare(core, volume, batch, entries, bases)
        total = core.cache.log.summary(volume.key).records
        core.events.publish(Reintegrating(volume.name, total, total))
        try:
            outcome = await self._transmit(flight, first_alone=was_sent and not self._own)
        finally:
            self._flight = None
            flight.close()
        behind = outcome.code in BEHIND and not outcome.uncertain and await self._are_behind(flight.records)
        progress = self._conclude(flight, outcome, was_sent, behind)
        core.events.publish(Reintegrating(volume.name, core.cache.log.summary(volume.key).records, total))
        return progress

    async def _transmit(self, flight: Flight, *, first_alone: bool) -> Reintegrated:
        core, volume = self._core, self._volume
        group = core.group(volume)
        packed = pack_log(flight.records)
        if flight.batch.kind is Kind.HANDLE:
            (entry,) = flight.entries
            upload = self._uploads.pop(entry.sequence, None)
            store = upload.store if upload is not None else handle_store(core, volume, entry)
            (content,) = flight.contents.values()
            store.source = Contents(content)
            core.events.publish(ChangeSent("CloseReintHandle", f"{volume.name}, {store.fid}"))
            return await group.store_by_handle(store, packed)
        text = f"{volume.name}, ({len(flight.records)}, {len(packed)})"
        core.events.publish(ChangeSent("Reintegrate", text))
        return await group.reintegrate(packed, sent_as(flight.entries[0]), first_alone=first_alone)

    async def _foresee(self, entries: list[LogEntry], *, thorough: bool = False) -> bool | None:
        """See whether servers would refuse a batch; it is then kept from them (certify.py).

        Returns None if not; else whether to go on at once.
        """
        if self._own:
            return None
        records = [full_record(self._core, entry) for entry in entries]
        found = await self._certifier.refusal(records, sent_as(entries[0]), thorough=thorough)
        if found is None:
            return None
        index, code = found
        outcome = Reintegrated(code, index, (), uncertain=False)
        behind = code in BEHIND and await self._are_behind(records)
        verdict = self._judge(entries, outcome, was_sent=thorough and behind, by_handle=False, behind=behind)
        return self._follow(entries, verdict, outcome)

    # -- what came of it -------------------------------------------------------------------------------

    async def _are_behind(self, records: Sequence[AnyRecord]) -> bool:
        """Tell whether servers refuse records for lack of an update that only one which is down has."""
        try:
            return await self._certifier.is_ahead(records, ANYUSER)
        except CodaError as error:
            log.info("%s: %s", self._volume.name, error)
            return True  # nobody answers any more

    def _conclude(self, flight: Flight, outcome: Reintegrated, was_sent: bool, behind: bool) -> bool:
        """Take in how a batch ended; tell whether to go on at once."""
        if was_sent and outcome.known:
            known = {*outcome.update_set, *outcome.known}
            outcome = replace(outcome, update_set=tuple(sorted(known)))
        by_handle = flight.batch.kind is Kind.HANDLE
        verdict = self._judge(flight.entries, outcome, was_sent=was_sent, by_handle=by_handle, behind=behind)
        self._alone = max(0, self._alone - len(flight.entries))
        if verdict.next is Next.COMMIT:
            self._committer.commit(self._volume, flight.entries, flight.records, outcome, flight.bases)
        elif verdict.next is Next.FOUND:
            self._committer.found(self._volume, flight.entries, flight.records, outcome.known)
        else:
            return self._follow(flight.entries, verdict, outcome)
        self._failures = self._doubts = 0
        self._unsettled = False
        return True

    def _judge(
        self,
        entries: Sequence[LogEntry],
        outcome: Reintegrated,
        *,
        was_sent: bool,
        by_handle: bool,
        behind: bool = False,
    ) -> Judgement:
        return judge(
            outcome,
            was_sent=was_sent,
            last=last_uniquifier(entries),
            by_handle=by_handle,
            as_nobody=sent_as(entries[0]) == ANYUSER or not self._has_token(entries[0]),
            failures=self._failures,
            behind=behind,
        )

    def _has_token(self, entry: LogEntry) -> bool:
        return self._core.volumes.has_token(self._volume, entry.uid)

    def _follow(self, entries: Sequence[LogEntry], verdict: Judgement, outcome: Reintegrated) -> bool:
        """Do what a batch that was not executed calls for; tell whether to go on at once."""
        if verdict.next is Next.REFUSED:
            self._refused(entries, outcome.code, outcome.index)
            return True
        self._failures += 1
        if verdict.next is Next.UNKNOWN:
            self._doubts += outcome.uncertain  # servers that are only busy are no reason to give a record up
            self._slow_down()
            return False
        self._thaw(entries, outcome.code)
        if verdict.why == TOKENS and self._has_token(entries[0]):
            return True  # from now on they go as the user's own
        self._say(verdict.why)
        self._slow_down(verdict.pause or FIRST_PAUSE)
        return False

    def _thaw(self, entries: Sequence[LogEntry], code: Code) -> None:
        core = self._core
        with core.cache.transaction():
            still = core.cache.log.current(entries)
            core.nodes.cleaned(core.cache.log.thaw(still, reason=int(code)))
            forget_passing(core, still)

    def _refused(self, entries: Sequence[LogEntry], code: Code, index: int) -> None:
        """Mark the record that servers refuse: it waits for a person, and all that depends on it."""
        core = self._core
        self._failures = 0
        self._thaw(entries, code)
        if index < 0 and len(entries) > 1:
            self._alone = len(entries)  # the servers blame none of them, so each must answer for itself
            return
        guilty = entries[index if 0 <= index < len(entries) else 0]
        current = core.cache.log.get(self._volume.key, guilty.sequence)
        if current is None:
            return
        with core.cache.transaction():
            core.cache.log.set_reason(current, int(code), blocked=True)
        core.refused(core.nodes.by_number(object_of(current)), code)

    def _contents_lost(self, lost: ContentsLost) -> None:
        """A store can never be sent. Nothing of its batch is at the servers, or it would have been found."""
        log.error("%s: contents that were to be sent are lost: %s", self._volume.name, lost)
        frozen = self._core.cache.log.frozen(self._volume.key)
        self._thaw(frozen, Code.EIO)
        self._refused([lost.entry], Code.EIO, 0)

    # -- doubt -----------------------------------------------------------------------------------------

    async def _settle(self, frozen: list[LogEntry]) -> bool:
        """Find out whether records whose outcome is unknown have been executed; if not, send them again."""
        core, volume = self._core, self._volume
        group = core.group(volume)
        await group.try_all()
        records = [full_record(core, entry) for entry in frozen]
        slots = await self._committer.executed_at(volume, frozen, records)
        if slots:
            self._committer.found(volume, frozen, records, slots)
            self._doubts = 0
            self._unsettled = False
            return True
        if await self._certifier.is_done(records, sent_as(frozen[0])):
            self._committer.found(volume, frozen, records, ())
            self._doubts = 0
            self._unsettled = False
            return True
        refused = await self._foresee(frozen, thorough=True)
        if refused is not None:
            return refused
        if self._doubts >= SINGLY and len(group.slots_up) == volume.replicas:  # nobody has executed it
            if len(frozen) > 1:
                self._thaw(frozen, Code.ERETRY)
                return True
            if self._doubts >= FATAL:
                self._refused(frozen, Code.EIO, 0)
                return True
        (first, *others) = frozen
        kind = Kind.HANDLE if first.handle is not None and not others else Kind.MIXED
        batch = Batch(kind, tuple(entry.sequence for entry in frozen))
        return await self._fly(batch, frozen, was_sent=True)


@lru_cache(maxsize=2 * LOOK_AHEAD)
def _names(packed: bytes) -> frozenset[object]:
    """Return the names that a record gives or takes, each with its directory."""
    (record,) = unpack_log(packed)
    pairs = (("parent", "name"), ("old_parent", "old_name"), ("new_parent", "new_name"))
    return frozenset(
        (getattr(record, parent), getattr(record, name)) for parent, name in pairs if hasattr(record, name)
    )


def _kept(entries: Iterable[LogEntry], seen: list[LogEntry]) -> Iterator[LogEntry]:
    """Pass entries on, and keep them."""
    for entry in entries:
        seen.append(entry)
        yield entry


def _same_author(first: LogEntry, other: LogEntry) -> bool:
    """Tell whether two records may go in one call: it is made as one user."""
    author = first.uid, first.identity, sent_as(first)
    return author == (other.uid, other.identity, sent_as(other))
