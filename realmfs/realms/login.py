"""Logging in: a password against a token, at the realm's login service auth2 (auth.md §1 to §3).

The password is proved in the bind itself; it never travels. What can come of a bind at one server:

    it answers in clear: refused ────► no such user there, or the account is closed      final
    it answers under another key ────► the password is wrong, most likely                final
    it says that it is busy ─────────► it is waiting for somebody else's handshake       the next is asked
    it is silent ────────────────────► not there                                         the next is asked
    bound ───────────────────────────► the calls

The reference's auth2 has one worker. A handshake with a wrong password keeps it waiting for our next packet,
which cannot come, and meanwhile everybody is told BUSY. Some 12 s of silence end that; whoever asks on, also
from another port, makes it last (seen with 8.1.7: over 90 s). So a wrong password is shown to one server
only, though a replica that has not heard of a new password yet, or a forged packet, may make it look wrong;
the next attempt goes to whichever answers first.

Each server is bound once, one a little after the other, so that a silent one holds nobody up; the first that
lets us in serves. Only one of a realm's servers takes changes; the others answer READONLY, and the next is
asked. Connections are short: the reference keeps at most ten.
"""

import contextlib
import enum
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from realmfs.realms.lookup import RootServer, in_order
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import BadPacket, RpcError, StaysBusy, WrongSecret
from realmfs.rpc2.service import Credentials, Level
from realmfs.vice.auth import (
    AUTH_SUBSYSTEM,
    AuthCode,
    ChangePassword,
    GetTokens,
    NameToId,
    Quit,
    password_key,
)
from realmfs.vice.tokens import Token
from realmfs.vice.wire import Request

log = logging.getLogger(__name__)

T = TypeVar("T")
Bound = tuple[RootServer, Connection | RpcError]
"""What came of a bind at a server."""
BY_PASSWORD = 2
"""Authentication by user name and password (auth.md §2)."""
MAX_USER = 64
"""Bytes of a user's name that are sent; the reference's tools stop at 20 characters."""
CONTACT = 4.0
"""Seconds for a server to answer a bind, and again for each call."""
STAGGER = 1.0
"""Seconds before the next server is bound beside one that has not answered.

Long enough that a wrong password costs one server only, see above.
"""
_GOOD_BYE = 1.0


class Refusal(enum.Enum):
    """Why nobody was logged in, or no password changed."""

    WRONG_PASSWORD = "the password is wrong"
    UNKNOWN_USER = "no server knows this user, or the account is closed"
    NO_SERVER = "no login server answers"
    BUSY = "the login servers are busy, as after a wrong password: try again in a quarter of a minute"
    READ_ONLY = "read-only now: the server that takes changes does not answer"
    DENIED = "only the user himself and administrators may do that"
    BAD_KEY = "the servers cannot store this password: choose another"
    FAILED = "the servers failed"


class LoginError(Exception):
    """Nobody was logged in, or no password was changed; `refusal` tells why, the text says it to people."""

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(f"{refusal.value} ({detail})" if detail else refusal.value)
        self.refusal = refusal


FINAL = (Refusal.UNKNOWN_USER, Refusal.WRONG_PASSWORD, Refusal.DENIED, Refusal.BAD_KEY)
"""After what no other server is asked."""
TELLING = (*FINAL, Refusal.FAILED, Refusal.READ_ONLY, Refusal.BUSY, Refusal.NO_SERVER)
"""Of several servers' answers the first in this order is told."""
_REFUSALS = {
    AuthCode.DENIED: Refusal.DENIED,
    AuthCode.BADKEY: Refusal.BAD_KEY,
    AuthCode.READONLY: Refusal.READ_ONLY,
}


class LoginService:
    """The login servers of one realm, for one user and the password that he gave."""

    def __init__(self, endpoint: Endpoint, servers: Sequence[RootServer], user: str, password: bytes) -> None:
        """`servers` as looked up; `user` a name, or a number in decimal."""
        self._endpoint = endpoint
        self._servers = in_order(servers, random.Random())
        self._user = user.encode("utf-8", "surrogateescape")
        self._credentials = Credentials(Level.SECURE, self._user + b"\0", password_key(password), BY_PASSWORD)
        if not 0 < len(self._user) <= MAX_USER or b"\0" in self._user:
            raise LoginError(Refusal.UNKNOWN_USER, "no name of a user")

    async def token(self) -> Token:
        """Log in. Raises LoginError."""

        async def get(connection: Connection) -> Token:
            reply = GetTokens.Reply.unpack(await _ask(connection, GetTokens()))
            return Token.from_reply(reply)

        return await self._with_any(get)

    async def change_password(self, user: str, password: bytes) -> None:
        """Give `user`, himself or as an administrator anybody, a new password. Raises LoginError."""
        if not password or b"\0" in password:
            raise LoginError(Refusal.BAD_KEY)

        async def change(connection: Connection) -> None:
            await _ask(connection, ChangePassword(vice_id=await _id_of(connection, user), password=password))

        await self._with_any(change)

    async def _with_any(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the work at the first server that lets us. Raises LoginError."""
        done: list[T] = []
        failures = [LoginError(Refusal.NO_SERVER)]
        async with self._binds() as binds:
            async for server, bound in binds:
                outcome = await _outcome(server, bound, work)
                if not isinstance(outcome, LoginError):
                    done.append(outcome)
                    break
                failures.append(outcome)
                if outcome.refusal in FINAL:
                    break
        if done:
            return done[0]
        raise min(failures, key=lambda failure: TELLING.index(failure.refusal))

    @asynccontextmanager
    async def _binds(self) -> AsyncIterator[trio.MemoryReceiveChannel[Bound]]:
        """Bind at all servers, one a little after the other; whatever comes of it can be received."""
        send, receive = trio.open_memory_channel[Bound](len(self._servers))
        async with trio.open_nursery() as nursery:
            async with send:
                for place, server in enumerate(self._servers):
                    nursery.start_soon(self._bind, server, place * STAGGER, send.clone())
            try:
                yield receive
            finally:
                nursery.cancel_scope.cancel()
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:  # too late to be of use
                _, bound = receive.receive_nowait()
                if isinstance(bound, Connection):
                    bound.close()

    async def _bind(self, server: RootServer, after: float, send: trio.MemorySendChannel[Bound]) -> None:
        async with send:
            await trio.sleep(after)
            try:
                bound: Connection | RpcError = await self._endpoint.bind(
                    server.address, AUTH_SUBSYSTEM, self._credentials, side_effects=False, patience=CONTACT
                )
            except RpcError as error:
                bound = error
            send.send_nowait((server, bound))


async def _outcome(
    server: RootServer, bound: Connection | RpcError, work: Callable[[Connection], Awaitable[T]]
) -> T | LoginError:
    """Return what came of a bind and of the work on the connection. Nothing is raised."""
    if isinstance(bound, RpcError):
        log.info("auth2 at %s: %s", server.name, bound)
        return LoginError(_meaning(bound))
    try:
        result = await work(bound)
        await _say_good_bye(bound)
        return result
    except LoginError as error:
        return error
    except (RpcError, BadPacket) as error:
        return LoginError(Refusal.FAILED, f"{server.name}: {error}")
    finally:
        bound.close()


def _meaning(error: RpcError) -> Refusal:
    """Return what a failed bind says of the user or the server."""
    if error.code == Rpc2Code.NOTAUTHENTICATED:
        return Refusal.UNKNOWN_USER
    if isinstance(error, WrongSecret):
        return Refusal.WRONG_PASSWORD
    return Refusal.BUSY if isinstance(error, StaysBusy) else Refusal.NO_SERVER


async def _ask(connection: Connection, request: Request[Any]) -> bytes:
    """Make one call; return the body of the answer. Raises RpcError and LoginError."""
    reply = await connection.call(request.OPCODE, request.pack(), patience=CONTACT)
    if reply.code != AuthCode.SUCCESS:
        known = reply.code in set(AuthCode)
        detail = AuthCode(reply.code).name if known else Rpc2Code.name_of(reply.code)
        refusal = _REFUSALS.get(AuthCode(reply.code)) if known else None
        raise LoginError(refusal or Refusal.FAILED, "" if refusal else detail)
    return reply.body


async def _id_of(connection: Connection, user: str) -> int:
    if user[:1].isdecimal() and user.isascii():
        return int(user) if user.isdecimal() and len(user) < 10 else 0
    try:
        body = await _ask(connection, NameToId(name=user.encode("utf-8", "surrogateescape")))
    except LoginError:
        raise LoginError(Refusal.UNKNOWN_USER, user) from None
    return NameToId.Reply.unpack(body).vice_id


async def _say_good_bye(connection: Connection) -> None:
    """Let the server forget us; if it does not hear it, it will do so in time."""
    try:
        await connection.call(Quit.OPCODE, Quit().pack(), patience=_GOOD_BYE)
    except RpcError as error:
        log.debug("auth2 at %s: good-bye: %s", connection.peer, error)
