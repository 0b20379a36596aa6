"""One file server: is it there, does it know us, what is it owed (realms.md §6, vice.md §2 and §4).

                 a call or a probe finds it dead
          ┌──────────────────────────────────────────┐
          │                                          ▼
      ┌───────┐   it binds back, or answers      ┌──────┐ ──┐
      │ UNKN. │ ───────────────────────────────► │  UP  │   │ NAKED: it forgot us. All links are dropped,
      └───────┘   NewConnectFS: event "up"       └──────┘ ◄─┘ event "up" (`just_naked` until it binds back)
          │                                        │  ▲
          │ dead                     dead: links   │  │ it binds back, or answers a probe: event "up"
          ▼                          are dropped,  ▼  │
      ┌──────────────────────────────────────────────────┐
      │ DOWN: calls are refused at once; probed after     │
      │ 2 s, 4 s, 8 s ... `probe_idle`                    │
      └──────────────────────────────────────────────────┘

Event "up" means more than that: *all promises of the server are void*. It is therefore also raised when
nothing was seen to be wrong but something must have been: a new callback connection from a server that was
up (it was restarted), a probe that the server did not probe back, ENOTCONN or EPIPE in answer to a probe.

`epoch` counts those events. A reply to a request sent in an older epoch promises nothing.

A restarted server does not answer calls on connections it does not know, not even with a NAK (rpc2.md §8).
So while a call waits and nothing at all is heard for `silence` seconds, the server is *checked* with a
fresh bind: if it was restarted it binds back, by which we know, and the call ends with NAKED; if it cannot
be bound it is down.
"""

import enum
import logging
from collections.abc import Callable
from contextlib import nullcontext
from math import inf
from typing import NamedTuple, Protocol

import trio

from realmfs.realms.channel import Channel
from realmfs.realms.collate import Verdict, meaning, verdict
from realmfs.realms.context import Context
from realmfs.realms.links import Link, Links
from realmfs.realms.lockorder import LockOrder
from realmfs.realms.schedule import Schedule
from realmfs.realms.tokens import usable
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection
from realmfs.rpc2.errors import RpcError, WrongSecret
from realmfs.rpc2.service import Address, Credentials, Level, ServerConnection, TunnelAddress
from realmfs.rpc2.transfer import Sink, Source
from realmfs.vice.calls import FetchPartial, NewConnectFS, Reintegrate
from realmfs.vice.errors import Code
from realmfs.vice.tokens import Token
from realmfs.vice.types import FILE_SUBSYSTEM, Fid

log = logging.getLogger(__name__)


LATELY = 60.0
"""Seconds for which a measured time to the first data counts."""


class State(enum.Enum):
    """What is known of a server."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


class Owner(Protocol):
    """What a server asks of, and tells, its realm."""

    def token(self, user: int) -> Token | None:
        """Return the user's token, expired or not."""

    def refuse(self, user: int, token: Token) -> None:
        """A server refused this token."""

    def usual_distance(self) -> float | None:
        """Return the longest round trip to its servers that are up, in seconds; None: none is known to be."""

    def reached(self) -> None:
        """A server has shown itself."""

    def returned(self, server: "Server") -> None:
        """A server that was down has shown itself."""

    def lost(self, server: "Server") -> None:
        """A server is down now."""


class RefusedError(Exception):
    """The user's token is refused or expired, and the call must not be made as nobody."""


class Answer(NamedTuple):
    """What came of one call to one server."""

    code: Code
    body: bytes
    sent: bool
    """Whether the server may have executed the call."""
    heard: bool
    """Whether the code is the server's own, not the transport's."""
    epoch: int
    breaks: int


class Server:
    """A server of one realm: (realm, IPv4 address, port). The same machine in two realms is two of these."""

    def __init__(self, context: Context, owner: Owner, realm: str, address: Address, name: str) -> None:
        self.realm = realm
        self.address = address
        self.name = name
        self.state = State.UNKNOWN
        self.epoch = 0
        self.promised = False
        """Whether it has given a promise that still stands, as far as we know."""
        self.since = -inf
        """When it was found to be as it is; for one that is down, when it was last tried (trio's clock)."""
        self.returned = -inf
        """When it was last seen to be there again, or to have been started anew (trio's clock)."""
        self.reason = ""
        """Why it is down, for people."""
        self.back_probes = 0
        self.helps = 0
        """How many stalled transfers of other servers it takes over at present (delivery.py)."""
        self.fetches_partially: bool | None = None
        self.ours: bool | None = None
        """Whether it runs realmfs, too, as its handshake said; None: not met yet."""
        self.order = LockOrder()
        self.channel = Channel(context, realm, address, name, self._channel_lost)
        self.links = Links(context.settings.connections, self._make)
        self.probes = Schedule(self, context.settings)
        self._context = context
        self._owner = owner
        self._just_naked = False
        self._callback: ServerConnection | None = None
        self._contact = trio.Lock()
        self._usual = (0.0, -inf)

    def __repr__(self) -> str:
        return f"<Server {self} of {self.realm}, {self.state.value}>"

    def __str__(self) -> str:
        return self.name or f"{self.address[0]}:{self.address[1]}"

    # what others show

    @property
    def available(self) -> bool:
        """Whether calls are tried: not known to be down."""
        return self.state is not State.DOWN and self.online

    @property
    def online(self) -> bool:
        """Whether we speak to servers of its realm at all (presence.py)."""
        return self._context.presence.is_online(self.realm)

    @property
    def contacted(self) -> bool:
        """Whether it was ever asked for: found up or down."""
        return self.state is not State.UNKNOWN

    @property
    def round_trip(self) -> float | None:
        """Seconds, as the transport measured; None: nothing measured yet."""
        return self._context.endpoint.estimate(self.channel.peer).round_trip

    @property
    def distance(self) -> float | None:
        """Seconds that the path there and back takes, whatever the ends are busy with; None: not measured."""
        return self._context.endpoint.estimate(self.channel.peer).distance

    @property
    def bandwidth(self) -> float | None:
        """Bytes per second, as the transport measured; None: nothing measured yet."""
        return self._context.endpoint.estimate(self.channel.peer).bandwidth

    @property
    def usual(self) -> float | None:
        """Seconds that it has lately taken to begin sending data; None: none was asked for lately."""
        seconds, when = self._usual
        return seconds if trio.current_time() - when < LATELY else None

    def answered_in(self, seconds: float) -> None:
        """Take in how long data was waited for."""
        usual = self.usual
        seconds = seconds if usual is None else usual + (seconds - usual) / 4
        self._usual = (seconds, trio.current_time())

    @property
    def last_heard(self) -> float | None:
        """When anything came from it (trio's clock)."""
        return self._context.endpoint.last_heard(self.channel.peer)

    @property
    def contact_time(self) -> float:
        """How long it may take to answer a bind, which needs two round trips, or a probe.

        One not met yet is judged by its neighbours: users wait for it, too, and others could serve them.
        """
        settings, round_trip = self._context.settings, self.round_trip
        if self.state is State.UNKNOWN and round_trip is None:
            round_trip = self._owner.usual_distance()
        if self.state is not State.DOWN and round_trip is not None:
            return min(settings.check + 8 * round_trip, settings.contact + 4 * round_trip)
        return settings.contact + 4 * (round_trip or 0.0)

    @property
    def protection(self) -> str:
        """How packets are protected, for people."""
        return self.channel.protection

    # calls

    async def call(
        self,
        user: int,
        opcode: int,
        body: bytes,
        *,
        source: Source | None = None,
        sink: Sink | None = None,
        began: Callable[[Link], None] | None = None,
        reintegrating: bool = False,
        strict: bool = False,
    ) -> Answer:
        """Make one call as `user` and judge the server by the outcome; what fails is a code.

        `began` is told the link just before the request goes out.
        `strict`: do not go on as nobody if the user's token has expired or is refused; raises RefusedError.
        """
        try:
            link = await self._in_turn(user, strict, opcode, body)
        except RpcError as error:
            return self._answer(int(error.code), b"", None, reintegrating)
        epoch, breaks = self.epoch, self._context.breaks
        link.started = trio.current_time()
        if began is not None:
            began(link)
        locks = opcode == Reintegrate.OPCODE and not self.ours
        try:
            with self.order.reintegrating(body) if locks else nullcontext():
                code, reply = await link.call(opcode, body, source, sink)
        finally:
            self.links.release(link)
        if verdict(code) is not Verdict.ALIVE and link.generation == self.links.generation:
            self.judge(code)
        answer = self._answer(code, reply, link, reintegrating)
        return answer._replace(epoch=epoch, breaks=breaks)

    def _answer(self, code: int, reply: bytes, link: Link | None, reintegrating: bool) -> Answer:
        heard = link is not None and code > -1000
        return Answer(
            meaning(code, reintegrating), reply, link is not None, heard, self.epoch, self._context.breaks
        )

    def promise_stands(self, answer: Answer) -> bool:
        """Whether a promise in this answer can be believed: nothing was broken since it was asked for."""
        return self.epoch == answer.epoch and self._context.breaks == answer.breaks

    async def _in_turn(self, user: int, strict: bool, opcode: int, body: bytes) -> Link:
        """Return a link when the call can do no harm on it."""
        while True:
            await self.order.pass_by(opcode, body)
            link = await self._acquire(user, strict)
            if self.order.is_free(opcode, body):
                return link
            self.links.release(link)

    async def _acquire(self, user: int, strict: bool) -> Link:
        held = self._owner.token(user)
        token = usable(held)
        if strict and token is None and held is not None:
            raise RefusedError  # it expired since the caller looked
        while True:
            try:
                return await self.links.acquire(user if token else ANYUSER, token)
            except RpcError as error:
                if token is None or not _refused(error):
                    raise
            self._owner.refuse(user, token)
            if strict:
                raise RefusedError
            token = None

    async def _make(self, user: int, token: Token | None) -> Link:
        if not self.available:
            raise RpcError(Rpc2Code.DEAD)
        if self.state is State.UP:
            return await self._introduced(user, token)
        async with self._contact:  # a server not seen yet is tried once, not once by each caller
            if not self.available:
                raise RpcError(Rpc2Code.DEAD)
            return await self._introduced(user, token)

    async def _introduced(self, user: int, token: Token | None, *, leaving: bool = False) -> Link:
        """Bind, NewConnectFS, and once per server see whether it knows FetchPartial. Raises RpcError."""
        generation = self.links.generation
        if not (self.online or leaving):
            raise RpcError(Rpc2Code.DEAD)
        try:
            return await self._introduce(user, token, leaving=leaving)
        except RpcError as error:
            if generation != self.links.generation:  # they were all dropped meanwhile: it may try again
                raise RpcError(Rpc2Code.NAKED, str(error)) from error
            if not _refused(error):
                code = int(error.code)
                self.judge(Rpc2Code.DEAD if verdict(code) is Verdict.ALIVE else code, str(error))
            raise

    async def _introduce(self, user: int, token: Token | None, *, leaving: bool) -> Link:
        context = self._context
        connection = await self._bind(_credentials(user, token))
        body = NewConnectFS(client=context.client_id).pack()
        reply = await connection.call(NewConnectFS.OPCODE, body, patience=context.settings.patience)
        if reply.code != 0:
            connection.close()
            blocked = reply.code == Code.EPIPE
            text = "it cannot call us back" if blocked else f"it answers NewConnectFS with {reply.code}"
            raise RpcError(Rpc2Code.NOCONNECTION, text)
        if self.fetches_partially is None:
            reply = await connection.call(
                FetchPartial.OPCODE, FetchPartial(fid=Fid.zero()).pack(), patience=context.settings.patience
            )
            self.fetches_partially = reply.code == Code.EINVAL
        if not (self.online or leaving):  # we have gone off line meanwhile
            connection.close()
            raise RpcError(Rpc2Code.DEAD)
        self._shown()
        return Link(connection, user, token)

    async def _bind(self, credentials: Credentials) -> Connection:
        """Bind the way that the channel leads, which may turn out only now. Raises RpcError."""
        bind, patience = self._context.endpoint.bind, self.contact_time
        peer = await self.channel.open(patience)
        connection = await bind(peer, FILE_SUBSYSTEM, credentials, patience=patience)
        self.ours = connection.ours
        if self.state is not State.UP and self.channel.met(ours=connection.ours):
            connection.close()
            peer = await self.channel.open(patience)
            connection = await bind(peer, FILE_SUBSYSTEM, credentials, patience=patience)
        return connection

    # what is found out about the server

    def judge(self, code: int, reason: str = "") -> None:
        """Draw the conclusion from what the transport found."""
        if verdict(code) is Verdict.DEAD:
            self.failed(reason or Rpc2Code.name_of(code))
        elif verdict(code) is Verdict.FORGOT:
            self.forgot_us()

    def failed(self, reason: str) -> None:
        """It is down.

        Drop everything but its callback connection, whose keys a returning server may still use.
        """
        self.reason = reason
        self._end_tunnel()
        if self.state is State.DOWN:
            self.since = trio.current_time()
            return
        log.info("%s of %s is down: %s", self, self.realm, reason)
        self.since = trio.current_time()
        self.state = State.DOWN
        self._just_naked = False
        self._void()
        self.links.drop(Rpc2Code.DEAD)
        self.probes.lost()
        self._context.listener.server_down(self)
        self._owner.lost(self)

    def forgot_us(self) -> None:
        """It knows neither our connections nor the promises it gave."""
        self.links.drop(Rpc2Code.NAKED)
        if self.state is State.UP and not self._just_naked:
            log.info("%s of %s has forgotten us", self, self.realm)
            self._just_naked = True
            self._up()

    def _channel_lost(self, reason: str) -> None:
        """Its tunnel broke: to the server we are gone, with all that it promised."""
        log.info("the tunnel to %s of %s is lost: %s", self, self.realm, reason)
        self._callback = None
        self.forgot_us()
        self.probes.now()

    def _end_tunnel(self) -> None:
        if isinstance(self.channel.peer, TunnelAddress):
            self._callback = None
        self.channel.reset()

    def callback_connected(self, connection: ServerConnection) -> None:
        """It has bound back to us (vice.md §4.2): the table of CallBackConnect."""
        old, self._callback = self._callback, connection
        if old is not None:
            old.close()
        if self._just_naked:
            self._just_naked = False
        elif self.state is State.UP:
            log.info("%s of %s was restarted, or had given us up", self, self.realm)
            self.links.drop(Rpc2Code.NAKED)
            self._context.listener.server_down(self)
            self._up()
        else:
            self._up()

    def callback_closed(self, connection: ServerConnection) -> None:
        """Its callback connection is gone."""
        if self._callback is connection:
            self._callback = None

    def callback_heard(self, fid: Fid) -> None:
        """It called back: a probe, or a broken promise."""
        if fid.volume == 0:
            self.back_probes += 1
            if self.state is State.DOWN:
                self.probes.now()

    def _shown(self) -> None:
        if self._just_naked:
            self._just_naked = False
        elif self.state is not State.UP:
            self._up()

    def _up(self) -> None:
        returned = self.state is State.DOWN
        if self.state is not State.UNKNOWN:
            self.returned = trio.current_time()
        if self.state is not State.UP:
            log.info("%s of %s is up", self, self.realm)
            self.since = trio.current_time()
        self.state = State.UP
        self.reason = ""
        self._void()
        self.probes.answered()
        self._owner.reached()
        if returned:
            self._owner.returned(self)
        self._context.listener.server_up(self)

    def _void(self) -> None:
        self.epoch += 1
        self.promised = False

    async def reach(self, *, leaving: bool = False) -> bool:
        """Bind anew whatever the state, beyond the limit of links; return whether the server is there.

        `leaving`: only to take leave, though we are off line already.
        """
        try:
            link = await self._introduced(ANYUSER, None, leaving=leaving)
        except RpcError:
            return False
        self.links.adopt(link)
        return True

    async def rebind(self, user: int) -> None:
        """Make a new connection for a user in the place of one that had to be given up."""
        token = usable(self._owner.token(user))
        try:
            link = await self._introduced(user if token else ANYUSER, token)
        except RpcError:
            return
        self.links.adopt(link)

    async def try_again(self) -> None:
        """Try one that is down, now."""
        if not await self.reach():
            self.since = trio.current_time()

    def void_promises(self) -> None:
        """Raise the event "up": something shows that its promises do not stand."""
        self._up()

    def gave_promise(self) -> None:
        """Note a promise that was believed: from now on the server is probed more often."""
        if not self.promised:
            self.promised = True
            self.probes.answered()


def _refused(error: RpcError) -> bool:
    """Whether a bind failed because of the token.

    Its key may be wrong as well as the token itself (auth.md §5).
    """
    return error.code == Rpc2Code.NOTAUTHENTICATED or isinstance(error, WrongSecret)


def _credentials(user: int, token: Token | None) -> Credentials:
    """Return what to bind with (auth.md §5)."""
    if token is not None:
        return Credentials(Level.AUTHONLY, token.secret, token.clear.handshake_key, 1)
    name = f"UID={user:08d}" if user >= 0 else "UID=nobody"
    return Credentials(Level.OPENKIMONO, name.encode() + b"\0", bytes(8), 0)
