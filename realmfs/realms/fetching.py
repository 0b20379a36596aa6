"""Fetching contents from a group.

Newest version only, from one server, going on at another (vice.md §5.2, §6.3).

The first piece is asked of *all* members at once. One of them, the primary, sends data; the others are told
that somebody else is chosen and answer with status and promise. So a cold file costs one round, and still
rests on the versions of all servers. If the primary turns out not to have the newest version, what it sent
is void and the piece is fetched again from one that has.

Large files come in pieces. From the second on only the primary is asked: with a non-zero offset a server
first compares the version (EAGAIN if it differs), so each piece is known to be of the one version. That is
also why, when the primary dies, another server of equal version can go on from the beginning of the piece.
What is done about a server that is slow to begin, or stalls, stands in `delivery`.

Counts obey vice.md §5.2: whole objects from 0 with count "to the end", pieces with their exact size, never
a piece beyond the end, never of directories and symlinks.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import trio

from realmfs.realms.core import FIRST_PAUSE, Core
from realmfs.realms.delivery import Delivery
from realmfs.realms.reading import agree, get_attr, parse
from realmfs.realms.round import Answers, Call, Patience
from realmfs.realms.server import State
from realmfs.realms.types import Attributes, SinkAt
from realmfs.vice.calls import WHOLE, Fetch, FetchPartial
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Order, VersionVector

log = logging.getLogger(__name__)

PIECE = 4 << 20
FIRST = 256 << 10
"""The first piece: readers must not have it before the versions of all servers are known."""
SOMEBODY_ELSE = 0xFFFFFFFF
"""As PrimaryHost: an address no server has, so the server sends status only. (0 = send the data.)"""
MAX_LENGTH = 1 << 32
COMPLETIONS = 3
"""How often those are asked again who have not said which version they have."""


class VersionChangedError(CodaError):
    """The object has another version than the one asked for; `attributes` are its present ones."""

    def __init__(self, attributes: Attributes) -> None:
        super().__init__(Code.EAGAIN, "the object has changed on the servers")
        self.attributes = attributes


@dataclass(slots=True)
class Transfer:
    """One fetch. `vv` and `length`: the version that the caller knows; None: whatever the group has."""

    core: Core
    fid: Fid
    user: int
    sink_at: SinkAt
    patience: Patience
    vv: VersionVector | None
    length: int | None
    dominant: tuple[int, ...] = ()
    """The slots that have the version being fetched, once that is known."""
    primary: int | None = None
    failed: set[int] = field(default_factory=set)
    """Slots whose transfers failed: not chosen again here."""

    async def run(self, offset: int, count: int | None, ask_all: bool) -> Attributes:
        """Fetch `count` bytes (None: to the end) from `offset`. See `Group.fetch`."""
        if self.vv is None:
            self.length = None
        if self.length is None and (offset or count is not None):
            self.vv, self.length = await self._version()
        end = self.length
        if end is not None:
            end = end if count is None else min(offset + count, end)
            if offset >= end:
                attributes = await get_attr(self.core, self.fid, self.user, self.patience)
                self._check(attributes)
                return attributes
        first_end = end
        if end is not None and not self.fid.is_directory and self._partial():
            first_end = min(end, offset + (PIECE if offset else min(FIRST, PIECE)))
        whole = offset == 0 and first_end == self.length
        attributes = await self.core.settle(
            self.fid, lambda: self._first(offset, None if whole else first_end, ask_all), self.patience
        )
        self.vv = attributes.status.vv
        at = first_end
        while end is not None and at is not None and at < end:
            at = await self._next(at, min(end, at + PIECE))
        return attributes

    async def _version(self) -> tuple[VersionVector, int]:
        attributes = await get_attr(self.core, self.fid, self.user, self.patience)
        self._check(attributes)
        return attributes.status.vv, attributes.status.length

    def _check(self, attributes: Attributes) -> None:
        if self.vv is None:
            return
        new = attributes.status.vv
        if new.compare(self.vv, ignore_inconsistent=self.core.inspecting) is not Order.EQUAL:
            raise VersionChangedError(attributes)

    def _partial(self) -> bool:
        return all(server.fetches_partially is not False for server in self.core.servers.values())

    def _request(self, offset: int, end: int | None, primary_host: int, piggy: bytes = b"") -> bytes:
        vv = self.vv or VersionVector()
        if not self._partial():
            return Fetch(
                fid=self.fid,
                vv=vv,
                inconsistent_ok=self.core.inspecting,
                primary_host=primary_host,
                offset=offset,
                piggy_cop2=piggy,
            ).pack()
        count = WHOLE if end is None else end - offset
        return FetchPartial(
            fid=self.fid,
            vv=vv,
            inconsistent_ok=self.core.inspecting,
            primary_host=primary_host,
            offset=offset,
            count=count,
            piggy_cop2=piggy,
        ).pack()

    def _delivery(
        self, at: int, end: int | None, body: Callable[[int, int], bytes], group: Sequence[int]
    ) -> Delivery:
        """Return how a piece is brought by one of these slots, and the others if it stalls."""

        def rivals() -> list[int]:
            servers = self.core.servers
            return [slot for slot in group if slot not in self.failed and servers[slot].state is State.UP]

        return Delivery(
            self.core,
            self.user,
            self.patience,
            opcode=FetchPartial.OPCODE if self._partial() else Fetch.OPCODE,
            body=body,
            rivals=rivals,
            sink=self.sink_at(at),
            at=at,
            end=self.length if end is None else end,
            limit=MAX_LENGTH if end is None else end,
        )

    def _fails(self, slot: int, reason: str) -> None:
        log.info("%s: %s fails: %s", self.fid, self.core.servers[slot], reason)
        self.failed.add(slot)

    def _moved_to(self, slot: int) -> None:
        """Go on at the server that was quicker than the one chosen."""
        if slot != self.primary:
            self.primary = slot
            self.core.prefer(slot)

    def _choose(self, slots: Collection[int]) -> int:
        """Return the slot to take data from, the same as before if possible.

        Raises CodaError if none is left.
        """
        left = [slot for slot in slots if slot not in self.failed and self.core.servers[slot].available]
        if not left:
            raise CodaError(
                Code.EIO if any(self.core.servers[slot].available for slot in slots) else Code.ETIMEDOUT
            )
        if self.primary not in left:
            self.primary = self.core.primary_of(left)
        return self.primary

    # the first piece: from the primary, with the status of all others

    async def _first(self, offset: int, end: int | None, ask_all: bool) -> Attributes | Code:
        core = self.core
        members = core.members()
        primary = self._choose([replica.slot for replica in members])
        others = [replica for replica in members if replica.slot != primary] if ask_all else []
        if not ask_all:
            await core.flush_cop2(self.patience)
        piggy, batch = core.piggy() if ask_all else (b"", [])
        delivery = self._delivery(
            offset,
            end,
            lambda _, at: self._request(at, end if at == offset else end or self.length, 0, piggy),
            [replica.slot for replica in members],
        )
        answers: Answers = {}

        async def ask_others() -> None:
            call = Call(delivery.opcode, self._request(offset, end, SOMEBODY_ELSE, piggy))
            answers.update(await core.ask(call, self.user, self.patience, others))

        async with trio.open_nursery() as nursery:
            if others:
                nursery.start_soon(ask_others)
            source = await delivery.run(primary)
        delivery.check()
        answers |= delivery.answers
        if source.answer is None:  # what the same server said to `ask_others` tells nothing of these bytes
            self._fails(source.slot, "it stalls, having sent a part of nobody knows which version")
            return Code.ERETRY
        if ask_all:
            await self._complete(
                answers, source.slot, Call(delivery.opcode, self._request(offset, end, SOMEBODY_ELSE))
            )
        self._moved_to(source.slot)
        primary = source.slot
        statuses = {slot: reply.status for slot, reply in parse(core, answers, FetchPartial.Reply).items()}
        answer = answers[primary]
        lost = answer.code is not Code.SUCCESS and not answer.heard
        if lost and answer.code is not Code.ERETRY:
            # One that forgot us, or whose tunnel broke, is there.
            self._fails(primary, answer.code.name)
        elsewhere = offset and any(one.code is Code.EAGAIN for one in answers.values())
        if (lost and self.vv is not None) or elsewhere:
            # A piece beyond the end of what has become shorter fails like a broken transfer (vice.md §5.2).
            # And whoever refuses to go on has another version: the newest, perhaps.
            self._check(await get_attr(core, self.fid, self.user, self.patience))
        agreed = agree(core, self.fid, answers, statuses, self.patience)
        if isinstance(agreed, Code):
            return Code.ERETRY if lost and agreed in (Code.EIO, Code.ETIMEDOUT) else agreed
        core.cop2.delivered(batch)
        # Without asking all: the caller's promise says that their versions are equal; each piece is checked.
        self.dominant = agreed.dominant if ask_all else tuple(replica.slot for replica in members)
        if primary not in agreed.dominant:
            self._check(Attributes(statuses[agreed.chosen], False))
            self._fails(primary, "it does not have the newest version")
            self.primary = agreed.chosen if agreed.chosen not in self.failed else None
            return Code.ERETRY
        attributes = Attributes(statuses[primary], agreed.promised)
        self._check(attributes)
        expected = (attributes.status.length if end is None else end) - offset
        if delivery.at - offset != expected:
            self._fails(primary, f"{delivery.at - offset} bytes came instead of {expected}")
            return Code.ERETRY
        return attributes

    async def _complete(self, answers: Answers, source: int, call: Call) -> None:
        """Ask again who has not answered although it is there: the version it has counts, too.

        That is cheaper than to fetch the data again. Who has been slow, or was lost and found, is among them.
        """
        core = self.core
        for attempt in range(COMPLETIONS):
            left = [
                replica
                for replica in core.replicas
                if replica.server.available
                and replica.slot != source
                and (replica.slot not in answers or answers[replica.slot].code is Code.ERETRY)
            ]
            if not left or not self.patience.left:
                return
            await trio.sleep(FIRST_PAUSE * (attempt > 0))
            answers |= await core.ask(call, self.user, self.patience, left)

    # the others: from one server that has checked the version

    async def _next(self, at: int, end: int) -> int:
        """Fetch more, at most up to `end`; return how far it got. Raises CodaError when no server is left."""
        core = self.core
        await core.flush_cop2(self.patience)
        slot = self._choose(self.dominant)
        delivery = self._delivery(at, end, lambda _, at: self._request(at, end, 0), self.dominant)
        source = await delivery.run(slot)
        delivery.check()
        begun, at, slot = at, delivery.at, source.slot
        self._moved_to(slot)
        answer = source.answer
        if answer is None:  # if only the reply is missing: the server has compared the version
            self._fails(slot, "it stalls")
            return at if at == end else begun
        if not answer.heard:
            if not self.patience.left:
                raise CodaError(Code.EWOULDBLOCK if core.servers[slot].available else Code.ETIMEDOUT)
            if answer.code is not Code.ERETRY:
                self._fails(slot, answer.code.name)
            return begun
        if answer.code is Code.EAGAIN:
            self._check(await get_attr(core, self.fid, self.user, self.patience))
            self._fails(slot, "it has another version than it had")
            return begun
        if answer.code is not Code.SUCCESS:
            raise CodaError(answer.code)
        if at != end:
            self._fails(slot, f"a piece ended at {at} instead of {end}")
            return begun
        return at
