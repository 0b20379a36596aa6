"""Probing servers.

One task looks at all of them, and each probe is a task of its own, so none delays another.
"""

import logging
from collections.abc import Iterable
from functools import partial

import trio

from realmfs.realms.context import Context
from realmfs.realms.server import Server, State
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.codes import Rpc2Code
from realmfs.vice.calls import GetTime
from realmfs.vice.errors import Code

log = logging.getLogger(__name__)

TICK = 0.25


async def probe(server: Server) -> bool:
    """Find out whether a server is there, and whether it can reach us; a few seconds at most.

    One that is up is asked for the time, and must call back meanwhile (vice.md §4.3); any other is bound.
    """
    link = server.links.take(ANYUSER, None) if server.state is State.UP else None
    if link is None:
        return await server.reach()
    back_probes, epoch = server.back_probes, server.epoch
    code = int(Rpc2Code.TIMEOUT)
    try:
        with trio.move_on_after(server.contact_time):
            code, _ = await link.call(GetTime.OPCODE, GetTime().pack())
    finally:
        server.links.release(link)
    if code in (Code.ENOTCONN, Code.EPIPE):
        server.forgot_us()
    if code != 0:
        return await server.reach()
    if server.promised and server.back_probes == back_probes and server.epoch == epoch:
        log.info("%s of %s did not probe back: its promises are void", server, server.realm)
        server.void_promises()
    return True


class Prober:
    """Probes the servers that are due and checks the silent ones."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def look(self, servers: Iterable[Server]) -> None:
        """Start what is to be done now."""
        now = trio.current_time()
        for server in servers:
            if not server.online:
                continue
            if server.probes.is_due(now) and not self._context.background(
                ("probe", server), partial(self._probe, server)
            ):
                server.probes.now()  # one that began earlier says nothing about now
            if server.probes.is_silent(now):
                self._context.background(("probe", server), partial(self._check, server))

    async def _probe(self, server: Server) -> None:
        await probe(server)

    async def _check(self, server: Server) -> None:
        log.debug("%s is silent: is it there, and does it know us?", server)
        await server.reach()
