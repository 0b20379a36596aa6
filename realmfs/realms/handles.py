"""Storing a large file.

Contents first, in pieces, into a container at each server; then one record (reintegration.md §3).

Each server of the group gets its own handle and is filled at its own speed (`fill`): that changes nothing
that anybody can see, takes no locks and needs no store id, so other updates go on meanwhile. Then the record
is executed (`run`) at all that have the whole file, as any other update. Since all execute the same store id,
no resolution is needed. What was sent before an interruption counts, also in another process (`dump`): the
servers say how much they have, as long as they have not been restarted themselves.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from realmfs.realms.collate import collate_update
from realmfs.realms.core import Core
from realmfs.realms.round import Answers, Call, Patience
from realmfs.realms.server import Answer
from realmfs.realms.types import Reintegrated
from realmfs.realms.updating import conclusion, update
from realmfs.realms.volume import Replica
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSource, Source
from realmfs.vice.calls import CloseReintHandle, OpenReintHandle, QueryReintHandle, SendReintFragment
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, ReintHandle

log = logging.getLogger(__name__)

_PASSING = frozenset({Code.ETIMEDOUT, Code.ERETRY, Code.EWOULDBLOCK, Code.EBUSY})
FRAGMENT = 4 << 20
CLOSE_FACTOR = 3
"""The record may have to wait for locks, so it gets so many times the patience."""


@dataclass(slots=True)
class _Container:
    handle: ReintHandle
    sent: int = 0


class _Fragment:
    """A part of a source; reading it is progress."""

    def __init__(self, source: Source, offset: int, size: int, patience: Patience) -> None:
        self._source = source
        self._offset = offset
        self._patience = patience
        self.size = size

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes counted from the start of the part."""
        self._patience.progress()
        return self._source.read(self._offset + offset, min(count, self.size - offset))


@dataclass(slots=True)
class HandleStore:
    """One store by handle: what is to be stored, and how far each server is. Keep it to go on later."""

    fid: Fid
    source: Source
    """The frozen contents."""
    user: int
    containers: dict[int, _Container] = field(default_factory=dict)
    """By slot."""
    changed: Callable[[], None] = lambda: None
    """Told when a handle was opened or lost: what `dump` returns has changed."""
    progress: Callable[[int], None] = lambda _: None
    """Told of more bytes that a server has; `sent` counts for all."""

    @property
    def sent(self) -> int:
        """Bytes that the slowest server being filled has got."""
        return min((container.sent for container in self.containers.values()), default=0)

    def dump(self) -> bytes:
        """Return the handles, to go on with in another process: `load` takes them."""
        handles = {slot: container.handle for slot, container in self.containers.items()}
        return json.dumps({slot: [h.birth_time, h.device, h.inode] for slot, h in handles.items()}).encode()

    def load(self, note: bytes | None) -> None:
        """Go on with the handles that `dump` returned. A note that makes no sense is none."""
        try:
            for slot, numbers in json.loads(note or b"{}").items():
                self.containers[int(slot)] = _Container(ReintHandle(*map(int, numbers)))
        except (ValueError, TypeError, AttributeError):
            self.containers.clear()

    async def fill(self, core: Core, seconds: float) -> Reintegrated:
        """Bring the contents to all members; SUCCESS once every one that is still up has them.

        Changes nothing that anybody can see. Gives up on a server after `seconds` without progress.
        """
        answers = await self._fill_all(core, core.members(), seconds)
        codes = {a.code for slot, a in answers.items() if a.heard or core.servers[slot].available}
        if Code.SUCCESS not in codes or not codes.isdisjoint(_PASSING):
            codes = codes - {Code.SUCCESS} | {Code.ETIMEDOUT}
            return Reintegrated(collate_update(codes, reintegrating=True), -1, (), uncertain=False)
        return Reintegrated(Code.SUCCESS, -1, (), uncertain=False)

    async def run(self, core: Core, record: bytes, seconds: float) -> Reintegrated:
        """See to it that the members have the contents, then execute the record, which names their length.

        If any member was filled before, only such members are asked; the others get it by resolution.
        """
        members = core.members()
        filled = [replica for replica in members if replica.slot in self.containers]
        answers = await self._fill_all(core, filled or members, seconds)
        full = [r for r in filled or members if answers[r.slot].code is Code.SUCCESS]
        if full:  # having the contents is not having executed the record, and not all may be asked to
            lacking = {slot: answer for slot, answer in answers.items() if answer.code is not Code.SUCCESS}
            answers = lacking | await self._close(core, full, record, seconds)
        return conclusion(core, answers, index=False)

    async def _fill_all(self, core: Core, members: Sequence[Replica], seconds: float) -> Answers:
        answers: Answers = {}

        async def fill(replica: Replica) -> None:
            # Fragments change nothing that anybody can see, so a lost one leaves nothing uncertain.
            answer = await self._fill(core, replica, seconds)
            answers[replica.slot] = answer._replace(sent=False)

        async with trio.open_nursery() as nursery:
            for replica in members:
                nursery.start_soon(fill, replica)
        return answers

    async def _close(self, core: Core, full: Sequence[Replica], record: bytes, seconds: float) -> Answers:
        """Execute the record at the servers that have all the contents."""
        bodies = {
            replica.slot: CloseReintHandle(
                volume=core.volume_id, log_size=len(record), handle=self.containers[replica.slot].handle
            ).pack()
            for replica in full
        }
        call = Call(
            CloseReintHandle.OPCODE,
            b"",
            bodies,
            source=BytesSource(record),
            reintegrating=True,
            strict=True,
        )
        async with core.updating:
            await core.flush_cop2()
            answers = await update(core, full, self.user, call, Patience(seconds * CLOSE_FACTOR))
        for slot, answer in answers.items():
            if answer.heard and answer.code is not Code.EWOULDBLOCK:  # who is busy is asked again
                self._drop(slot)
        return answers

    async def _fill(self, core: Core, replica: Replica, seconds: float) -> Answer:
        """Bring one container to the contents' length; return the last answer, SUCCESS if it is full."""
        patience = Patience(seconds)
        answer = await self._begin(core, replica, patience)
        while answer.code is Code.SUCCESS:
            container = self.containers[replica.slot]
            size = min(FRAGMENT, self.source.size - container.sent)
            if size <= 0:
                break
            patience.progress()
            body = SendReintFragment(volume=core.volume_id, handle=container.handle, length=size).pack()
            part = _Fragment(self.source, container.sent, size, patience)
            answer = await self._ask(
                core, replica, Call(SendReintFragment.OPCODE, body, source=part), patience
            )
            if answer.code is Code.SUCCESS:
                container.sent += size
                self.progress(size)
        if answer.heard and answer.code not in (Code.SUCCESS, Code.EBUSY):
            self._drop(replica.slot)  # busy is a handle that the server still fills from a broken connection
        return answer

    def _drop(self, slot: int) -> None:
        if self.containers.pop(slot, None) is not None:
            self.changed()

    async def _begin(self, core: Core, replica: Replica, patience: Patience) -> Answer:
        """Go on with the container there is, or open one."""
        container = self.containers.get(replica.slot)
        if container is not None:
            body = QueryReintHandle(volume=core.volume_id, handle=container.handle).pack()
            answer = await self._ask(core, replica, Call(QueryReintHandle.OPCODE, body), patience)
            if not answer.heard:
                return answer
            if answer.code is Code.SUCCESS:
                try:
                    container.sent = QueryReintHandle.Reply.unpack(answer.body).length
                except BadPacket:
                    container.sent = self.source.size + 1
                if container.sent <= self.source.size:
                    return answer
            self._drop(replica.slot)
        call = Call(OpenReintHandle.OPCODE, OpenReintHandle(fid=self.fid).pack())
        answer = await self._ask(core, replica, call, patience)
        if answer.code is Code.SUCCESS:
            try:
                handle = OpenReintHandle.Reply.unpack(answer.body).handle
            except BadPacket:
                return answer._replace(code=Code.EIO)
            self.containers[replica.slot] = _Container(handle)
            self.changed()
        return answer

    async def _ask(self, core: Core, replica: Replica, call: Call, patience: Patience) -> Answer:
        call.strict = True
        call.reintegrating = True
        return (await core.ask(call, self.user, patience, [replica]))[replica.slot]
