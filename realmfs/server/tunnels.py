"""Clients that come through TLS: a listener on the TCP port beside each UDP socket of the file service.

Each tunnel is a client of its own, whose calls and callbacks go through it only. When it breaks the client is
forgotten at once, as if it had taken leave: nothing could be delivered to it any more, and no writer waits
for it. Strangers cost a bounded number of connections, and little time each.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self

import trio

from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import BrokenTunnel
from realmfs.rpc2.service import Address
from realmfs.rpc2.tunnel import accept_tunnel, tune
from realmfs.server.certificates import CertificateError, Certificates
from realmfs.server.database import StoreError

log = logging.getLogger(__name__)

MOST_TUNNELS: Final = 512
MOST_PER_HOST: Final = 64
HANDSHAKE_WITHIN: Final = 10.0
_LOOK_AGAIN: Final = 86400.0


class Host(Protocol):
    """What the file service does for tunnels."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the packets go."""

    def part(self, peer: Address) -> None:
        """Forget a client whose tunnel has ended."""


class Tunnels:
    """The listeners of one server, and the tunnels that came of them."""

    def __init__(self, listeners: Sequence[trio.SocketListener], certificates: Certificates) -> None:
        """Take listening sockets; `bind` opens them."""
        self._listeners = listeners
        self._certificates = certificates
        self._from: Counter[str] = Counter()

    @classmethod
    async def bind(cls, certificates: Certificates, address: Address, also_at: Sequence[str] = ()) -> Self:
        """Listen, at other addresses, too. Raises StoreError: the port is taken, there is no certificate."""
        certificates.context()
        first, port = address
        listeners: list[trio.SocketListener] = []
        for host in (first, *also_at):
            try:
                listeners += await trio.open_tcp_listeners(port, host=host)
            except OSError as error:
                cls(listeners, certificates).close()
                raise StoreError(f"cannot listen for TLS at {host}:{port}: {error.strerror}") from error
        return cls(listeners, certificates)

    def close(self) -> None:
        """Give the ports back, before `run`."""
        for listener in self._listeners:
            listener.socket.close()

    async def run(self, host: Host) -> None:
        """Take in clients until cancelled."""

        async def serve(stream: trio.SocketStream) -> None:
            await self._serve(stream, host)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._mind_the_certificate)
            await trio.serve_listeners(serve, list(self._listeners))

    async def _serve(self, stream: trio.SocketStream, host: Host) -> None:
        try:
            peer: str = stream.socket.getpeername()[0]
            context = self._certificates.context()
        except (OSError, CertificateError) as error:
            log.info("a client could not be taken in: %s", error)
            await trio.aclose_forcefully(stream)
            return
        if self._from.total() >= MOST_TUNNELS or self._from[peer] >= MOST_PER_HOST:
            log.info("%s has too many tunnels, or all have", peer)
            await trio.aclose_forcefully(stream)
            return
        self._from[peer] += 1
        try:
            await self._carry(stream, context, host)
        finally:
            self._from[peer] -= 1
            if not self._from[peer]:
                del self._from[peer]

    async def _carry(self, stream: trio.SocketStream, context: ssl.SSLContext, host: Host) -> None:
        tune(stream)
        try:
            tunnel = await accept_tunnel(stream, context, HANDSHAKE_WITHIN)
        except BrokenTunnel as error:
            log.info("no tunnel came of a connection: %s", error)
            return
        log.info("client %s:%d comes through %s", *tunnel.peer, tunnel.protection)
        try:
            await host.endpoint.carry(tunnel, _telling(tunnel.peer))
        finally:
            host.part(tunnel.peer)

    async def _mind_the_certificate(self) -> None:
        """Say every day that the certificate must be renewed, from when it is time."""
        file = self._certificates.certificate
        while True:
            try:
                certified = self._certificates.describe(file)
            except CertificateError as error:
                log.warning("%s", error)
            else:
                if certified.is_due(dt.datetime.now(dt.UTC)):
                    until = certified.until.date()
                    log.warning("%s ends on %s. Cure: realmfs admin certificates", file, until)
            await trio.sleep(_LOOK_AGAIN)


def _telling(peer: Address) -> Callable[[str], None]:
    def ended(reason: str) -> None:
        log.info("client %s:%d: %s", *peer, reason)

    return ended
