"""Connections to one server: made, kept, lent out for one call at a time, dropped together.

A *link* is an RPC2 connection that has been introduced (NewConnectFS), so that calls may be made on it
(vice.md §2). It belongs to one identity: a user's token, or nobody. All users without a token share the
links of nobody.

    acquire ──► an idle link of that identity; else a new one, if there are few enough; else wait for one
    release ──► back among the idle ones, if it is still usable and of the present generation

`drop` begins a new generation: idle links are closed and calls under way are ended with the code given.
Links that are being made meanwhile are left alone: they talk to the server as it is now.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator

import trio

from realmfs.realms.tokens import usable
from realmfs.rpc2.endpoint import Connection
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.transfer import Sink, Source
from realmfs.vice.tokens import Token


class Link:
    """One introduced connection. Between `acquire` and `release` it takes one call after the other."""

    __slots__ = ("_aborted", "_scope", "connection", "generation", "started", "token", "user")

    def __init__(self, connection: Connection, user: int, token: Token | None) -> None:
        self.connection = connection
        self.user = user
        self.token = token
        self.generation = 0
        self.started = 0.0
        self._scope: trio.CancelScope | None = None
        self._aborted = 0

    async def call(
        self, opcode: int, body: bytes, source: Source | None = None, sink: Sink | None = None
    ) -> tuple[int, bytes]:
        """Call; return the code and the body of the answer.

        What the transport finds is returned as a code too.

        `abort` ends the call early with a code of its own.
        """
        self.started = trio.current_time()
        with trio.CancelScope() as self._scope:
            try:
                reply = await self.connection.call(opcode, body, source=source, sink=sink)
            except RpcError as error:
                return int(error.code), b""
            finally:
                self._scope = None
            return reply.code, reply.body
        return self._aborted, b""

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._scope is not None

    @property
    def told_busy(self) -> bool:
        """Whether the server has said, to the call under way, that it is at work."""
        return self.connection.told_busy

    def abort(self, code: int) -> None:
        """End the call under way, if any, with `code`."""
        if self._scope is not None:
            self._aborted = code
            self._scope.cancel()


class Links:
    """The links to one server. `make` connects and introduces a new one; it raises RpcError."""

    def __init__(self, limit: int, make: Callable[[int, Token | None], Awaitable[Link]]) -> None:
        self._limit = limit
        self._make = make
        self._idle: dict[int, list[Link]] = {}
        self._lent: set[Link] = set()
        self._count = 0  # idle, lent and in the making
        self._waiting: deque[trio.Event] = deque()
        self.generation = 0

    def __len__(self) -> int:
        return self._count

    @property
    def busy(self) -> Iterator[Link]:
        """Every link with a call under way."""
        return (link for link in self._lent if link.busy)

    async def acquire(self, user: int, token: Token | None) -> Link:
        """Return a link of this identity for the caller alone.

        Raises RpcError if one must be made and cannot.
        """
        while (link := self.take(user, token)) is None:
            if self._count < self._limit or self._evict():
                self._count += 1
                try:
                    link = await self._make(user, token)
                except BaseException:
                    self._forget_one()
                    raise
                link.generation = self.generation
                self._lent.add(link)
                break
            await self._wait()
        return link

    def take(self, user: int, token: Token | None) -> Link | None:
        """Return an idle link of this identity, the one used last, or None."""
        idle = self._idle.get(user)
        while idle:
            link = idle.pop()
            if link.connection.usable and link.token == token:
                self._lent.add(link)
                return link
            self._close(link)
        return None

    def take_any(self) -> Link | None:
        """Return an idle link of whatever identity, or None."""
        for user, idle in self._idle.items():
            if idle:
                return self.take(user, idle[-1].token)
        return None

    def release(self, link: Link) -> None:
        """Take a link back."""
        self._lent.discard(link)
        surplus = self._count > self._limit
        if surplus or link.generation != self.generation or not link.connection.usable:
            self._close(link)
        else:
            self._keep(link)

    def _keep(self, link: Link) -> None:
        self._idle.setdefault(link.user, []).append(link)
        self._wake()

    def adopt(self, link: Link) -> None:
        """Take a link made outside of `acquire` among the idle ones; above the limit it lasts for one use."""
        self._count += 1
        link.generation = self.generation
        self._keep(link)

    def drop(self, code: int) -> None:
        """Close all links and end their calls with `code`."""
        self.generation += 1
        for link in [link for idle in self._idle.values() for link in idle]:
            self._close(link)
        self._idle.clear()
        for link in self._lent:
            link.abort(code)

    def drop_user(self, user: int) -> None:
        """Close a user's idle links; those lent out are closed when they come back."""
        for link in self._idle.pop(user, ()):
            self._close(link)
        for link in self._lent:
            if link.user == user:
                link.generation = -1

    def drop_expired(self) -> None:
        """Close idle links whose token is about to expire."""
        for idle in self._idle.values():
            for link in [link for link in idle if link.token is not None and usable(link.token) is None]:
                idle.remove(link)
                self._close(link)

    def _evict(self) -> bool:
        """Close the idle link that was used longest ago to make room for another identity."""
        idle = [link for links in self._idle.values() for link in links]
        if not idle:
            return False
        oldest = min(idle, key=lambda link: link.started)
        self._idle[oldest.user].remove(oldest)
        self._close(oldest)
        return True

    def _close(self, link: Link) -> None:
        link.connection.close()
        self._forget_one()

    def _forget_one(self) -> None:
        self._count -= 1
        self._wake()

    async def _wait(self) -> None:
        event = trio.Event()
        self._waiting.append(event)
        try:
            await event.wait()
        except trio.Cancelled:
            if event.is_set():  # woken and cancelled at once: the turn is the next one's
                self._wake()
            else:
                self._waiting.remove(event)
            raise

    def _wake(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
