"""Servers with addresses in several networks: reached at the one that this client can reach.

Volume location tells one address of each server. Where servers have two networks, say one for clients and one
to replicate through, that address may be out of reach although the server is there at another: the one by
which the realms file or DNS names it to us. Which of the named servers it is shows from what it has, since
a replica's own id is known at its own server only.

    told C1 ── answers ──────────► C1
            └─ does not ─► R1, R2, R3: named, not told. Who has the root of the replica? ─► R2

Nobody is asked anything where all named servers are told, which is the rule; and servers nobody has met yet
are tried only where all told ones might have other addresses, for else it is likely that this client is on
their side.
"""

import logging
from collections.abc import Callable, Sequence

import trio

from realmfs.realms.server import Server, State
from realmfs.realms.types import ANYUSER
from realmfs.vice.calls import GetAttr
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid

log = logging.getLogger(__name__)

Place = tuple[int, int, str]
"""(slot, id of the replica, IPv4 address of its server)"""
TRIED_LATELY = 5.0
"""Seconds for which a server found dead is not tried again here."""
PATIENCE = 6.0


async def within_reach(
    places: Sequence[Place], server_at: Callable[[str], Server], named: Sequence[Server]
) -> list[Place]:
    """Return the places of a volume's replicas with addresses that answer, as far as there are any.

    Takes a few seconds at most, and none where every named server is a told one.
    """
    told = {host for _, _, host in places}
    others = [server for server in named if server.address[0] not in told]
    if not others:
        return list(places)
    disjoint = told.isdisjoint(server.address[0] for server in named)
    unmet = disjoint or len(others) >= len(told) > 1
    found = {place: place for place in places}

    async def find(place: Place) -> None:
        slot, volume, host = place
        if await _answers(server_at(host), unmet):
            return
        other = await _holder(volume, others)
        if other is not None:
            log.info("%s of realm %s does not answer, but is at %s, too", host, other.realm, other.address[0])
            found[place] = (slot, volume, other.address[0])

    with trio.move_on_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(find, place)
    return list(found.values())


async def _answers(server: Server, unmet: bool) -> bool:
    """Whether a server is there, or is believed to be; with `unmet` one not met yet is tried."""
    if server.state is State.UNKNOWN:
        return not unmet or await server.reach()
    if server.state is State.DOWN and trio.current_time() - server.since >= TRIED_LATELY:
        return await server.reach()
    return server.state is State.UP


async def _holder(volume: int, servers: Sequence[Server]) -> Server | None:
    """Return the server that has this replica."""
    body = GetAttr(fid=Fid(volume, 1, 1)).pack()
    found: list[Server] = []

    async def ask(server: Server) -> None:
        answer = await server.call(ANYUSER, GetAttr.OPCODE, body)
        if answer.heard and answer.code in (Code.SUCCESS, Code.EACCES):
            found.append(server)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for server in servers:
            if server.available:
                nursery.start_soon(ask, server)
    return found[0] if found else None
