"""Calls about a volume as a whole (vice.md §5.1, client.md §3)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from realmfs.realms.core import Core
from realmfs.realms.reading import parse, promise_stands
from realmfs.realms.round import Call, Patience
from realmfs.realms.types import Stamps
from realmfs.rpc2.errors import BadPacket
from realmfs.vice.calls import AllocFids, GetVolumeStatus, GetVolVS, ValidateVols, until_nul
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import FidRange, ObjectType, VolumeStatus

MAX_FIDS = 32


@dataclass(frozen=True, slots=True)
class VolumeState:
    """State and quota of a volume, with what its administrators have to say."""

    status: VolumeStatus
    offline: bytes
    motd: bytes


async def volume_status(core: Core, user: int, patience: Patience) -> VolumeState:
    """Ask all members, believe the primary. Id and name in the reply are the replica's."""
    body = GetVolumeStatus(volume=core.volume_id, is_replicated=core.replicated).pack()

    async def attempt() -> VolumeState | Code:
        answers = await core.ask(Call(GetVolumeStatus.OPCODE, body), user, patience)
        replies = parse(core, answers, GetVolumeStatus.Reply)
        code = core.collate(answers, patience)
        if code not in (Code.SUCCESS, Code.EASYRESOLVE):
            return code
        reply = replies[core.believed(replies)]
        return VolumeState(reply.status, until_nul(reply.offline), until_nul(reply.motd))

    return await core.settle(None, attempt, patience)


async def volume_stamps(core: Core, user: int, patience: Patience) -> Stamps:
    """Acquire the volume's version stamp of each member, and a promise for all of the volume."""
    body = GetVolVS(volume=core.volume_id).pack()

    async def attempt() -> Stamps | Code:
        answers = await core.ask(Call(GetVolVS.OPCODE, body), user, patience)
        replies = parse(core, answers, GetVolVS.Reply)
        code = core.collate(answers, patience)
        if code not in (Code.SUCCESS, Code.EASYRESOLVE):
            return code
        given = {slot: reply.promised for slot, reply in replies.items()}
        promised = code is Code.SUCCESS and promise_stands(core, answers, given)
        size = max(core.servers) + 1
        stamps = tuple(replies[slot].stamp if slot in replies else 0 for slot in range(size))
        return Stamps(stamps, promised and all(reply.stamp for reply in replies.values()))

    return await core.settle(None, attempt, patience)


async def validate_volumes(
    core: Core, volumes: Sequence[tuple[int, Sequence[int]]], user: int, patience: Patience
) -> list[int]:
    """Ask whether volumes on the same servers still have these stamps, of all slots up to the highest used.

    Returns per volume 1: unchanged and promised by all members; 0: unchanged; -1: changed, forget the stamps.
    """
    size = max(core.servers) + 1
    stamps = b"".join(struct.pack(f">{size}I", *(s & 0xFFFFFFFF for s in known)) for _, known in volumes)
    request = ValidateVols(volumes=tuple(volume for volume, _ in volumes), stamps=stamps)

    async def attempt() -> list[int] | Code:
        answers = await core.ask(Call(ValidateVols.OPCODE, request.pack()), user, patience)
        replies = parse(core, answers, ValidateVols.Reply)
        code = core.collate(answers, patience)
        if code not in (Code.SUCCESS, Code.EASYRESOLVE):
            return code
        unbroken = code is Code.SUCCESS and promise_stands(core, answers, dict.fromkeys(replies, True))
        result = []
        for i in range(len(volumes)):
            flags = [reply.flags[i] if i < len(reply.flags) else 255 for reply in replies.values()]
            valid = all(flag in (0, 1) for flag in flags)
            result.append(-1 if not valid else int(unbroken and all(flags)))
        return result

    return await core.settle(None, attempt, patience)


async def alloc_fids(core: Core, kind: ObjectType, count: int, user: int, patience: Patience) -> FidRange:
    """Reserve fids at one member, the primary or the next one that answers; perhaps fewer than asked for."""
    wanted = min(max(count, 1), MAX_FIDS)
    body = AllocFids(volume=core.volume_id, type=kind, range=FidRange.request(wanted)).pack()
    await core.flush_cop2(patience)
    tried: set[int] = set()
    code = Code.ETIMEDOUT
    while slots := [replica.slot for replica in core.members() if replica.slot not in tried]:
        slot = core.primary_of(slots)
        tried.add(slot)
        answers = await core.ask(
            Call(AllocFids.OPCODE, body), user, patience, [r for r in core.replicas if r.slot == slot]
        )
        code = answers[slot].code
        if code is Code.SUCCESS:
            try:
                granted = AllocFids.Reply.unpack(answers[slot].body).range
                if granted.count:
                    return granted.checked(wanted, kind is ObjectType.DIRECTORY)
            except BadPacket:
                code = Code.EIO
        elif answers[slot].heard:
            break
    raise CodaError(code if code is not Code.SUCCESS else Code.ENOSPC, "no fids")
