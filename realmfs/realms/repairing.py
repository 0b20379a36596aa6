"""What only conflicts need: each replica asked for itself, repairs, versions set by hand (conflicts.md §5.4).

A repair goes to all members at once, like any update. Its status argument names a version that is at least
that of each of them, so it is computed from what each says of its own copy:

    deliver second phases ──► GetAttr at each replica, by its own id ──► Repair at all, version = slot-wise
    maximum ──► COP2 at once ──► (a directory's flag goes with the Resolve that the caller asks for)
"""

from collections.abc import Mapping
from dataclasses import replace

from realmfs.realms.core import Core
from realmfs.realms.reading import parse, sound
from realmfs.realms.round import Call, Patience
from realmfs.realms.updating import executed, update
from realmfs.rpc2.transfer import Source
from realmfs.vice.calls import GetAttr, Repair, SetVV
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Status, StoreId, VersionFlags, VersionVector


async def replica_statuses(core: Core, fid: Fid, user: int, patience: Patience) -> dict[int, Status]:
    """Ask each server up for the status of its own copy, whatever its state; those without one are absent.

    Raises CodaError: ETIMEDOUT, nobody answers; EWOULDBLOCK, somebody who is up does not say.
    """
    await core.flush_cop2(patience)
    members = core.members()
    bodies = {
        replica.slot: GetAttr(fid=Fid(replica.volume_id, *fid[1:]), inconsistent_ok=True).pack()
        for replica in members
    }
    answers = await core.ask(Call(GetAttr.OPCODE, b"", bodies), user, patience, members)
    if not any(answer.heard for answer in answers.values()):
        raise CodaError(Code.ETIMEDOUT)
    for slot, answer in answers.items():
        if not answer.heard and core.servers[slot].available:
            raise CodaError(Code.EWOULDBLOCK, f"{core.servers[slot]} is busy")
    replies = parse(core, answers, GetAttr.Reply)
    return sound(core, fid, answers, {slot: reply.status for slot, reply in replies.items()})


async def repair(
    core: Core,
    fid: Fid,
    source: Source,
    status: Status,
    store_id: StoreId,
    user: int,
    patience: Patience,
) -> dict[int, Code]:
    """Give an object in conflict new contents (a directory: a repair file) at all servers up.

    Length, date, owner and mode are those of `status`. Returns what each server said, by slot. Raises
    CodaError: EINVAL, a replica is not marked as in conflict (resolve first: that marks all); ETIMEDOUT.
    """
    found = await replica_statuses(core, fid, user, patience)
    if not all(one.vv.inconsistent for one in found.values()):
        raise CodaError(Code.EINVAL, f"not all replicas of {fid} are in conflict")
    versions = VersionVector()
    for one in found.values():
        versions = versions.maximum(one.vv)
    wanted = replace(status, vv=VersionVector(versions.versions))
    body = Repair(fid=fid, status=wanted, store_id=store_id).pack()
    async with core.updating:
        await core.flush_cop2(patience)
        call = Call(Repair.OPCODE, body, source=source, strict=True)
        answers = await update(core, core.members(), user, call, patience)
    slots = executed(answers)
    if slots:
        core.cop2.put(store_id, slots)
        await core.flush_cop2(patience)
    return {slot: answer.code for slot, answer in answers.items()}


async def clear(
    core: Core, fid: Fid, versions: Mapping[int, VersionVector], user: int, patience: Patience
) -> None:
    """Take the mark from replicas that are known to be equal, by slot (the tool `clearinc`).

    Raises CodaError if any server refuses.
    """
    replicas = [replica for replica in core.members() if replica.slot in versions]
    bodies = {}
    for replica in replicas:
        vv = versions[replica.slot]
        clean = vv.with_flags(vv.flags & ~VersionFlags.INCON)
        bodies[replica.slot] = SetVV(fid=Fid(replica.volume_id, *fid[1:]), vv=clean).pack()
    async with core.updating:
        await core.flush_cop2(patience)
        answers = await core.ask(Call(SetVV.OPCODE, b"", bodies, strict=True), user, patience, replicas)
    for answer in answers.values():
        if answer.code is not Code.SUCCESS:
            raise CodaError(answer.code, f"the mark of {fid}")
