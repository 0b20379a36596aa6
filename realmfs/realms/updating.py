"""Updates at all servers of a group at once (vice.md §6.4, reintegration.md §2).

Every server up executes the same bytes by itself. The trouble is with servers that answer EWOULDBLOCK,
because somebody else has the volume locked there, while others have executed the call. Resolving that would
make a conflict of it. So the very same bytes, with the same store ids, go again to those that were busy,
before anything else is done:

    all at once ──► every one executed ─────────────────────────────────► done
                ──► some executed, some busy ──► the busy ones again, in slot order, up to 30 s ──► done
                ──► nobody executed, some busy ──► EWOULDBLOCK to the caller

The last holds for a replayed log even if others refuse it: who refuses may be behind, and those that are busy
are often so because it is just being brought along.

Two clients that send at the same time can each get one server and be busy at the other. From the second
such clash in a row on, servers are asked one after the other in slot order, and the first one decides: who
gets it gets all.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace

import trio

from realmfs.realms.collate import collate_update
from realmfs.realms.cop2 import SecondPhase
from realmfs.realms.core import Core
from realmfs.realms.reading import parse
from realmfs.realms.round import Answers, Call, Patience
from realmfs.realms.types import Reintegrated
from realmfs.realms.volume import Replica
from realmfs.rpc2.transfer import BytesSource
from realmfs.vice.calls import MAX_STALE_DIRS, Reintegrate, SetAcl, SetVolumeStatus
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Status, StoreId, VolumeStatus

log = logging.getLogger(__name__)

BUSY_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
ORDERED_FROM = 2
"""From this many clashes in a row on, servers are asked in slot order."""


async def update(
    core: Core,
    members: Collection[Replica],
    user: int,
    call: Call,
    patience: Patience,
    *,
    first_alone: bool = False,
) -> Answers:
    """Execute a call at all `members`; whoever holds `core.updating`. See the drawing above.

    `first_alone`: the call may be what servers die of, so the others get it only once one has lived through
    it.
    """
    replicas = sorted(members)
    if first_alone:
        answers = await core.ask(call, user, patience, replicas[:1])
        if not answers[replicas[0].slot].heard:
            return answers
        if replicas[1:]:
            answers |= await core.ask(call, user, patience, replicas[1:])
    elif core.contended >= ORDERED_FROM:
        answers = await _one_by_one(core, replicas, user, call, patience)
    else:
        answers = await core.ask(call, user, patience, replicas)
    codes = {answer.code for answer in answers.values()}
    core.contended = core.contended + 1 if Code.EWOULDBLOCK in codes else 0
    if {Code.SUCCESS, Code.EWOULDBLOCK} <= codes:
        await _insist(core, replicas, user, call, answers)
    return answers


async def _one_by_one(
    core: Core, replicas: Collection[Replica], user: int, call: Call, patience: Patience
) -> Answers:
    answers: Answers = {}
    for replica in replicas:
        answers |= await core.ask(call, user, patience, [replica])
        done = any(answer.code is Code.SUCCESS for answer in answers.values())
        if answers[replica.slot].code is Code.EWOULDBLOCK and not done:
            break
    return answers


async def _insist(core: Core, replicas: Collection[Replica], user: int, call: Call, answers: Answers) -> None:
    """Ask those that were busy again until they have executed it, too; `answers` is brought up to date."""
    patience = Patience(BUSY_SECONDS)
    pause = FIRST_PAUSE
    while patience.left > pause:
        await trio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
        busy = [r for r in replicas if answers[r.slot].code is Code.EWOULDBLOCK and r.server.available]
        if not busy:
            return
        for replica in busy:
            answers |= await core.ask(call, user, patience, [replica])
    log.info("volume %x: a server stays busy; resolution must bring it the update", core.volume_id)


def uncertain(answers: Answers) -> bool:
    """Whether some server may have executed the call without our hearing of it."""
    return any(answer.sent and not answer.heard for answer in answers.values())


def executed(answers: Answers) -> tuple[int, ...]:
    """Return the slots that executed the call."""
    return tuple(sorted(slot for slot, answer in answers.items() if answer.code is Code.SUCCESS))


async def reintegrate(
    core: Core, records: bytes, user: int, out_of_order: bool, patience: Patience, first_alone: bool
) -> Reintegrated:
    """Replay a packed log at all members. Whatever happens is in the result."""
    if not records:
        raise ValueError("an empty log")

    def request(piggy: bytes) -> bytes:
        return Reintegrate(
            volume=core.volume_id, log_size=len(records), out_of_order=out_of_order, piggy_cop2=piggy
        ).pack()

    async with core.updating:
        members = core.members()
        piggy, batch = await core.before_update(patience)
        call = Call(
            Reintegrate.OPCODE, request(piggy), source=BytesSource(records), reintegrating=True, strict=True
        )
        answers = await update(core, members, user, call, patience, first_alone=first_alone)
    return _outcome(core, answers, batch)


def _outcome(core: Core, answers: Answers, batch: list[SecondPhase]) -> Reintegrated:
    replies = parse(core, answers, Reintegrate.Reply)
    stale: dict[Fid, None] = {}
    for reply in replies.values():
        stale |= dict.fromkeys(reply.stale_dirs)
    for fid in stale:  # somebody has changed them of whose changes the log did not know
        core.context.note_change(fid)
    if executed(answers):
        core.cop2.delivered(batch)
    overflow = any(len(reply.stale_dirs) >= MAX_STALE_DIRS for reply in replies.values())
    return replace(conclusion(core, answers), stale_dirs=tuple(stale), stale_overflow=overflow)


def conclusion(core: Core, answers: Answers, *, index: bool = True) -> Reintegrated:
    """Return how a reintegration with these answers ended. Any success is one: the others are resolved.

    `index`: the answers name a record; those to a closed handle do not.
    """
    slots = executed(answers)
    known = tuple(sorted(slot for slot, answer in answers.items() if answer.code is Code.EALREADY))
    code = collate_update([answer.code for answer in answers.values()], reintegrating=True)
    if slots:
        behind = any(slot not in slots and core.servers[slot].available for slot in core.servers)
        resolve = core.replicated and behind
        return Reintegrated(Code.SUCCESS, -1, slots, uncertain(answers), needs_resolve=resolve, known=known)
    if code is not Code.EALREADY and any(answer.code is Code.EWOULDBLOCK for answer in answers.values()):
        code = Code.EWOULDBLOCK
    blamed = _index(answers, code) if index else -1
    return Reintegrated(code, blamed, (), uncertain(answers), known=known)


def _index(answers: Answers, code: Code) -> int:
    """Return the smallest index among the answers with the collated code (reintegration.md §2.8)."""
    indices = [
        Reintegrate.Reply.unpack(answer.body, int(answer.code)).index
        for answer in answers.values()
        if answer.heard and answer.code is code and code is not Code.SUCCESS and answer.body
    ]
    if code is Code.EALREADY:  # a uniquifier, which is unsigned
        return min((index & 0xFFFFFFFF for index in indices), default=-1)
    return min(indices, default=-1)


async def set_acl(
    core: Core, fid: Fid, text: bytes, status: Status, store_id: StoreId, user: int, patience: Patience
) -> Status:
    """Replace a directory's access list.

    `status` carries the version it must have. Returns the new status.
    """

    def request(piggy: bytes) -> bytes:
        return SetAcl(fid=fid, acl=text + b"\0", status=status, store_id=store_id, piggy_cop2=piggy).pack()

    answers = await _simple_update(core, SetAcl.OPCODE, request, store_id, fid, user, patience)
    replies = parse(core, answers, SetAcl.Reply)
    if not replies:
        raise CodaError(Code.EIO)
    new = replies[core.believed(replies)].status
    vv = status.vv.raised(replies).with_store_id(store_id)
    return replace(new, vv=vv, callback=False)


async def set_volume_status(
    core: Core,
    status: VolumeStatus,
    offline: bytes,
    motd: bytes,
    store_id: StoreId,
    user: int,
    patience: Patience,
) -> None:
    """Set quota and texts, for administrators.

    A new quota is an update of the root directory (vice.md §5.1).
    """
    if not core.replicated:
        raise CodaError(Code.EINVAL, "a server may die of a quota set on a volume without replication")

    def request(piggy: bytes) -> bytes:
        return SetVolumeStatus(
            volume=core.volume_id,
            status=status,
            offline=offline + b"\0" if offline else b"",
            motd=motd + b"\0" if motd else b"",
            store_id=store_id,
            piggy_cop2=piggy,
        ).pack()

    root = Fid.root(core.volume_id)
    await _simple_update(core, SetVolumeStatus.OPCODE, request, store_id, root, user, patience)


async def _simple_update(
    core: Core,
    opcode: int,
    request: Callable[[bytes], bytes],
    store_id: StoreId,
    fid: Fid,
    user: int,
    patience: Patience,
) -> Answers:
    """Execute an update of one object at all members and queue its second phase. Raises CodaError."""
    async with core.updating:
        piggy, batch = await core.before_update(patience)
        call = Call(opcode, request(piggy), strict=True)
        answers = await update(core, core.members(), user, call, patience)
        slots = executed(answers)
        if not slots:
            raise CodaError(collate_update([answer.code for answer in answers.values()], reintegrating=False))
        core.cop2.delivered(batch)
        if core.replicated:
            core.cop2.put(store_id, slots, (fid,))
            core.deliver_cop2()
    if len(slots) < len(answers):
        core.resolve_later(fid)
    return answers
