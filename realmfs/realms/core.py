"""What all calls to a volume's servers have in common.

Who is asked, how answers count, what is done about trouble.

A request goes round until it is settled:

    ask all servers up ─► success ─► done
        ▲                 EASYRESOLVE ─► done; resolve in the background
        │                 ERETRY, EWOULDBLOCK ─► pause, a little longer each time ─┐
        │                 ESYNRESOLVE ─► COP2 of ours under way? deliver it.       │
        │                                else Resolve, at most 5 times             │
        └──────────────────────────────────────────────────────────────────────────┘
                          anything else, or out of patience ─► CodaError

Our own updates, SetACL and Resolve of a volume never run beside each other (`updating`): a Resolve that
meets a half executed update finds replicas without a common history and declares a conflict (vice.md §5.2).
"""

import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import inf
from typing import TypeVar

import trio

from realmfs.realms.collate import collate_read
from realmfs.realms.context import Context
from realmfs.realms.cop2 import LULL, SHARED_SECONDS, Cop2Queue, KeptLogs, SecondPhase
from realmfs.realms.round import Answers, Call, Patience, ask
from realmfs.realms.server import Server, State
from realmfs.realms.types import ANYUSER
from realmfs.realms.volume import Replica
from realmfs.vice.calls import Cop2, Resolve
from realmfs.vice.cop2 import CALL_ENTRIES, PIGGY_ENTRIES, pack_entries
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, VersionFlags, VersionVector

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_RESOLVES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
PRIMARY_KEPT = 15.0
"""Seconds before the choice of the primary is looked at again."""
PRIMARY_MARGIN = 1.25
"""A server so much slower than the fastest is as good: clients then spread over the group."""
TYPICAL_SIZE = 65536
RESOLVE_PATIENCE = 60.0
RESOLVE_INTERVAL = 10.0
"""Seconds between background resolutions of one object: some differences stay, however often one looks."""
MAX_RESOLVED = 1000
OTHERS_PAUSE = 0.2
"""Seconds before servers among which another client's update goes round are asked again."""
MAX_OTHERS = 20
"""How often that is done for one question, if one update follows the other."""
BUSY_PAUSE = 0.5
"""Seconds before a resolution is asked for again that was refused because the volume is locked."""
JUST_RETURNED = 120.0
AT_REST = 1.0
"""Seconds for which replicas that wait for a second phase must stay as they are before they are resolved."""


class Core:
    """The group of one volume: its replicas, its primary, its queue of second phases."""

    def __init__(
        self, context: Context, volume_id: int, replicated: bool, replicas: Sequence[Replica]
    ) -> None:
        self.context = context
        self.volume_id = volume_id
        self.replicated = replicated
        self.inspecting = False
        """Whether this is a single replica, as it is: conflicts do not hinder, promises do not help."""
        self.replicas = tuple(replicas)
        self.servers: dict[int, Server] = {replica.slot: replica.server for replica in replicas}
        self.cop2 = Cop2Queue()
        self._kept = KeptLogs()
        self.updating = trio.Lock()
        self.contended = 0
        """How many updates in a row met a volume that somebody else had locked."""
        self.parents: dict[Fid, Fid] = {}
        """Of objects about to be resolved: what to resolve if the object itself cannot be."""
        self.resolving = 0
        """How many resolutions are under way, or wait for others."""
        self._resolves = False
        """Whether `updating` is held by a resolution."""
        self._resolved: dict[Fid, float] = {}
        """When objects were last resolved in the background."""
        self._pictures: dict[Fid, tuple[tuple[VersionVector, ...], float]] = {}
        """The versions of replicas that differed when we last looked, and since when."""
        self._unequal: dict[Fid, None] = {}
        """Objects to be resolved in the background, the oldest first."""
        self._flushing = trio.Lock()
        self._primary = -1
        self._primary_until = 0.0

    # who is asked

    def members(self) -> list[Replica]:
        """Return the replicas on servers not known to be down, in slot order.

        Raises CodaError(ETIMEDOUT) if none.
        """
        members = [replica for replica in self.replicas if replica.server.available]
        if not members:
            raise CodaError(Code.ETIMEDOUT)
        return members

    def patience(self, seconds: float | None) -> Patience:
        """Return the bound of one public call."""
        return Patience(self.context.settings.patience if seconds is None else seconds)

    def primary_of(self, slots: Collection[int]) -> int:
        """Return the slot of the server, among these, that data should come from.

        A fast one, kept for a while.
        """
        now = trio.current_time()
        if self._primary in slots and now < self._primary_until:
            return self._primary
        self.prefer(self.fastest(slots))
        return self._primary

    def believed(self, slots: Collection[int]) -> int:
        """Return the slot, among those that have answered, whose answer is taken. It binds nobody later.

        The primary would else be chosen among the one server that was asked for a piece, again and again.
        """
        return self._primary if self._primary in slots else self.fastest(slots)

    def fastest(self, slots: Collection[int]) -> int:
        """Return the slot of the server, among these, that has lately answered fastest, or about as fast."""
        times = {slot: self._expected_time(slot) for slot in slots}
        best = min(times.values())
        return random.choice([s for s, time in times.items() if time <= best * PRIMARY_MARGIN])

    def prefer(self, slot: int) -> None:
        """Take data from a server for a while, if possible."""
        self._primary = slot
        self._primary_until = trio.current_time() + PRIMARY_KEPT

    def _expected_time(self, slot: int) -> float:
        server = self.servers[slot]
        if server.state is not State.UP:
            return 10.0
        round_trip, bandwidth = server.round_trip, server.bandwidth
        return max(round_trip or 0.0, server.usual or 0.0) + (TYPICAL_SIZE / bandwidth if bandwidth else 0.0)

    async def ask(
        self, call: Call, user: int, patience: Patience, replicas: Sequence[Replica] | None = None
    ) -> Answers:
        """Make a call at all members, or at these replicas, in parallel."""
        members = self.members() if replicas is None else replicas
        return await ask(self.context, members, user, call, patience)

    # how answers count

    def collate(self, answers: Answers, patience: Patience) -> Code:
        """Collate the answers to a call that changes nothing; servers found dead do not count.

        Raises CodaError(EWOULDBLOCK) if a server that is up has not answered within the patience: its
        replica may be the newest, so it cannot be left out.
        """
        codes = []
        for slot, answer in answers.items():
            if answer.heard or (answer.code is Code.ERETRY and self.servers[slot].available):
                codes.append(answer.code)
            elif answer.code is Code.ETIMEDOUT and self.servers[slot].available:
                if patience.left <= 0:
                    raise CodaError(Code.EWOULDBLOCK, f"{self.servers[slot]} is busy")
                return Code.ERETRY
        if not codes:
            lost = {answer.code for answer in answers.values()}
            return Code.EIO if Code.EIO in lost else Code.ETIMEDOUT
        return collate_read(codes)

    async def settle(
        self, fid: Fid | None, attempt: Callable[[], Awaitable[T | Code]], patience: Patience
    ) -> T:
        """Repeat an attempt until it yields something better than a code; see the drawing above."""
        pause, resolves, waits = 0.0, 0, 0
        while True:
            outcome = await attempt()
            if not isinstance(outcome, Code):
                return outcome
            if outcome is Code.ESYNRESOLVE and fid is not None and resolves < MAX_RESOLVES and patience.left:
                resolved = await self.make_equal(fid, patience, at_once=waits >= MAX_OTHERS)
                resolves += resolved
                waits += not resolved
                if waits > MAX_RESOLVES:
                    await trio.sleep(FIRST_PAUSE)
            elif outcome in (Code.ERETRY, Code.EWOULDBLOCK) and patience.left > pause:
                await trio.sleep(pause)
                pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            elif outcome in (Code.ERETRY, Code.ESYNRESOLVE):
                raise CodaError(Code.EWOULDBLOCK)
            else:
                raise CodaError(outcome)

    # second phases

    @property
    def all_ours(self) -> bool:
        """Whether every server of the group is known to run realmfs, too; False until all were met."""
        return all(server.ours for server in self.servers.values())

    def is_shared(self, directory: Fid) -> bool:
        """Whether others change a directory lately, at servers to which that matters (cop2.py)."""
        alone = not self.replicated or len(self.servers) < 2 or self.all_ours
        return not alone and self.context.since_change(directory) < SHARED_SECONDS

    def piggy(self) -> tuple[bytes, list[SecondPhase]]:
        """Return what may ride on the next call to the whole group, and whom to tell of its success.

        Nothing does where each server must be told something else.
        """
        if self._apart:
            return b"", []
        batch = self.cop2.batch(PIGGY_ENTRIES)
        return pack_entries(second.entry for second in batch), batch

    async def before_update(self, patience: Patience) -> tuple[bytes, list[SecondPhase]]:
        """Deliver what the next update, on which the rest rides, must not overtake (cop2.py)."""
        await self.flush_cop2(patience, all_but=0 if self._apart else PIGGY_ENTRIES)
        return self.piggy()

    @property
    def _apart(self) -> bool:
        """Whether something that waits may not ride on other calls, which are the same for all servers."""
        return any(map(self._leaves_logs, self.cop2.batch(PIGGY_ENTRIES)))

    def _leaves_logs(self, second: SecondPhase) -> bool:
        """Whether a second phase must leave the logs of its directories alone."""
        changed = self.context.since_change
        return not self.all_ours and any(self._kept.keeps(one, changed(one)) for one in second.directories)

    def _cop2_call(self, batch: Sequence[SecondPhase]) -> Call:
        """Return the call that delivers some: to all the same, or to each its own."""
        apart = [self._leaves_logs(second) for second in batch]
        for second, kept in zip(batch, apart, strict=True):
            for directory in second.directories:
                self._kept.note(directory, kept)

        def body(slot: int | None) -> bytes:
            strings = [
                pack_entries([second.entry], keep=slot if kept else None)
                for second, kept in zip(batch, apart, strict=True)
            ]
            return Cop2(entries=b"".join(strings)).pack()

        own = {slot: body(slot) for slot in self.servers} if any(apart) else {}
        return Call(Cop2.OPCODE, body(None), own)

    def deliver_cop2(self) -> None:
        """Have the queue delivered in the background, if somebody is there to get it."""
        if len(self.cop2) and any(replica.server.available for replica in self.replicas):
            self.context.background((self, "cop2"), self._deliver_cop2)

    async def _deliver_cop2(self) -> None:
        if len(self.cop2) <= PIGGY_ENTRIES and not self._apart:
            await trio.sleep(LULL)
        async with self.updating:  # not beside an update: some servers would have executed that already
            await self.flush_cop2()

    async def flush_cop2(self, patience: Patience | None = None, *, all_but: int = 0) -> None:
        """Deliver the queue, but for so many, to the whole group. What cannot be delivered stays in it."""
        if len(self.cop2) <= all_but:
            return
        patience = patience or self.patience(None)
        async with self._flushing:
            while len(self.cop2) > all_but:
                if not any(replica.server.available for replica in self.replicas):
                    return
                batch = self.cop2.batch(CALL_ENTRIES)
                answers = await self.ask(self._cop2_call(batch), ANYUSER, patience)
                codes = [answer.code for answer in answers.values()]
                if collate_read(codes) not in (Code.SUCCESS, Code.EASYRESOLVE):
                    log.info("volume %x: COP2 not delivered: %s", self.volume_id, [c.name for c in codes])
                    return
                self.cop2.delivered(batch)

    # resolution

    @property
    def sends(self) -> bool:
        """Whether an update of ours is under way: that explains why replicas differ."""
        return self.updating.locked() and not self._resolves

    def resolve_later(self, fid: Fid) -> None:
        """Have the replicas of an object made equal in the background, unless that was just done.

        One after another: servers lock the volume for each, and who cannot go on without a resolution, or
        sends changes, shall be next and not the last of a thousand. What is refused will be asked for again.
        """
        now = trio.current_time()
        lately = now - self._resolved.get(fid, -inf) < RESOLVE_INTERVAL
        if not self.replicated or lately or len(self._unequal) >= MAX_RESOLVED:
            return
        self._unequal[fid] = None
        self.context.background((self, "resolve"), self._resolve_unequal)

    async def _resolve_unequal(self) -> None:
        while self._unequal:
            fid = next(iter(self._unequal))
            try:
                for _ in range(MAX_OTHERS):
                    if not self._others_change(fid):
                        break
                    await trio.sleep(OTHERS_PAUSE)
                await self.resolve(fid, self.patience(RESOLVE_PATIENCE))
            except CodaError as error:
                log.info("%s: resolution in the background: %s", fid, error)
                if error.code is Code.ETIMEDOUT:
                    self._unequal.clear()  # nobody is there to do it
            finally:
                self._unequal.pop(fid, None)
                if len(self._resolved) >= MAX_RESOLVED:
                    del self._resolved[next(iter(self._resolved))]
                self._resolved[fid] = trio.current_time()

    @property
    def ours_under_way(self) -> bool:
        """Whether an update of ours is being made, or its second phase not delivered."""
        return self.sends or len(self.cop2) > 0

    async def make_equal(self, fid: Fid, patience: Patience, *, at_once: bool = False) -> bool:
        """Do what may make the replicas of an object equal, so that the group can be asked again.

        Tell whether that was a resolution, of which only so many help.

        If an update of ours was under way, or its second phase not delivered, that explains the difference:
        then nothing is resolved yet. So does an update of another client's that has just broken our promise;
        it may have reached some servers only. And so may a replica that is marked for a second phase: unless
        nothing moves any more, that is awaited, for one that comes during a resolution makes a conflict of
        it (cop2.py). But not `at_once`: that was waited for long enough. Outcomes of Resolve other than that
        show in the next answers.
        """
        if not self.replicated:
            return True
        ours = self.ours_under_way
        if not (ours or at_once) and (self._others_change(fid) or self._moves(fid)):
            await trio.sleep(OTHERS_PAUSE)
            return False
        try:
            if ours:
                with patience.scope():
                    async with self.updating:
                        pass
                await self.flush_cop2(patience)
            else:
                await self.resolve(fid, patience)
        except CodaError as error:
            log.info("%s: resolution: %s", fid, error)
            if error.code is Code.EWOULDBLOCK:  # somebody else is at it, or sends changes
                await trio.sleep(min(BUSY_PAUSE, patience.left))
                return False
        return not ours

    def differ(self, fid: Fid, versions: Sequence[VersionVector]) -> None:
        """Note the versions of replicas that differ, and since when they have been just these."""
        picture = tuple(versions)
        known = self._pictures.pop(fid, None)
        if known is None or known[0] != picture:
            known = picture, trio.current_time()
        self._pictures[fid] = known
        if len(self._pictures) > MAX_RESOLVED:
            del self._pictures[next(iter(self._pictures))]

    def _moves(self, fid: Fid) -> bool:
        """Whether replicas that differ wait for a second phase, and may still get it."""
        versions, since = self._pictures.get(fid, ((), -inf))
        waits = any(vv.flags & VersionFlags.COP2PENDING for vv in versions)
        return waits and trio.current_time() - since < AT_REST

    def _others_change(self, fid: Fid) -> bool:
        changed = {fid, self.parents.get(fid, fid)}
        return any(map(self.context.is_being_changed, changed))

    async def resolve(self, fid: Fid, patience: Patience) -> None:
        """Let one server make the replicas equal (vice.md §5.3). Raises CodaError: EINCONS is a conflict.

        The server of the lowest slot is asked, so that clients who see the same trouble ask the same one;
        but if some have just returned, the last of these. One that was there all the time still has its
        connections to those which were restarted, and notices only by waiting that nobody is at the other
        end (15 s for a codasrv). An object missing where it should be is resolved by its directory.
        """
        code = Code.ETIMEDOUT
        self._resolving(1)
        try:
            with patience.scope():
                async with self.updating:
                    self._resolves = True
                    try:
                        code = await self._resolve_or_parent(fid, patience)
                    finally:
                        self._resolves = False
        finally:
            self._resolving(-1)
        if code is not Code.SUCCESS:
            raise CodaError(code, f"resolution of {fid}")

    def _resolving(self, more: int) -> None:
        self.resolving += more
        self.context.listener.resolution(self.replicas[0].server, self.volume_id)

    async def _resolve_or_parent(self, fid: Fid, patience: Patience) -> Code:
        await self.flush_cop2(patience)
        code = await self._resolve_once(fid, patience)
        parent = self.parents.pop(fid, None)
        if code is Code.ENOENT and parent is not None:
            code = await self._resolve_once(parent, patience)
        return code

    async def _resolve_once(self, fid: Fid, patience: Patience) -> Code:
        call = Call(Resolve.OPCODE, Resolve(fid=fid).pack())
        code = Code.ETIMEDOUT
        fresh = trio.current_time() - JUST_RETURNED
        for replica in sorted(self.members(), key=lambda replica: -max(replica.server.returned, fresh)):
            answer = (await self.ask(call, ANYUSER, patience, [replica]))[replica.slot]
            code = answer.code
            if answer.heard:
                log.info("%s: %s resolved it: %s", fid, replica.server, code.name)
                break
        return code
