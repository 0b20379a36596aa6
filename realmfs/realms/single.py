"""Fetching small objects from one server each, for whoever then has many of them checked at once.

`Group.fetch` asks every server about every object, so that it may be used at once. Where hundreds of small
objects are wanted it is cheaper to take each from one server, a different one each time, and to have the
versions that came validated by the whole group, up to fifty in one call (`Group.validate`): for three servers
that is 1.06 calls for an object instead of 3. What is fetched here *must not be used before* that: a single
replica may be old (promise 5 of the design).
"""

from realmfs.realms.core import Core
from realmfs.realms.reading import parse
from realmfs.realms.round import Call, Patience
from realmfs.realms.server import State
from realmfs.realms.volume import Replica
from realmfs.rpc2.transfer import Sink
from realmfs.vice.calls import Fetch, FetchPartial
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType, Status, VersionVector

NEAR = 2.0
"""A server that needs so much longer than the fastest is left out."""


def sources(core: Core) -> list[Replica]:
    """Return the servers worth fetching from. Raises CodaError ETIMEDOUT if none is up."""
    up = [replica for replica in core.members() if replica.server.state is State.UP] or core.members()
    times = {replica.slot: replica.server.round_trip or 0.0 for replica in up}
    best = min(times.values())
    return [replica for replica in up if times[replica.slot] <= NEAR * best + 0.002]


async def fetch_one(
    core: Core, replica: Replica, fid: Fid, user: int, sink: Sink, patience: Patience
) -> Status:
    """Fetch a whole object from one server; return the status it has there, checked by nobody.

    Raises CodaError, also for what the group as a whole could still do: then ask the group.
    """
    whole = Fetch if core.servers[replica.slot].fetches_partially is False else FetchPartial
    body = whole(fid=fid, vv=VersionVector(), primary_host=0).pack()
    answers = await core.ask(Call(whole.OPCODE, body, sinks={replica.slot: sink}), user, patience, [replica])
    replies = parse(core, answers, FetchPartial.Reply)
    answer = answers[replica.slot]
    if answer.code is not Code.SUCCESS:
        raise CodaError(answer.code)
    status = replies[replica.slot].status
    if fid.is_directory != (status.type is ObjectType.DIRECTORY):
        raise CodaError(Code.EIO, f"{core.servers[replica.slot]} calls {fid} a {status.type.name}")
    return status
