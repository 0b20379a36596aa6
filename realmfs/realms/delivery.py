"""One piece of data brought by whichever server of a group is quick (the reader must not notice a dead one).

    a server is asked ──► DATA ──────────────────────────► the piece is here
         │ neither DATA     │ nothing more for MID_FILE
         │ nor BUSY within  └──────────────────────────► given up: the caller begins the piece anew elsewhere
         │ 2 x the usual
         └─► a rival is asked for the same ─► whose DATA comes first goes on alone; the other one is let go

Bytes reach the sink once and in order: only the *owner* writes, who is whoever wrote first. A server that
stalls in mid-piece is not replaced there but given up, and the piece begins anew at its own beginning: of a
first piece nobody knows which version it was, and odd offsets have not proved themselves at real servers.

BUSY says that the server has the request and is at work: a second one would only double the load, so there
is no rival then. A server gives help to one stalled transfer at a time.

Who was let go with little to come is drained, so that its connection can be used again; else the connection
is closed, which is the only way to stop a transfer, and a new one made in the background.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf

import trio

from realmfs.realms.core import Core
from realmfs.realms.links import Link
from realmfs.realms.round import Answers, Call, Patience, ask
from realmfs.realms.server import Answer, Server
from realmfs.rpc2.transfer import Sink
from realmfs.vice.errors import CodaError, Code

log = logging.getLogger(__name__)

SOONEST = 0.05
"""Seconds after which a rival is asked at the earliest."""
MID_FILE = 0.5
"""Seconds without DATA after which a transfer that had begun has stalled."""
UNSENT = 0.5
"""Seconds that may pass until a request is on its way: a connection may have to be made first."""
LITTLE = 65536
"""Bytes to come that are rather thrown away than their connection."""
DRAIN = 1.0


@dataclass(slots=True, eq=False)
class Runner:
    """One server's part in a delivery."""

    server: Server
    slot: int
    start: int
    began: float
    size: int = 0
    last: float = -inf
    """When DATA last came."""
    link: Link | None = None
    answer: Answer | None = None
    lost: bool = False
    """Somebody else goes on; what still comes is thrown away."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def stalls_at(self) -> float:
        """When it must count as stalled, if nothing comes until then."""
        if self.last > -inf:
            return self.last + max(MID_FILE, 4 * (self.server.round_trip or 0.0))
        if self.link is None:
            return self.began + UNSENT
        if self.link.told_busy:
            return inf
        return self.link.started + max(2 * (self.server.usual or 0.0), SOONEST)


@dataclass(slots=True)
class Delivery:
    """A piece from `at` to `end` (None: nobody knows) into one sink; `at` moves along.

    `body(slot, offset)` is the request to a server from an offset on. `rivals()` are the slots that may help.
    """

    core: Core
    user: int
    patience: Patience
    opcode: int
    body: Callable[[int, int], bytes]
    rivals: Callable[[], list[int]]
    sink: Sink
    at: int
    end: int | None
    limit: int
    """Behind which no byte may come."""
    runners: list[Runner] = field(default_factory=list)
    owner: Runner | None = None
    refusal: OSError | None = None
    _changed: trio.Event = field(default_factory=trio.Event)

    async def run(self, first: int) -> Runner:
        """Bring the piece, first of all from one slot; return whose answer counts, if it has one.

        The piece may have failed: see the answer, and `at`.
        """
        self._begin(first)
        try:
            while (winner := self._decided()) is None:
                with trio.move_on_at(self._alarm()) as alarm:
                    await self._changed.wait()
                if alarm.cancelled_caught and not self._help():
                    return self.owner or self.runners[-1]  # whose bytes they are, not who was asked last
                self._changed = trio.Event()
            return winner
        finally:
            for runner in self.runners:
                self._let_go(runner)

    @property
    def answers(self) -> Answers:
        """What servers said, by slot."""
        return {runner.slot: runner.answer for runner in self.runners if runner.answer is not None}

    def check(self) -> None:
        """Raise as CodaError what our own disk refused: no other server can help that."""
        if self.refusal is not None:
            raise CodaError.from_oserror(self.refusal)

    # one server's part

    def _begin(self, slot: int) -> None:
        nursery = self.core.context.nursery
        if nursery is None:
            raise CodaError(Code.ETIMEDOUT, "the realms do not run")
        runner = Runner(self.core.servers[slot], slot, self.at, trio.current_time())
        runner.server.helps += bool(self.runners)
        self.runners.append(runner)
        nursery.start_soon(self._bring, runner)

    async def _bring(self, runner: Runner) -> None:
        def sent(link: Link) -> None:
            runner.link = link
            self._changed.set()

        replica = next(replica for replica in self.core.replicas if replica.slot == runner.slot)
        body = self.body(runner.slot, runner.start)
        sinks = {runner.slot: _Tap(self, runner)}
        call = Call(self.opcode, body, sinks=sinks, began={runner.slot: sent})
        try:
            with runner.scope:
                answers = await ask(self.core.context, [replica], self.user, call, self.patience)
                runner.answer = answers[runner.slot]
        finally:
            runner.server.helps -= runner is not self.runners[0]
            self._changed.set()

    def arrived(self, runner: Runner, data: bytes) -> None:
        """Take bytes of one server's. What is raised fails its transfer."""
        offset = runner.start + runner.size
        runner.size += len(data)
        if offset + len(data) > self.limit:
            raise ValueError(f"more than {self.limit - runner.start} bytes arrive")
        now = trio.current_time()
        if runner.last == -inf and runner.link is not None:
            runner.server.answered_in(now - runner.link.started)
        runner.last = now
        if runner.lost or offset != self.at:
            return
        if runner is not self.owner:
            self._own(runner)
        try:
            self.sink.write(data)
        except OSError as error:
            self.refusal = error
            raise
        self.at += len(data)
        self.patience.progress()

    def _own(self, runner: Runner) -> None:
        self.owner = runner
        for other in self.runners:
            if other is not runner:
                log.info("%s: %s goes on from %d", other.server, runner.server, self.at)
                if other.link is not None:
                    other.server.answered_in(trio.current_time() - max(other.last, other.link.started))
                self._let_go(other)

    def _let_go(self, runner: Runner) -> None:
        if runner.answer is not None or runner.lost:
            return
        runner.lost = True
        to_come = (self.limit if self.end is None else self.end) - runner.start - runner.size
        if to_come <= LITTLE and self.owner is not runner and not _is_quiet(runner.server):
            runner.scope.deadline = trio.current_time() + DRAIN
            return
        runner.scope.cancel()
        if self.owner is not runner:
            rebind = partial(runner.server.rebind, self.user)
            self.core.context.background(("rebind", runner.server, self.user), rebind)

    # what comes of it

    def _decided(self) -> Runner | None:
        """Return whose answer ends the delivery, if it is there: a success, or the best of failures."""
        ended = [runner for runner in self.runners if runner.answer is not None]
        for runner in ended:
            whole = runner.start + runner.size == self.at and not runner.lost
            if whole and runner.answer is not None and runner.answer.code is Code.SUCCESS:
                return runner
        if self._running:
            return None
        return max(ended, key=lambda r: (r is self.owner, bool(r.answer and r.answer.heard)))

    def _alarm(self) -> float:
        if not self._others():
            return inf
        when = max((runner.stalls_at for runner in self._running), default=inf)
        return max(when, trio.current_time() + SOONEST) if not self._candidates() else when

    @property
    def _running(self) -> list[Runner]:
        return [runner for runner in self.runners if not runner.lost and runner.answer is None]

    def _others(self) -> list[int]:
        used = {runner.slot for runner in self.runners}
        return [slot for slot in self.rivals() if slot not in used]

    def _candidates(self) -> list[int]:
        return [slot for slot in self._others() if not self.core.servers[slot].helps]

    def _help(self) -> bool:
        """Ask a rival, if the last server asked has stalled.

        False: a part has come already, or all but the reply.
        """
        if not self._running:
            return True  # the last one ended just when the alarm went off: what it brought decides
        stalled = max(self._running, key=lambda runner: runner.stalls_at)
        if stalled.stalls_at > trio.current_time():
            return True
        if _is_quiet(stalled.server):
            self.core.context.background(("probe", stalled.server), stalled.server.reach)
        if self.owner is not None or self.at == self.end:
            return False
        candidates = self._candidates()
        if candidates:
            slot = self.core.fastest(candidates)
            log.info("%s is slow: %s is asked from %d on", stalled.server, self.core.servers[slot], self.at)
            self._begin(slot)
        return True


def _is_quiet(server: Server) -> bool:
    """Tell whether nothing has been heard of a server for a while."""
    heard = server.last_heard
    return heard is None or trio.current_time() - heard >= MID_FILE


@dataclass(slots=True)
class _Tap:
    """What one server writes into."""

    delivery: Delivery
    runner: Runner

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.delivery.arrived(self.runner, data)
