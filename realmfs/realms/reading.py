"""Calls that change nothing, answered by the whole group as one (vice.md §6.3)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from realmfs.realms.core import Core
from realmfs.realms.round import Answers, Call, Patience
from realmfs.realms.types import ANYUSER, AccessListAnswer, Attributes
from realmfs.rpc2.errors import BadPacket
from realmfs.vice.calls import MAX_PIGGIES, GetAcl, GetAttr, ValidateAttrs, until_nul
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import (
    VSG_MEMBERS,
    Fid,
    FidAndVector,
    ObjectType,
    Order,
    Status,
    StoreId,
    VersionVector,
)
from realmfs.vice.versions import check_group
from realmfs.vice.wire import Results

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Results)

VALIDATE_ROUNDS = 3
"""How often a validation is begun anew because the object asked about first is gone or differs."""


SECOND_PHASE = 3.0
"""Seconds between two looks at weakly equal replicas; clients take up to 5 (vice.md §6.4)."""
SECOND_PHASES = 20
"""Looks at an object that others change all the time."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a group has in common.

    The slots with the newest version, the one to believe, whether all promised.
    """

    chosen: int
    dominant: tuple[int, ...]
    promised: bool


def parse(core: Core, answers: Answers, kind: type[R]) -> dict[int, R]:
    """Return the replies of those who succeeded. One that cannot be read counts as EIO from then on."""
    replies = {}
    for slot, answer in answers.items():
        if answer.code is not Code.SUCCESS:
            continue
        try:
            replies[slot] = kind.unpack(answer.body)
        except BadPacket as error:
            log.info("%s sent a senseless reply: %s", core.servers[slot], error)
            answers[slot] = answer._replace(code=Code.EIO)
    return replies


def sound(core: Core, fid: Fid, answers: Answers, statuses: Mapping[int, Status]) -> dict[int, Status]:
    """Return the statuses that can be the object's: its type fits its fid.

    Others count as EIO from then on.
    """
    result = {}
    for slot, status in statuses.items():
        if (status.type is ObjectType.DIRECTORY) == fid.is_directory:
            result[slot] = status
        else:
            log.info("%s calls %s a %s", core.servers[slot], fid, status.type.name)
            answers[slot] = answers[slot]._replace(code=Code.EIO)
    return result


def agree(
    core: Core, fid: Fid, answers: Answers, statuses: Mapping[int, Status], patience: Patience,
    *, weakly: bool = True,
) -> Agreement | Code:  # fmt: skip
    """Collate, compare versions, choose whom to believe, and see whether the promise holds (vice.md §6.3).

    Not `weakly`: the version shall be that of all servers, for an update names it to them.
    """
    statuses = sound(core, fid, answers, statuses)
    code = core.collate(answers, patience)
    if code is Code.ESYNRESOLVE:
        _note_parent(core, fid, statuses)
    if code not in (Code.SUCCESS, Code.EASYRESOLVE):
        return code
    dominant = tuple(statuses)
    if core.replicated and len(statuses) > 1:
        vectors = [statuses[slot].vv if slot in statuses else None for slot in range(VSG_MEMBERS)]
        check = check_group(vectors, equality_required=fid.is_directory)
        if check.consistent:
            dominant = check.dominant
        elif (
            not weakly
            or core.ours_under_way
            or not _weakly_equal([status.vv for status in statuses.values()])
        ):
            _note_parent(core, fid, statuses)
            core.differ(fid, [statuses[slot].vv for slot in sorted(statuses)])
            return Code.ESYNRESOLVE
        else:
            core.context.background(("second phase", fid), partial(_see_second_phase, core, fid))
            return Agreement(core.believed(dominant), dominant, False)
    easy = code is Code.EASYRESOLVE or len(dominant) < len(statuses)
    if easy and not core.sends:  # else it is our own update that has not reached all of them yet
        if code is Code.SUCCESS and _weakly_equal([status.vv for status in statuses.values()]):
            core.context.background(("second phase", fid), partial(_see_second_phase, core, fid))
        else:
            _note_parent(core, fid, statuses)
            core.resolve_later(fid)
    promised = not easy and promise_stands(core, answers, {s: st.callback for s, st in statuses.items()})
    return Agreement(core.believed(dominant), dominant, promised)


def _weakly_equal(vectors: Sequence[VersionVector]) -> bool:
    """Tell whether all replicas name the same last update: by that servers, too, know equal contents.

    Only their counts differ, since the second phase of somebody's update has not reached them all yet.
    """
    one = {vector.store_id for vector in vectors}
    return len(one) == 1 and StoreId.zero() not in one and not any(vv.inconsistent for vv in vectors)


async def _see_second_phase(core: Core, fid: Fid) -> None:
    """Have the counts of weakly equal replicas made equal if nobody does: the second phase may be lost.

    To resolve at once what another client is about to settle would be in vain; and where several change one
    directory, it meets servers at work on the next update, who then find no common history.
    """
    last = None
    for _ in range(SECOND_PHASES):
        await trio.sleep(SECOND_PHASE)
        try:
            patience = core.patience(None)
            answers = await core.ask(Call(GetAttr.OPCODE, GetAttr(fid=fid).pack()), ANYUSER, patience)
        except CodaError:
            return  # nobody is there; who looks again finds out again
        found = {slot: reply.status.vv for slot, reply in parse(core, answers, GetAttr.Reply).items()}
        equal = len({vv.versions for vv in found.values()}) == 1
        if equal or not _weakly_equal(list(found.values())):
            return  # all is well, or whoever looks finds a reason to resolve
        newest = next(vv.store_id for vv in found.values())
        if newest == last:
            break
        last = newest
    core.resolve_later(fid)


def promise_stands(core: Core, answers: Answers, given: Mapping[int, bool]) -> bool:
    """Whether every server that is up has promised, and nothing was broken since it was asked."""
    if core.inspecting:
        return False  # servers call back about the volume, not about its replicas
    for replica in core.replicas:
        if not replica.server.available:
            continue
        if not given.get(replica.slot) or not replica.server.promise_stands(answers[replica.slot]):
            return False
    for slot in given:
        core.servers[slot].gave_promise()
    return True


def _note_parent(core: Core, fid: Fid, statuses: Mapping[int, Status]) -> None:
    for status in statuses.values():
        if status.parent != (0, 0) and len(core.parents) < MAX_PIGGIES:
            core.parents[fid] = Fid(fid.volume, *status.parent)


async def get_attr(core: Core, fid: Fid, user: int, patience: Patience, *, weakly: bool = True) -> Attributes:
    """Ask all members for an object's status; `weakly` as in `agree`."""

    async def attempt() -> Attributes | Code:
        piggy, batch = core.piggy()
        answers = await core.ask(
            Call(
                GetAttr.OPCODE,
                GetAttr(fid=fid, inconsistent_ok=core.inspecting, piggy_cop2=piggy).pack(),
            ),
            user,
            patience,
        )
        replies = parse(core, answers, GetAttr.Reply)
        statuses = {slot: reply.status for slot, reply in replies.items()}
        agreed = agree(core, fid, answers, statuses, patience, weakly=weakly)
        if isinstance(agreed, Code):
            return agreed
        core.cop2.delivered(batch)
        chosen = replies[agreed.chosen]
        return Attributes(chosen.status, agreed.promised, chosen.sha)

    return await core.settle(fid, attempt, patience)


async def holders(core: Core, fid: Fid, store_id: StoreId, user: int, patience: Patience) -> tuple[int, ...]:
    """Return the slots whose own copy of an object is at this store id. Nothing is resolved.

    Raises CodaError: ETIMEDOUT, nobody answers; EWOULDBLOCK, somebody who is up does not say.
    """
    answers = await core.ask(Call(GetAttr.OPCODE, GetAttr(fid=fid).pack()), user, patience)
    if not any(answer.heard for answer in answers.values()):
        raise CodaError(Code.ETIMEDOUT)
    for slot, answer in answers.items():
        silent = not answer.heard and core.servers[slot].available
        if silent or answer.code in (Code.EWOULDBLOCK, Code.ERETRY):
            raise CodaError(Code.EWOULDBLOCK, f"{core.servers[slot]} is busy")
    replies = parse(core, answers, GetAttr.Reply)
    return tuple(sorted(slot for slot, reply in replies.items() if reply.status.vv.store_id == store_id))


async def get_acl(core: Core, fid: Fid, user: int, patience: Patience) -> AccessListAnswer:
    """Ask all members for a directory's access list; with it comes the version that a set must name."""

    async def attempt() -> AccessListAnswer | Code:
        piggy, batch = core.piggy()
        answers = await core.ask(
            Call(
                GetAcl.OPCODE,
                GetAcl(fid=fid, inconsistent_ok=core.inspecting, piggy_cop2=piggy).pack(),
            ),
            user,
            patience,
        )
        replies = parse(core, answers, GetAcl.Reply)
        statuses = {slot: reply.status for slot, reply in replies.items()}
        agreed = agree(core, fid, answers, statuses, patience, weakly=False)
        if isinstance(agreed, Code):
            return agreed
        core.cop2.delivered(batch)
        chosen = replies[agreed.chosen]
        return AccessListAnswer(until_nul(chosen.acl), chosen.status)

    return await core.settle(fid, attempt, patience)


async def validate(
    core: Core, objects: Sequence[tuple[Fid, VersionVector]], user: int, patience: Patience
) -> dict[Fid, bool]:
    """Ask all members whether these versions are still theirs. True: at every member, with its promise.

    False does not say that the object changed, only that it must be asked about by itself.
    """
    if core.inspecting:  # this call refuses what is in conflict
        return dict.fromkeys((fid for fid, _ in objects), False)
    rest = sorted(objects, key=lambda known: known[0])
    result = dict.fromkeys((fid for fid, _ in rest), False)
    for _ in range(VALIDATE_ROUNDS):
        if not rest:
            break
        first, *others = [FidAndVector(fid, vv) for fid, vv in rest[: MAX_PIGGIES + 1]]
        outcome = await _validate_round(core, first, others, user, patience)
        if outcome:
            result |= outcome
            break
        rest = rest[1:]
    return result


async def _validate_round(
    core: Core, first: FidAndVector, others: Sequence[FidAndVector], user: int, patience: Patience
) -> dict[Fid, bool]:
    """Validate in one round.

    Empty: the servers have no answer for the first object, which spoils the call.
    """

    async def attempt() -> dict[Fid, bool] | Code:
        piggy, batch = core.piggy()
        body = ValidateAttrs(primary=first.fid, piggies=tuple(others), piggy_cop2=piggy).pack()
        answers = await core.ask(Call(ValidateAttrs.OPCODE, body), user, patience)
        replies = parse(core, answers, ValidateAttrs.Reply)
        agreed = agree(core, first.fid, answers, {slot: r.status for slot, r in replies.items()}, patience)
        if agreed in (Code.ETIMEDOUT, Code.ERETRY, Code.EWOULDBLOCK):
            return agreed
        if isinstance(agreed, Code):
            return {}
        core.cop2.delivered(batch)
        unbroken = promise_stands(core, answers, dict.fromkeys(replies, True))
        same = replies[agreed.chosen].status.vv.compare(first.vv) is Order.EQUAL
        result = {first.fid: agreed.promised and same}
        for i, other in enumerate(others):
            valid = all(reply.flags[i : i + 1] == b"\1" for reply in replies.values())
            result[other.fid] = unbroken and valid
        return result

    return await core.settle(None, attempt, patience)
