"""A tunnel: the packets of one client and one server inside TLS over TCP (sftp.md Part II).

    endpoint ──send──▶ queue of frames ──writer──▶ TLS, one record a frame ──▶ stream
    endpoint ◀──receive── packets ◀── frames ◀── TLS ◀─────────────────────── stream

The packets are the same as on UDP, sealed and all, and so is what happens when one is lost; only that here
none is, until all are. A tunnel is its own client to the server: it has a port of its own, hence promises and
a callback connection of its own, and when it breaks all of that is void. `Endpoint.carry` sees to it: the
peer is a `TunnelAddress`, which no later tunnel has again.

What waits in the queue is not yet encrypted, so it can still be dropped when there is too much: a TLS stream
cannot lose a record and go on. The writer takes all that is there at once, so a burst becomes one write; the
reference loses its session when more than ten small pieces wait for it (sftp.md §17).
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import trio

from realmfs.rpc2.errors import BadPacket, BrokenTunnel
from realmfs.rpc2.frames import Deframer, frame
from realmfs.rpc2.service import Address, TunnelAddress
from realmfs.rpc2.tls import Tls

log = logging.getLogger(__name__)

MOST_QUEUED = 1 << 20
"""Bytes that may wait to be sent; a window of every connection fits in."""
LONGEST_WRITE = 1 << 18
_CHUNK = 1 << 18
_DEAD_AFTER_MS = 15_000
"""TCP gives up when what was sent stays unacknowledged for so long; the calls inside gave up before."""
_TCP_USER_TIMEOUT = 18


class Tunnel:
    """A `Transport` with a single peer. Made by `open_tunnel` and `accept_tunnel`."""

    def __init__(self, stream: trio.abc.Stream, tls: Tls, peer: TunnelAddress, address: Address) -> None:
        self.peer = peer
        self.dropped = 0
        self._stream = stream
        self._tls = tls
        self._address = address
        self._deframer = Deframer()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._writer = trio.lowlevel.ParkingLot()
        self.scope = trio.CancelScope()
        """What the endpoint carries this tunnel in; `close` cancels it."""
        self._closed = False

    @property
    def address(self) -> Address:
        """Our own end."""
        return self._address

    @property
    def protection(self) -> str:
        """The version of TLS and the cipher, for people."""
        return self._tls.text

    # the handshake

    async def shake_hands(self, names: Sequence[str] = ()) -> None:
        """Make the session; with `names`, with one of these only. Raises BadCertificate, BrokenTunnel."""
        data = b""
        while True:
            try:
                made = self._tls.shake_hands(data)
                if made and names:
                    self._tls.check_name(names)
            except BrokenTunnel:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError, BrokenTunnel):
                    await self._stream.send_all(self._tls.seal(()))  # tells the peer why
                raise
            await self._write(())
            if made:
                return
            data = await self._read()

    # Transport

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """Wait for packets and return all that are there. Raises BrokenTunnel at the end."""
        while True:
            pieces = self._tls.receive(await self._read())
            if self._tls.pending:
                self._writer.unpark_all()
            try:
                packets = self._deframer.feed(b"".join(pieces))
            except BadPacket as error:
                raise BrokenTunnel(str(error)) from None
            if packets:
                return [(packet, self.peer) for packet in packets]

    def send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        """Put packets into the queue; what does not fit is dropped, as a full socket would."""
        for datagram in datagrams:
            if self._closed or self._queued > MOST_QUEUED:
                self.dropped += 1
            else:
                piece = frame(datagram)
                self._queue.append(piece)
                self._queued += len(piece)
        self._writer.unpark_all()

    def close(self) -> None:
        """Take nothing more, and let the endpoint end it."""
        self._closed = True
        self.scope.cancel()
        self._queue.clear()
        self._queued = 0

    # tasks

    async def write_forever(self) -> None:
        """Send what is in the queue. Raises BrokenTunnel."""
        while True:
            while not self._queue and not self._tls.pending:
                await self._writer.park()
            burst, size = [], 0
            while self._queue and size < LONGEST_WRITE:
                piece = self._queue.popleft()
                burst.append(piece)
                size += len(piece)
            self._queued -= size
            await self._write(burst)

    async def aclose(self) -> None:
        """Close the stream at once."""
        self.close()
        await trio.aclose_forcefully(self._stream)

    async def _write(self, frames: Sequence[bytes]) -> None:
        data = self._tls.seal(frames)
        if not data:
            return
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise BrokenTunnel(f"the tunnel broke: {_cause(error)}") from None

    async def _read(self) -> bytes:
        try:
            data = await self._stream.receive_some(_CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise BrokenTunnel(f"the tunnel broke: {_cause(error)}") from None
        if not data:
            raise BrokenTunnel("the other end closed the tunnel")
        return bytes(data)


async def connect_tcp(address: Address) -> trio.abc.Stream:
    """Connect to the port of a server. Raises OSError."""
    stream = await trio.open_tcp_stream(*address)
    tune(stream)
    return stream


def tune(stream: trio.SocketStream) -> None:
    """Have a dead path noticed; what else matters, no delay, trio has set."""
    with suppress(OSError):
        stream.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, _DEAD_AFTER_MS)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def open_tunnel(
    stream: trio.abc.Stream, address: Address, context: ssl.SSLContext, names: Sequence[str], *, sni: str = ""
) -> Tunnel:
    """Make a tunnel to a server over a connected stream; its certificate must be for one of `names`.

    Raises BadCertificate, BrokenTunnel; the stream is closed then.
    """
    tunnel = Tunnel(
        stream, Tls(context, server_side=False, name=sni), TunnelAddress(address), _own_address(stream)
    )
    try:
        await tunnel.shake_hands(names)
    except BaseException:
        await tunnel.aclose()
        raise
    return tunnel


async def accept_tunnel(stream: trio.abc.Stream, context: ssl.SSLContext, patience: float) -> Tunnel:
    """Make a tunnel to a client that has connected. Raises BrokenTunnel; the stream is closed then."""
    tunnel = Tunnel(
        stream, Tls(context, server_side=True), TunnelAddress(_peer_address(stream)), _own_address(stream)
    )
    try:
        with trio.fail_after(patience):
            await tunnel.shake_hands()
    except trio.TooSlowError:
        await tunnel.aclose()
        raise BrokenTunnel("the client did not finish the TLS handshake") from None
    except BaseException:
        await tunnel.aclose()
        raise
    return tunnel


def _own_address(stream: trio.abc.Stream) -> Address:
    if not isinstance(stream, trio.SocketStream):
        return ("0.0.0.0", 0)
    host, port = stream.socket.getsockname()[:2]
    return str(host), int(port)


def _peer_address(stream: trio.abc.Stream) -> Address:
    if not isinstance(stream, trio.SocketStream):
        return ("0.0.0.0", 0)
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError as error:
        raise BrokenTunnel(f"the client is gone: {error.strerror}") from None
    return str(host), int(port)


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or "the connection was lost"
