"""The authentication service auth2 of a realm: passwords against tokens (auth.md §1 to §4, §8.3).

The client proves its password in the bind itself, whose handshake is sealed with the first 8 bytes of it; an
unknown or closed account is refused at once, a wrong password just never gets through. Then it asks for
tokens, and leaves. Clients of the reference send the subsystem's number swapped, so every number is accepted.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.service import ANY_SUBSYSTEM, BindOffer, Level, Reply, Request, ServerConnection
from realmfs.server.protection import ProtectionError
from realmfs.server.store import ServerStore
from realmfs.vice import auth
from realmfs.vice.auth import AuthCode, password_key
from realmfs.vice.tokens import IV_SIZE, TokenKey
from realmfs.vice.wire import NoResults, Results

log = logging.getLogger(__name__)

AUTH_PORT: Final = 370
_LOOK: Final = 1.0
"""Seconds between looks whether a server that has just joined others knows the realm's users yet."""
BY_PASSWORD: Final = 2
"""The authentication type of a bind with user name and password (auth.md §2)."""

Handler = Callable[["_Login", Any], Awaitable[Results]]


@dataclass(slots=True)
class _Login:
    """A bound connection: as whom, and whether it has said good-bye."""

    user: int
    quit: bool = False


class _AuthError(Exception):
    def __init__(self, code: AuthCode) -> None:
        super().__init__(code)
        self.code = code


class AuthServer:
    """The auth2 of one store on an endpoint of its own. `run` runs the endpoint, too."""

    def __init__(
        self, store: ServerStore, endpoint: Endpoint, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._endpoint = endpoint
        self._clock = clock
        self._handlers: dict[type[Any], Handler] = {
            auth.ChangePassword: self._change_password,
            auth.GetTokens: self._get_tokens,
            auth.ChangeUser: self._change_user,
            auth.NewUser: self._new_user,
            auth.DeleteUser: self._delete_user,
            auth.NameToId: self._name_to_id,
            auth.Quit: self._quit,
        }
        if store.knows_realm:
            endpoint.serve(ANY_SUBSYSTEM, self)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled: from the moment on when there are users."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._endpoint.run)
            task_status.started()
            while not self._store.knows_realm:  # noqa: ASYNC110  # another task's database has no events
                await trio.sleep(_LOOK)
            self._endpoint.serve(ANY_SUBSYSTEM, self)

    def secret(self, offer: BindOffer) -> bytes | None:
        """Return the password key of the user who binds; None refuses unknown and closed accounts."""
        if offer.level != Level.SECURE or offer.auth_type != BY_PASSWORD:
            return None
        user = self._user(offer.ident)
        try:
            return self._store.protection.key_of(user) if user is not None else None
        except ProtectionError as error:
            log.error("auth2: nobody can log in: %s", error)
            return None

    async def connected(self, connection: ServerConnection) -> None:
        """Note who it is: the handshake has proved it."""
        user = self._user(connection.offer.ident)
        connection.data = _Login(user if user is not None else 0, quit=user is None)

    def closed(self, connection: ServerConnection) -> None:
        """Nothing is kept for a client."""

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        """Answer one request."""
        login: _Login = connection.data
        kind = auth.AUTH_SERVICE.get(request.opcode)
        if kind is None:
            return Reply(Rpc2Code.INVALIDOPCODE)
        zero = kind.reply_type().zero().pack()
        try:
            arguments = kind.unpack(request.body)
        except BadPacket as error:
            log.info("auth2: %s that cannot be read: %s", kind.__name__, error)
            return Reply(Rpc2Code.BADDATA, zero)
        if login.quit:
            return Reply(AuthCode.FAILED, zero)
        try:
            results = await self._handlers[kind](login, arguments)
        except _AuthError as error:
            log.info("auth2: %s of user %d refused: %s", kind.__name__, login.user, error.code.name)
            return Reply(error.code, zero)
        return Reply(AuthCode.SUCCESS, results.pack())

    async def _get_tokens(self, login: _Login, args: auth.GetTokens) -> auth.GetTokens.Reply:
        key = TokenKey(self._store.token_keys(self._clock())[0])
        handshake_key, iv = secrets.token_bytes(auth.KEY_SIZE), secrets.token_bytes(IV_SIZE)
        token = key.mint(login.user, int(self._clock()), handshake_key=handshake_key, iv=iv)
        log.info("auth2: user %d logged in", login.user)
        return token.reply()

    async def _name_to_id(self, login: _Login, args: auth.NameToId) -> auth.NameToId.Reply:
        found = self._store.protection.id_of(args.name.decode("utf-8", "replace"))
        if found is None:
            raise _AuthError(AuthCode.FAILED)
        return auth.NameToId.Reply(vice_id=found)

    async def _change_password(self, login: _Login, args: auth.ChangePassword) -> NoResults:
        if args.vice_id != login.user and not self._is_administrator(login):
            raise _AuthError(AuthCode.DENIED)
        if not self._store.protection.can_log_in(args.vice_id):
            raise _AuthError(AuthCode.FAILED)
        await self._set_key(args.vice_id, password_key(args.password))
        return NoResults()

    async def _change_user(self, login: _Login, args: auth.ChangeUser) -> NoResults:
        self._require_administrator(login)
        if not self._store.protection.can_log_in(args.vice_id):
            raise _AuthError(AuthCode.FAILED)
        await self._set_key(args.vice_id, args.key)
        return NoResults()

    async def _new_user(self, login: _Login, args: auth.NewUser) -> NoResults:
        self._require_administrator(login)
        if self._store.protection.has_key(args.vice_id):
            raise _AuthError(AuthCode.FAILED)
        await self._set_key(args.vice_id, args.key)
        return NoResults()

    async def _delete_user(self, login: _Login, args: auth.DeleteUser) -> NoResults:
        self._require_administrator(login)
        if not self._store.protection.can_log_in(args.vice_id):
            raise _AuthError(AuthCode.FAILED)
        self._require_keeper()
        self._store.protection.close_account(args.vice_id)
        await self._store.database.durable()
        return NoResults()

    async def _quit(self, login: _Login, args: auth.Quit) -> NoResults:
        login.quit = True
        return NoResults()

    async def _set_key(self, user: int, key: bytes) -> None:
        self._require_keeper()
        if not any(key) or all(byte == 0xFF for byte in key):
            raise _AuthError(AuthCode.BADKEY)
        try:
            self._store.protection.set_key(user, key)
        except ProtectionError as error:
            raise _AuthError(AuthCode.FAILED) from error
        await self._store.database.durable()

    def _require_keeper(self) -> None:
        if not self._store.is_keeper:
            raise _AuthError(AuthCode.READONLY)

    def _is_administrator(self, login: _Login) -> bool:
        return self._store.protection.identity(login.user).administrator

    def _require_administrator(self, login: _Login) -> None:
        if not self._is_administrator(login):
            raise _AuthError(AuthCode.DENIED)

    def _user(self, ident: bytes) -> int | None:
        """Return the user that a bind's identity names: by number if it begins with a digit (auth.md §2)."""
        name = ident.partition(b"\0")[0].decode("utf-8", "replace")
        if name[:1].isdecimal():
            return int(name) if name.isdecimal() and len(name) <= 10 else None
        found = self._store.protection.id_of(name)
        return found if found is not None and found > 0 else None
