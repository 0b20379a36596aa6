"""The service that servers call: promises broken, contents fetched back (vice.md §4.2).

Servers connect to the port that our calls come from. They are told apart by the address and port they
connect from; a machine that serves two realms is a server in each, and both are told.
"""

import logging
from collections.abc import Callable, Sequence

from realmfs.realms.context import Context
from realmfs.realms.server import Server
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.service import Address, BindOffer, Reply, Request, ServerConnection
from realmfs.vice.callbacks import CallBack, CallBackFetch
from realmfs.vice.errors import CodaError, Code

log = logging.getLogger(__name__)


class CallbackService:
    """Subsystem 127823. `find` returns the servers at an address."""

    def __init__(self, context: Context, find: Callable[[Address], Sequence[Server]]) -> None:
        self._context = context
        self._find = find

    def secret(self, offer: BindOffer) -> bytes | None:
        """Accept everybody, as nobody: servers do not say who they are."""
        return bytes(8)

    async def connected(self, connection: ServerConnection) -> None:
        """CallBackConnect: the server is up, and may have been down without our noticing."""
        servers = [server for server in self._find(connection.peer) if server.online]
        for server in servers:
            server.callback_connected(connection)
        if not servers:
            connection.close()

    def closed(self, connection: ServerConnection) -> None:
        """Forget the connection."""
        for server in self._find(connection.peer):
            server.callback_closed(connection)

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        """Serve one call. A stranger's is refused; it may mean a previous client at this port."""
        servers = self._find(connection.peer)
        if not servers:
            return Reply(Rpc2Code.NOTCLIENT, b"")
        try:
            if request.opcode == CallBack.OPCODE:
                return self._broken(servers, CallBack.unpack(request.body))
            if request.opcode == CallBackFetch.OPCODE:
                return await self._fetched_back(servers, CallBackFetch.unpack(request.body), request)
        except BadPacket as error:
            log.info("a senseless callback from %s: %s", connection.peer, error)
            return Reply(Code.EINVAL, b"")
        return Reply(Rpc2Code.INVALIDOPCODE, b"")

    def _broken(self, servers: Sequence[Server], callback: CallBack) -> Reply:
        probe = callback.fid.volume == 0
        if not probe:
            self._context.promise_broken(callback.fid)
        for server in servers:
            server.callback_heard(callback.fid)
            if not probe:
                self._context.listener.callback_broken(server, callback.fid)
        return Reply(Code.SUCCESS, b"")

    async def _fetched_back(self, servers: Sequence[Server], fetch: CallBackFetch, request: Request) -> Reply:
        error = CodaError(Code.ENOENT)
        for server in servers:
            try:
                source = self._context.listener.back_fetch(server, fetch.fid)
            except CodaError as reason:
                error = reason
                continue
            server.order.taken(fetch.fid.volume)
            await request.send(source)
            return Reply(Code.SUCCESS, b"")
        log.info("cannot send the contents of %s: %s", fetch.fid, error)
        return Reply(error.code, b"")
