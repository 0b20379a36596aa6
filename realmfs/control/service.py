"""The methods of the control socket: a table from names to functions with typed parameters and results.

What the daemon knows about itself comes through `Facts`, who is logged in through `Logins`; files through the
face of the cache manager. One `Session` serves one connection. Whoever may connect may use files with his own
rights and log in for himself; methods that steer the daemon are for the daemon's owner and root.
"""

import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from realmfs import __version__
from realmfs.control import messages
from realmfs.control.acl import Acls
from realmfs.control.files import Files
from realmfs.control.messages.pages import Paged, RealmPage, ServerPage, TokenPage, VolumePage
from realmfs.control.pages import Lists
from realmfs.control.protocol import (
    HELLO,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    VERSION,
    ControlError,
    Request,
    decode,
    other_version,
    speaker,
)
from realmfs.venus.face import Caller, FileSystem

_LEVELS = ("debug", "info", "warning", "error")
OURSELVES = speaker(__version__, VERSION)


class Facts(Protocol):
    """What the daemon tells about itself. Only `servers` may wait, and at most as long as a probe."""

    def status(self) -> messages.Status: ...
    def realms(self) -> Sequence[messages.RealmInfo]: ...
    async def servers(self, check: bool) -> Sequence[messages.ServerInfo]: ...
    async def volumes(self, params: Paged) -> VolumePage: ...
    def settings(self) -> dict[str, str]: ...
    def patience(self, uid: int, wanted: bool | None) -> bool: ...
    def stopping(self) -> messages.Stopping: ...
    def end(self, force: bool) -> None:
        """Begin the end of the daemon; does not wait."""


class Logins(Protocol):
    """Who is logged in where. Everything is done for the local user `uid` who calls."""

    async def log_in(self, uid: int, params: messages.Login) -> messages.TokenInfo: ...
    async def change_password(self, uid: int, params: messages.ChangePassword) -> messages.Nothing: ...
    async def take(self, uid: int, params: messages.TokenFile) -> messages.TokenInfo: ...
    async def give(self, uid: int, params: messages.InRealm) -> messages.TokenFile: ...
    async def log_out(self, uid: int, params: messages.Logout) -> Sequence[messages.TokenInfo]: ...
    async def list_tokens(self, uid: int, everybody: bool) -> Sequence[messages.TokenInfo]: ...


@dataclass(frozen=True, slots=True)
class Method:
    """A method: the class of its parameters, the function, and whether only the owner may call it.

    `then` is done with the parameters after the answer has been sent.
    """

    shape: type[Any]
    run: Callable[[Any], Awaitable[Any]]
    owner_only: bool = False
    then: Callable[[Any], None] | None = None


Topic = Callable[[Caller], Mapping[str, Method]]
"""The methods about one topic, for one caller."""


class Session:
    """The methods of one connection."""

    def __init__(
        self,
        files: FileSystem,
        facts: Facts,
        logins: Logins,
        caller: Caller,
        methods: Mapping[str, Method] = MappingProxyType({}),
        topics: Sequence[Topic] = (),
    ) -> None:
        """Serve `caller`, as the kernel named him when he connected.

        `methods` are further ones; each of the `topics` adds those it has for him.
        """
        self._facts = facts
        self._logins = logins
        self._caller = caller
        self._realm_lists: Lists[messages.RealmInfo] = Lists()
        self._server_lists: Lists[messages.ServerInfo] = Lists()
        self._token_lists: Lists[messages.TokenInfo] = Lists()
        self._files = Files(files, caller)
        self._acls = Acls(files, caller)
        self.methods = self._file_methods() | self._daemon_methods() | self._login_methods()
        self.methods |= methods
        for topic in topics:
            self.methods |= topic(caller)

    async def call(self, request: Request) -> tuple[Any, Callable[[], None] | None]:
        """Carry out one request; returns its result, and what to do once it has been sent.

        Raises ControlError.
        """
        method = self.methods.get(request.method)
        if method is None:
            raise ControlError(METHOD_NOT_FOUND, f"there is no method {request.method[:40]!r}")
        if method.owner_only:
            self.require_owner(request.method)
        params = decode(method.shape, _known(request))
        result = await method.run(params)
        return result, None if method.then is None else functools.partial(method.then, params)

    def require_owner(self, method: str) -> None:
        """Refuse a method to all but the daemon's owner and root: events name the files of all users."""
        if self._caller.uid not in (0, os.geteuid()):
            raise ControlError.of_errno(
                errno.EPERM, f"{method} is for the owner of the daemon. Ask him, or root"
            )

    @property
    def uid(self) -> int:
        """The local user who connected."""
        return self._caller.uid

    async def close(self) -> None:
        """Let go of what the caller left open."""
        await self._files.close()

    def _file_methods(self) -> dict[str, Method]:
        files = self._files
        return {
            "path.stat": Method(messages.PathOf, files.stat),
            "path.list": Method(messages.List, files.list_directory),
            "path.mkdir": Method(messages.Make, files.mkdir),
            "path.remove": Method(messages.PathOf, files.remove),
            "path.move": Method(messages.Move, files.move),
            "acl.get": Method(messages.PathOf, self._acls.get),
            "acl.set": Method(messages.SetAcl, self._acls.set),
            "file.open": Method(messages.Open, files.open_file),
            "file.close": Method(messages.Close, files.close_file),
        }

    def _daemon_methods(self) -> dict[str, Method]:
        return {
            HELLO: Method(messages.Hello, self._hello),
            "daemon.status": Method(messages.Nothing, self._status),
            "daemon.settings": Method(messages.Nothing, self._settings),
            "daemon.stop": Method(messages.Stop, self._stop, owner_only=True, then=self._end),
            "daemon.log_level": Method(messages.LogLevel, self._log_level, owner_only=True),
            "connection.wait": Method(messages.Wait, self._wait),
            "realms.list": Method(Paged, self._realms),
            "servers.list": Method(messages.Servers, self._servers),
            "volumes.list": Method(Paged, self._volumes),
        }

    def _login_methods(self) -> dict[str, Method]:
        logins, uid = self._logins, self._caller.uid
        return {
            "tokens.login": Method(messages.Login, functools.partial(logins.log_in, uid)),
            "tokens.passwd": Method(messages.ChangePassword, functools.partial(logins.change_password, uid)),
            "tokens.set": Method(messages.TokenFile, functools.partial(logins.take, uid)),
            "tokens.get": Method(messages.InRealm, functools.partial(logins.give, uid)),
            "tokens.logout": Method(messages.Logout, functools.partial(logins.log_out, uid)),
            "tokens.list": Method(messages.Tokens, self._tokens),
        }

    async def _hello(self, params: messages.Hello) -> messages.Welcome:
        """Agree on the version. A caller of another one is told so."""
        if params.protocol != VERSION:
            raise other_version(speaker(params.version, params.protocol), OURSELVES)
        return messages.Welcome(VERSION, __version__, os.getpid())

    async def _status(self, params: messages.Nothing) -> messages.Status:
        return self._facts.status()

    async def _volumes(self, params: Paged) -> VolumePage:
        return await self._facts.volumes(params)

    async def _log_level(self, params: messages.LogLevel) -> messages.LogLevel:
        """Log more or less from now on."""
        root = logging.getLogger()
        if params.level is not None:
            if params.level not in _LEVELS:
                text = f"there is no log level {params.level[:20]!r}. Say one of {', '.join(_LEVELS)}"
                raise ControlError(INVALID_PARAMS, text)
            root.setLevel(params.level.upper())
        return messages.LogLevel(logging.getLevelName(root.level).lower())

    async def _wait(self, params: messages.Wait) -> messages.Wait:
        return messages.Wait(self._facts.patience(self._caller.uid, params.on))

    async def _settings(self, params: messages.Nothing) -> dict[str, str]:
        return self._facts.settings()

    async def _stop(self, params: messages.Stop) -> messages.Stopping:
        return self._facts.stopping()

    def _end(self, params: messages.Stop) -> None:
        self._facts.end(params.force)

    async def _realms(self, params: Paged) -> RealmPage:
        if params.cursor is not None:
            return RealmPage(*self._realm_lists.go_on(params.cursor, params.limit))
        return RealmPage(*self._realm_lists.begin(self._facts.realms(), params.limit))

    async def _servers(self, params: messages.Servers) -> ServerPage:
        """Return servers; they are asked for the first page only."""
        if params.cursor is not None:
            return ServerPage(*self._server_lists.go_on(params.cursor, params.limit))
        return ServerPage(*self._server_lists.begin(await self._facts.servers(params.check), params.limit))

    async def _tokens(self, params: messages.Tokens) -> TokenPage:
        if params.cursor is not None:
            return TokenPage(*self._token_lists.go_on(params.cursor, params.limit))
        found = await self._logins.list_tokens(self._caller.uid, params.everybody)
        return TokenPage(*self._token_lists.begin(found, params.limit))


def _known(request: Request) -> Mapping[str, Any]:
    """Return the parameters; a later version's `hello` may have some that we do not know."""
    if request.method != HELLO:
        return request.params
    return {name: value for name, value in request.params.items() if name in messages.Hello.__slots__}
