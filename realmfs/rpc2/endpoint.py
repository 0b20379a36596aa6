"""The transport as a trio program: the one place where the state machines meet a socket and a clock.

    receiver task:  transport.receive ──▶ core.receive ──┐
    timer task:     sleep ──▶ core.handle_timers ────────┼─▶ _settle: wake callers, start handlers,
    callers:        link.call, bind, reply ... ──────────┘            send the outbox, move the alarm

A caller parks until its event comes: one wake-up per call, however many packets it took. A handler runs in
a task of its own, inside a cancel scope that ends with its connection.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf

import trio

from realmfs.rpc2.call import ClientLink
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.core import Core
from realmfs.rpc2.errors import BrokenTunnel, RpcError
from realmfs.rpc2.events import Accepted, Arrived, BindDone, CallDone, Event, Gone, Moved
from realmfs.rpc2.handlers import Handlers
from realmfs.rpc2.link import Link
from realmfs.rpc2.parameters import Limits, SftpParameters, Timers
from realmfs.rpc2.service import (
    Address,
    Credentials,
    LinkEstimate,
    Reply,
    Service,
    Transport,
    TunnelAddress,
)
from realmfs.rpc2.transfer import Sink, Source
from realmfs.rpc2.tunnel import Tunnel
from realmfs.rpc2.udp import UdpTransport, udp_transport

__all__ = ["Connection", "Endpoint", "UdpTransport", "udp_transport"]


class Connection:
    """The client's end of a binding. One call at a time; a second waits for the first."""

    def __init__(self, endpoint: Endpoint, link: ClientLink) -> None:
        self._endpoint = endpoint
        self._link = link
        self._turns = trio.lowlevel.ParkingLot()

    @property
    def peer(self) -> Address:
        """Where the server is; it may answer from another address than it was bound at."""
        return self._link.peer

    @property
    def usable(self) -> bool:
        """False after any RpcError, a fatal return code, a cancelled call or `close`."""
        return self._link.usable

    @property
    def told_busy(self) -> bool:
        """Whether the server has answered the call under way, or the last one, with BUSY."""
        return self._link.told_busy

    @property
    def ours(self) -> bool:
        """Whether the server runs realmfs, too: it said so, in a packet that only it can have sealed."""
        return self._link.ours

    async def call(
        self,
        opcode: int,
        body: bytes = b"",
        *,
        source: Source | None = None,
        sink: Sink | None = None,
        patience: float | None = None,
    ) -> Reply:
        """Call a procedure; at most one file moves along, from a source or into a sink.

        Without `patience` (seconds) a call lasts as long as the server says that it is busy. Raises
        RpcError for what the transport itself finds: TIMEOUT, DEAD, NAKED, SEFAIL1 to 4, NOCONNECTION (no
        longer usable).
        """
        give_up = inf if patience is None else trio.current_time() + patience
        link = self._link
        while link.calling:
            with trio.move_on_at(give_up):
                await self._turns.park()
            if trio.current_time() >= give_up:
                raise RpcError(Rpc2Code.TIMEOUT, "another call holds the connection")
        if not link.usable:
            raise RpcError(Rpc2Code.NOCONNECTION, "the connection has ended")
        link.check(body, moves_file=source is not None or sink is not None)
        link.call(opcode, body, source, sink, give_up, trio.current_time())
        try:
            reply = await self._endpoint.finished(link)
        finally:
            self._turns.unpark_all()
        assert isinstance(reply, Reply)
        return reply

    def close(self) -> None:
        """Forget the connection; nothing is sent. A call that is running fails with DEAD."""
        self._link.abandon(RpcError(Rpc2Code.DEAD, "the connection was closed"))
        self._endpoint.settle()


class Endpoint:
    """One address, client and server at once. All connections of both roles share its socket.

    `run` must be running before `bind`, and owns the transport: it closes it at its end.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        sftp: SftpParameters | None = None,
        timers: Timers | None = None,
        limits: Limits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._transport = transport
        self._handlers = Handlers(self)
        self._core = Core(sftp=sftp, timers=timers, limits=limits, rng=rng, policy=self._handlers.judge)
        self._parked: dict[Link, trio.lowlevel.Task] = {}
        self._results: dict[Link, object] = {}
        self._nursery: trio.Nursery | None = None
        self._alarm = trio.CancelScope()
        self._tunnels: dict[Address, Tunnel] = {}
        self._barred: set[Address] = set()

    @property
    def address(self) -> Address:
        """Where we are."""
        return self._transport.address

    # Life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry packets until cancelled; then whoever waits for a reply gets RpcError."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._receive_forever)
                self._nursery.start_soon(self._watch_the_clock)
                task_status.started()
        finally:
            self._nursery = None
            self._core.close()
            self.settle()
            self._transport.close()

    async def _receive_forever(self) -> None:
        while True:
            datagrams = await self._transport.receive()
            if self._barred:
                datagrams = [each for each in datagrams if each[1] not in self._barred]
            self._core.receive(datagrams, trio.current_time())
            self.settle()

    async def _watch_the_clock(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._core.hub.timers.next()) as self._alarm:
                await trio.sleep_forever()
            self._core.handle_timers(trio.current_time())
            self.settle()

    def settle(self) -> None:
        """Carry out what the machines have decided. Belongs after everything that was done to one."""
        hub = self._core.hub
        while hub.events:
            for event in self._core.take_events():
                self._react(event)
        outbox, hub.outbox = hub.outbox, []
        for peer, datagrams in outbox:
            hub.counters["packets_out"] += len(datagrams)
            hub.counters["bytes_out"] += sum(map(len, datagrams))
            self._send(datagrams, peer)
        next_time = hub.timers.next()
        if next_time < self._alarm.deadline:
            self._alarm.deadline = next_time

    def _send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        """Send the way that leads to a peer. What belongs into a tunnel that is gone goes nowhere."""
        tunnel = self._tunnels.get(peer)
        if tunnel is not None:
            tunnel.send(datagrams, peer)
        elif isinstance(peer, TunnelAddress) or peer in self._barred:
            self._core.hub.counters["kept_off_udp"] += len(datagrams)
        else:
            self._transport.send(datagrams, peer)

    def _react(self, event: Event) -> None:
        match event:
            case CallDone(link, result) | Moved(link, result):
                self._wake(link, result)
            case BindDone(binding, result):
                self._wake(binding, result)
            case Arrived():
                self._handlers.arrive(event)
            case Accepted(link):
                self._handlers.accept(link)
            case Gone(link):
                self._handlers.dismiss(link)

    # The client role

    async def bind(
        self,
        peer: Address,
        subsystem: int,
        credentials: Credentials,
        *,
        side_effects: bool = True,
        patience: float = 15.0,
    ) -> Connection:
        """Bind to a subsystem of a server.

        Raises RpcError: NOBINDING (no answer), WrongSecret (a kind of it), NOTAUTHENTICATED or another code
        of the server's, OLDVERSION (it speaks only the old handshake).
        """
        now = trio.current_time()
        binding = self._core.bind(
            peer, subsystem, credentials, side_effects=side_effects, give_up=now + patience, now=now
        )
        link = await self.finished(binding)
        assert isinstance(link, ClientLink)
        return Connection(self, link)

    async def finished(self, link: Link) -> object:
        """Park until the event of a link comes; raise what it brings, if it is an error.

        Being cancelled ends the link: its other end may be anywhere in the call.
        """
        if self._nursery is None:
            link.abandon(RpcError(Rpc2Code.DEAD, "the endpoint does not run"))
            self._core.take_events()
            raise RpcError(Rpc2Code.DEAD, "the endpoint does not run")
        self.settle()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._parked[link]
            link.abandon(RpcError(Rpc2Code.DEAD, "cancelled"))
            self._alarm.deadline = -inf  # to settle here could cancel the task that is just being cancelled
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked[link] = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        result = self._results.pop(link)
        if isinstance(result, RpcError):
            raise result
        return result

    def _wake(self, link: Link, result: object) -> None:
        task = self._parked.pop(link, None)
        if task is not None:
            self._results[link] = result
            trio.lowlevel.reschedule(task)

    # The server role

    def serve(self, subsystem: int, service: Service) -> None:
        """Accept binds to a subsystem; ANY_SUBSYSTEM takes all that have no service of their own."""
        self._handlers.add(subsystem, service)

    def start(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives at most as long as the endpoint."""
        if self._nursery is not None:
            self._nursery.start_soon(task, *args)

    # Both

    def statistics(self) -> Mapping[str, int]:
        """Return counters since the start, and how many connections there are now."""
        dropped = self._transport.dropped + sum(tunnel.dropped for tunnel in self._tunnels.values())
        now = {"connections": len(self._core.hub.links), "packets_dropped": dropped}
        return {**self._core.hub.counters, **now}

    def last_heard(self, peer: Address) -> float | None:
        """Return when an authentic packet last came from a peer, in trio time."""
        host = self._core.hub.known_host(peer)
        return None if host is None else host.last_heard

    def estimate(self, peer: Address) -> LinkEstimate:
        """Return what is known of the path to a peer."""
        host = self._core.hub.known_host(peer)
        return LinkEstimate(None, None, None) if host is None else host.estimate

    # Tunnels

    def start_tunnel(self, tunnel: Tunnel, ended: Callable[[str], None]) -> None:
        """Carry the packets of a tunnel from now on; `ended` learns how it broke, unless it was closed.

        Raises RpcError if the endpoint does not run.
        """
        if self._nursery is None:
            tunnel.close()
            raise RpcError(Rpc2Code.DEAD, "the endpoint does not run")
        self._tunnels[tunnel.peer] = tunnel
        self._nursery.start_soon(self.carry, tunnel, ended)

    async def carry(self, tunnel: Tunnel, ended: Callable[[str], None] = lambda reason: None) -> None:
        """Carry the packets of a tunnel until it breaks or is closed.

        While this runs its peer can be bound, and may bind to us. At the end `ended` is told how it broke;
        then all connections from and to the peer are dropped, and calls on them fail with DEAD.
        """
        self._tunnels[tunnel.peer] = tunnel
        try:
            with tunnel.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tunnel.write_forever)
                    while True:
                        self._core.receive(await tunnel.receive(), trio.current_time())
                        self.settle()
        except* BrokenTunnel as errors:
            ended(str(_first(errors)))
        finally:
            del self._tunnels[tunnel.peer]
            self.forget_peer(tunnel.peer)
            with trio.CancelScope(shield=True):
                await tunnel.aclose()

    def bar_from_udp(self, address: Address) -> None:
        """From now on send nothing to an address by UDP, and take nothing from it: it is for tunnels only."""
        self._barred.add(address)

    def forget_peer(self, peer: Address) -> None:
        """Drop every connection from and to a peer; calls on them fail with DEAD."""
        self._core.forget_peer(peer)
        self.settle()


def _first(errors: BaseExceptionGroup[BrokenTunnel]) -> BaseException:
    """Return the first error in nested groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
