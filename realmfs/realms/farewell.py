"""Taking leave after a crash: in the name of the client that we were (vice.md §2.2, §2.4).

A client that just vanishes leaves promises behind, and whoever first changes what was promised waits until
the server has given it up. So each run notes its port on disk, and crosses it out when it has left properly.
A run that finds a port there was preceded by a crash. From that port, once, each server is bound and told
TokenExpired: it then forgets all that it had promised there, without waiting for anybody. Nothing else is
said from the old port: an introduction would make the server probe a callback connection that nobody serves
any more. The run itself has a port of its own from the beginning.
"""

import logging
from collections.abc import Iterable

import trio

from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import ANONYMOUS, Address, Transport
from realmfs.vice.calls import TokenExpired
from realmfs.vice.types import FILE_SUBSYSTEM

log = logging.getLogger(__name__)

WITHIN = 5.0
ANSWER = 3.0
MOST = 64


async def say_farewell(transport: Transport, servers: Iterable[Address]) -> int:
    """Take leave of servers from an old port; WITHIN seconds at most. Returns how many have taken note."""
    endpoint, told = Endpoint(transport), 0

    async def one(server: Address) -> None:
        nonlocal told
        try:
            connection = await endpoint.bind(server, FILE_SUBSYSTEM, ANONYMOUS, patience=ANSWER)
            await connection.call(TokenExpired.OPCODE, TokenExpired().pack(), patience=ANSWER)
        except RpcError as error:
            log.info("no leave taken of %s:%d after the crash: %s", *server, error)
        else:
            told += 1

    with trio.move_on_after(WITHIN):
        async with trio.open_nursery() as running:
            await running.start(endpoint.run)
            async with trio.open_nursery() as nursery:
                for server in list(servers)[:MOST]:
                    nursery.start_soon(one, server)
            running.cancel_scope.cancel()
    return told
