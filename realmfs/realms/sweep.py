"""Many small objects at once, at a fraction of the calls that asking for each would take.

A status, or the contents of a small file, rests on the versions of all servers of the group (vice.md §6.3).
Asked for one by one that is a call per object and server, and on a near network such calls cost more
processor time, here and there, than anything else. So in a sweep one server, the primary, is asked for each
object, and the others are asked once for all:

    primary    GetAttr or FetchPartial, object by object     status, contents, promise
    others     ValidateAttrs with the versions so learnt     fifty in a call: "mine too, and I promise"

What not all servers up confirm, and what fails in any way, is left out: whoever wants it asks the group in
the ordinary way, which knows what to do about disagreement. Nothing is resolved here and nobody is judged.

On far servers waiting counts, not work, and the second round would add to it: there `worthwhile` says no.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from realmfs.realms.core import Core
from realmfs.realms.reading import parse
from realmfs.realms.round import Call, Patience
from realmfs.realms.server import Answer, Server
from realmfs.realms.types import Attributes
from realmfs.realms.volume import Replica
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.vice.calls import MAX_PIGGIES, FetchPartial, GetAttr, ValidateAttrs
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, FidAndVector, ObjectType, Order, Status

log = logging.getLogger(__name__)

NEAR = 0.004
"""Seconds of distance up to which a sweep is worthwhile."""
LANES = 3
"""Objects asked for at the same time: neither end shall wait for the other."""
LIMIT = MAX_PIGGIES + 1
"""Objects in one sweep at most."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object as the whole group has it; `data` is None if only the status was asked for."""

    attributes: Attributes
    data: bytes | None


@dataclass(frozen=True, slots=True)
class _Told:
    """What the primary said of one object."""

    status: Status
    data: bytes | None
    answer: Answer


def worthwhile(core: Core) -> bool:
    """Tell whether the servers are near, met already, and know the calls."""
    servers = [replica.server for replica in core.replicas if replica.server.available]
    near = all(server.distance is not None and server.distance <= NEAR for server in servers)
    return near and not core.inspecting and all(server.fetches_partially for server in servers)


async def sweep(
    core: Core, fids: Sequence[Fid], user: int, limit: int | None, patience: Patience
) -> dict[Fid, Found]:
    """Return what could be learnt of at most `LIMIT` objects of the volume.

    Each comes with its contents if those are at most `limit` bytes; `limit` None: status only. Raises
    CodaError ETIMEDOUT if no server is there.
    """
    await core.flush_cop2(patience)  # it must not wait behind calls to single servers
    members = core.members()
    primary = core.primary_of([replica.slot for replica in members])
    asked = next(replica for replica in members if replica.slot == primary)
    others = [replica for replica in members if replica.slot != primary]
    told: dict[Fid, _Told] = {}
    waiting = iter(fids)

    async def lane() -> None:
        for fid in waiting:
            answer = await _ask_primary(asked.server, fid, user, limit, told)
            if not answer.heard and not asked.server.available:
                break

    with patience.scope():
        async with trio.open_nursery() as nursery:
            for _ in range(min(LANES, (len(fids) + 1) // 2)):
                nursery.start_soon(lane)
    if not told:
        return {}
    confirmed, stands = await _confirm(core, others, told, user, patience)
    result = {}
    for fid in confirmed:
        one = told[fid]
        promised = stands and one.status.callback and asked.server.promise_stands(one.answer)
        result[fid] = Found(Attributes(one.status, promised), one.data)
    if stands and result:
        for replica in members:
            replica.server.gave_promise()
    return result


async def _ask_primary(
    server: Server, fid: Fid, user: int, limit: int | None, told: dict[Fid, _Told]
) -> Answer:
    """Ask for one object; put what counts into `told`."""
    sink = None if limit is None else BytesSink(limit)
    request = GetAttr(fid=fid) if sink is None else FetchPartial(fid=fid)
    answer = await server.call(user, request.OPCODE, request.pack(), sink=sink)
    if answer.code is not Code.SUCCESS:
        return answer
    try:
        reply = (GetAttr.Reply if sink is None else FetchPartial.Reply).unpack(answer.body)
    except BadPacket as error:
        log.info("%s sent a senseless reply: %s", server, error)
        return answer
    status = reply.status
    fits = sink is None or sink.size == status.length
    if fits and (status.type is ObjectType.DIRECTORY) == fid.is_directory:
        told[fid] = _Told(status, None if sink is None else bytes(sink.data), answer)
    return answer


async def _confirm(
    core: Core, others: Sequence[Replica], told: Mapping[Fid, _Told], user: int, patience: Patience
) -> tuple[list[Fid], bool]:
    """Ask the other servers for the versions; return what all have, and whether their promises stand."""
    fids = sorted(told)
    if not others:
        return fids, True
    first, *rest = [FidAndVector(fid, told[fid].status.vv) for fid in fids]
    body = ValidateAttrs(primary=first.fid, piggies=tuple(rest)).pack()
    answers = await core.ask(Call(ValidateAttrs.OPCODE, body), user, patience, others)
    replies = parse(core, answers, ValidateAttrs.Reply)
    if len(replies) != len(others):
        return [], False
    confirmed = []
    if all(reply.status.vv.compare(first.vv) is Order.EQUAL for reply in replies.values()):
        confirmed.append(first.fid)
    for place, other in enumerate(rest):
        if all(reply.flags[place : place + 1] == b"\1" for reply in replies.values()):
            confirmed.append(other.fid)
    stands = all(
        reply.status.callback and core.servers[slot].promise_stands(answers[slot])
        for slot, reply in replies.items()
    )
    return confirmed, stands
