"""The server role as tasks: welcoming clients, one handler per request, and the end of both with the client.

A handler runs in a cancel scope of its client: when the connection goes, so does the handler. Whatever it
raises is logged and answered with FAIL; nothing a service does can stop the endpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.events import Arrived
from realmfs.rpc2.link import Link
from realmfs.rpc2.reception import Verdict
from realmfs.rpc2.serve import ServerLink
from realmfs.rpc2.service import ANY_SUBSYSTEM, Address, BindOffer, Reply, Request, ServerConnection, Service
from realmfs.rpc2.transfer import Sink, Source

log = logging.getLogger(__name__)


class Ground(Protocol):
    """What the endpoint does for handlers."""

    def settle(self) -> None:
        """Carry out what the machines have decided."""

    async def finished(self, link: Link) -> object:
        """Park until the event of a link comes."""

    def start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives at most as long as the endpoint."""


class Client(ServerConnection):
    """A client that is bound to us, as its service sees it."""

    def __init__(self, ground: Ground, link: ServerLink, service: Service) -> None:
        self.data: Any = None
        self.link = link
        self.service = service
        self.scope = trio.CancelScope()
        """Of the handler that is running."""
        self.welcome = False
        self.gone = False
        self._ground = ground

    @property
    def peer(self) -> Address:
        """Where the client is now."""
        return self.link.peer

    @property
    def offer(self) -> BindOffer:
        """What it said when it was bound."""
        return self.link.offer

    def close(self) -> None:
        """Forget the client; a request that is running is cancelled."""
        self.link.close()
        self._ground.settle()


class ServedRequest(Request):
    """A call that waits for its reply."""

    def __init__(self, ground: Ground, link: ServerLink, opcode: int, body: bytes) -> None:
        self._ground = ground
        self._link = link
        self._opcode = opcode
        self._body = body

    @property
    def opcode(self) -> int:
        """The operation number."""
        return self._opcode

    @property
    def body(self) -> bytes:
        """The parameters, without piggybacked data."""
        return self._body

    async def receive(self, sink: Sink, limit: int) -> int:
        """Take a file of at most `limit` bytes from the client; returns its size."""
        moved = self._link.receive_file(sink, limit, trio.current_time())
        return await self._outcome(moved)

    async def send(self, source: Source) -> None:
        """Send a file to the client."""
        await self._outcome(self._link.send_file(source, trio.current_time()))

    async def _outcome(self, moved: int | None) -> int:
        if moved is not None:
            await trio.lowlevel.checkpoint()
            return moved
        result = await self._ground.finished(self._link)
        assert isinstance(result, int)
        return result


class Handlers:
    """All services of an endpoint, and the clients of each."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._services: dict[int, Service] = {}
        self._clients: dict[ServerLink, Client] = {}

    def add(self, subsystem: int, service: Service) -> None:
        """Serve a subsystem."""
        self._services[subsystem] = service

    def judge(self, offer: BindOffer) -> bytes | Verdict:
        """Ask the service of a subsystem for the secret that it shares with a client."""
        service = self._service(offer.subsystem)
        if service is None:
            return Verdict.NOBODY
        try:
            secret = service.secret(offer)
        except Exception:
            log.exception("a service failed to judge a bind from %s:%d", *offer.peer)
            return Verdict.REFUSED
        return Verdict.REFUSED if secret is None else secret

    def accept(self, link: ServerLink) -> None:
        """Begin to serve a client."""
        service = self._service(link.offer.subsystem)
        if service is None:
            link.close()
            return
        client = self._clients[link] = Client(self._ground, link, service)
        self._ground.start(self._welcome, client)

    def arrive(self, event: Arrived) -> None:
        """Begin to serve a request."""
        client = self._clients[event.link]
        self._ground.start(
            self._serve, client, ServedRequest(self._ground, event.link, event.opcode, event.body)
        )

    def dismiss(self, link: ServerLink) -> None:
        """End what still runs for a client that is gone, and tell its service."""
        client = self._clients.pop(link, None)
        if client is None:
            return
        client.gone = True
        client.scope.cancel()
        if client.welcome:
            self._farewell(client)

    def _service(self, subsystem: int) -> Service | None:
        return self._services.get(subsystem) or self._services.get(ANY_SUBSYSTEM)

    def _farewell(self, client: Client) -> None:
        try:
            client.service.closed(client)
        except Exception:
            log.exception("a service failed to part from %s:%d", *client.peer)

    async def _welcome(self, client: Client) -> None:
        try:
            with client.scope:
                await client.service.connected(client)
                client.welcome = True
        except Exception:
            log.exception("a service failed to welcome %s:%d", *client.peer)
            client.close()
            return
        if not client.welcome:
            return
        if client.gone:  # but the service did not notice
            self._farewell(client)
            return
        client.link.enable(trio.current_time())
        self._ground.settle()

    async def _serve(self, client: Client, request: ServedRequest) -> None:
        reply: Reply | None = None
        with trio.CancelScope() as client.scope:
            if not client.gone:
                reply = await self._answer(client, request)
        if reply is not None and not client.gone:
            client.link.reply(reply.code, reply.body, trio.current_time())
            self._ground.settle()

    async def _answer(self, client: Client, request: ServedRequest) -> Reply:
        """Return what the handler says, or what stands for its failure."""
        where = "operation %d for %s:%d"
        try:
            return await client.service.call(client, request)
        except BadPacket as error:
            log.info("cannot read the parameters of " + where + ": %s", request.opcode, *client.peer, error)
            return Reply(Rpc2Code.BADDATA)
        except RpcError as error:
            log.info(where + " failed: %s", request.opcode, *client.peer, error)
            return Reply(error.code)
        except Exception:
            log.exception(where + " failed", request.opcode, *client.peer)
            return Reply(Rpc2Code.FAIL)
