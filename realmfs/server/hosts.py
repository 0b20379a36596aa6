"""The clients of a file server: how to call them back, and what they were promised (vice.md §2, §4).

A client is a *host*: an address and port, whatever users sit there. It has

* sessions: connections that it made to us, each with the identity of one user;
* a channel: the connection that we made to its callback service when it introduced itself;
* promises: fids, as the client named them, of objects and (vnode and unique 0) whole volumes.

    first bind ──> no channel ──NewConnectFS──> channel ──callback fails, token expires, it leaves──> dropped
                   no promises                  promises                                      answers NAKED

Invariant: whoever holds a promise has a channel, so no break is ever silently lost: a break that cannot be
delivered drops the host, and its next call is answered NAKED, which tells the client that all promises are
gone.

Races. A change is committed first, then the promises of all other hosts are taken from the table and broken,
then the change is acknowledged. A client that asks between commit and break sees the new state and may get a
new promise together with the break of the old one; it must count breaks to see that (vice.md §4.2). One lock
per host keeps calls on the channel in order; waiting for it is not counted against the host, since it may be
handing us a file (CallBackFetch).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import ANONYMOUS, Address, ServerConnection
from realmfs.rpc2.transfer import Sink
from realmfs.server.volumes import Volume
from realmfs.vice.callbacks import CallBack, CallBackFetch
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import CALLBACK_SUBSYSTEM, Fid

log = logging.getLogger(__name__)

MAX_HOSTS: Final = 1000
MAX_PROMISES: Final = 200_000
"""Promises that one host may hold; beyond them it is told that it has none."""
PATIENCE: Final = 3.0
"""Seconds that a host has to answer a break or a probe.

Then it is dropped, so that the next writer need not wait for it.
"""
FETCH_PATIENCE: Final = 10.0
"""Seconds that a back-fetched file may make no progress."""
PROBE_INTERVAL: Final = 240.0
SILENCE: Final = 300.0
"""Hosts not heard for so many seconds are probed (vice.md §4.3)."""

_NULL = Fid.zero()


@dataclass(eq=False, slots=True)
class Session:
    """A connection that a client made, and as whom."""

    connection: ServerConnection
    host: Host
    user: int | None
    """Vice id by the token; None of an anonymous connection."""
    expires: float
    """Unix time after which the token is worthless."""


@dataclass(eq=False, slots=True)
class Host:
    """A client."""

    peer: Address
    channel: Connection | None = None
    sessions: dict[Session, None] = field(default_factory=dict)
    promises: set[Fid] = field(default_factory=set)
    lock: trio.Lock = field(default_factory=trio.Lock)

    @property
    def can_promise(self) -> bool:
        """Whether a promise given to this host could be kept, and it has room for one more."""
        return self.channel is not None and len(self.promises) < MAX_PROMISES

    def __str__(self) -> str:
        return f"{self.peer[0]}:{self.peer[1]}"


class Hosts:
    """All clients of a server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._hosts: dict[Address, Host] = {}
        self._holders: dict[Fid, dict[Host, None]] = {}  # in the order in which they asked
        self.breaks = 0
        """Promises broken since the start."""

    async def run(self) -> None:
        """Probe silent hosts, for ever."""
        while True:
            await trio.sleep(PROBE_INTERVAL)
            await self._probe_silent()

    def all(self) -> list[Host]:
        """Return the clients that are known."""
        return list(self._hosts.values())

    def knows(self, host: Host) -> bool:
        """Whether the host has not been dropped."""
        return self._hosts.get(host.peer) is host

    def enter(self, session_of: ServerConnection, user: int | None, expires: float) -> Session:
        """Note a connection that a client has made."""
        host = self._hosts.get(session_of.peer)
        if host is None:
            host = self._hosts[session_of.peer] = Host(session_of.peer)
            if len(self._hosts) > MAX_HOSTS:
                self.drop(
                    min(self._hosts.values(), key=self._heard), "too many clients; it was silent longest"
                )
        session = Session(session_of, host, user, expires)
        host.sessions[session] = None
        return session

    def leave(self, session: Session) -> None:
        """Note that a connection is gone. Promises and channel outlive the last one (vice.md §2.4)."""
        host = session.host
        host.sessions.pop(session, None)
        if not host.sessions and host.channel is None and self.knows(host):
            del self._hosts[host.peer]

    async def connect(self, host: Host) -> None:
        """Make sure that the host can be called back: probe its channel, or build one.

        Raises CodaError EPIPE.
        """
        async with host.lock:
            if host.channel is not None and await self._probe(host):
                return
            self._forget_promises(host)
            if host.channel is not None:
                host.channel.close()
                host.channel = None
            with trio.move_on_after(2 * PATIENCE):
                if await self._build_channel(host):
                    return
        self.drop(host, "it cannot be called back")
        raise CodaError(Code.EPIPE, f"client {host} cannot be called back")

    def promise(self, host: Host, fid: Fid) -> bool:
        """Promise the host to call back before the object, or volume, changes.

        False if that cannot be promised.
        """
        if fid not in host.promises:
            if not host.can_promise:
                return False
            host.promises.add(fid)
            self._holders.setdefault(fid, {})[host] = None
        return host.channel is not None

    async def break_promises(self, volume: Volume, changed: Iterable[Fid], origin: Host | None) -> None:
        """Tell all hosts but `origin` that objects have changed; return when each was told, or dropped.

        `changed` are fids under the replica's id, in the order of the changes. Per object the order is that
        of vice.md §4.1: object and volume under the replica's id, then under the replicated one; who is told
        of an object is not told of its volume as well, but loses that promise too.
        """
        notices: dict[Host, list[Fid]] = {}
        for fid in changed:
            for form in (volume.id, volume.group_id):
                whole = Fid(form, 0, 0)
                for host in self._take(fid.in_volume(form), origin):
                    notices.setdefault(host, []).append(fid.in_volume(form))
                    self._withdraw(host, whole)
                for host in self._take(whole, origin):
                    notices.setdefault(host, []).append(whole)
        await self._notify_all(notices)

    async def break_everything(self) -> None:
        """Break all promises: something changed, nobody knows what. One message per volume id and host."""
        notices = {}
        for host in self.all():
            volumes = sorted({fid.volume for fid in host.promises})
            if volumes:
                notices[host] = [fid for fid in sorted(host.promises) if fid.vnode] + [
                    Fid(v, 0, 0) for v in volumes
                ]
            self._forget_promises(host)
        await self._notify_all(notices)

    async def fetch_back(self, host: Host, fid: Fid, sink: Sink) -> None:
        """Pull the contents of a store from the client.

        Raises CodaError; a transport failure also drops the host.
        """
        async with host.lock:
            if host.channel is None:
                raise CodaError(Code.EPIPE, f"client {host} has no callback channel")
            try:
                with trio.move_on_after(FETCH_PATIENCE) as scope:
                    body = CallBackFetch(fid=fid).pack()
                    reply = await host.channel.call(CallBackFetch.OPCODE, body, sink=_Watched(sink, scope))
                if scope.cancelled_caught:
                    raise RpcError(Rpc2Code.TIMEOUT)
            except RpcError as error:
                self.drop(host, f"it did not hand over {fid}: {error}")
                raise CodaError(Code.EIO, f"client {host} did not hand over {fid}") from error
        if reply.code:
            raise CodaError(
                reply.code if reply.code > 0 else Code.EIO, f"client {host} has no contents for {fid}"
            )

    def lost(self, peer: Address) -> None:
        """Forget the host at an address, if there is one: the way to it is gone."""
        host = self._hosts.get(peer)
        if host is not None:
            self.drop(host, "its tunnel has ended")

    def drop(self, host: Host, reason: str) -> None:
        """Forget a host: promises, channel, and all its connections, which from now on answer NAKED."""
        if not self.knows(host):
            return
        log.info("client %s dropped: %s", host, reason)
        del self._hosts[host.peer]
        self._forget_promises(host)
        if host.channel is not None:
            host.channel.close()
            host.channel = None

    async def _build_channel(self, host: Host) -> bool:
        """Whether the host takes a callback connection and answers on it. The caller holds the lock."""
        try:
            channel = await self._endpoint.bind(host.peer, CALLBACK_SUBSYSTEM, ANONYMOUS, patience=PATIENCE)
        except RpcError as error:
            log.info("client %s cannot be called back: %s", host, error)
            return False
        if not self.knows(host):  # it was dropped meanwhile, and whoever comes from there now is another
            channel.close()
            return False
        host.channel = channel
        return await self._probe(host)

    async def _probe_silent(self) -> None:
        now = trio.current_time()
        for host in self.all():
            if host.channel is not None and now - self._heard(host) > SILENCE and not host.lock.locked():
                async with host.lock:
                    alive = host.channel is None or await self._probe(host)
                if not alive:
                    self.drop(host, "silent, and did not answer a probe")

    def _heard(self, host: Host) -> float:
        return self._endpoint.last_heard(host.peer) or 0.0

    async def _probe(self, host: Host) -> bool:
        """Whether the host answers on its channel, with 0. The caller holds the lock."""
        return await self._call_back(host, [_NULL], strict=True)

    async def _notify_all(self, notices: dict[Host, list[Fid]]) -> None:
        if not notices:
            return
        with trio.CancelScope(
            shield=True
        ):  # promises are off the table already: they must be broken, come what may
            async with trio.open_nursery() as nursery:
                for host, fids in notices.items():
                    nursery.start_soon(self._notify, host, fids)

    async def _notify(self, host: Host, fids: list[Fid]) -> None:
        self.breaks += len(fids)
        async with host.lock:
            if host.channel is None:
                return
            delivered = await self._call_back(host, fids)
        if not delivered:
            self.drop(host, "a callback could not be delivered")

    async def _call_back(self, host: Host, fids: Iterable[Fid], strict: bool = False) -> bool:
        with trio.move_on_after(PATIENCE) as scope:
            for fid in fids:
                if host.channel is None:
                    return False
                try:
                    reply = await host.channel.call(
                        CallBack.OPCODE, CallBack(fid=fid).pack(), patience=PATIENCE
                    )
                except RpcError as error:
                    log.info("callback %s to client %s failed: %s", fid, host, error)
                    return False
                if strict and reply.code:
                    return False
                scope.deadline = trio.current_time() + PATIENCE
        return not scope.cancelled_caught

    def _take(self, fid: Fid, origin: Host | None) -> list[Host]:
        takers = [host for host in self._holders.get(fid, ()) if host is not origin]
        for host in takers:
            self._withdraw(host, fid)
        return takers

    def _withdraw(self, host: Host, fid: Fid) -> None:
        if fid not in host.promises:
            return
        host.promises.discard(fid)
        holders = self._holders[fid]
        holders.pop(host, None)
        if not holders:
            del self._holders[fid]

    def _forget_promises(self, host: Host) -> None:
        for fid in list(host.promises):
            self._withdraw(host, fid)


class _Watched:
    """A sink that puts off a deadline whenever data arrive."""

    def __init__(self, sink: Sink, scope: trio.CancelScope) -> None:
        self._sink = sink
        self._scope = scope

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self._scope.deadline = trio.current_time() + FETCH_PATIENCE
