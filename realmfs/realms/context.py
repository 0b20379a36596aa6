"""What all realms, servers and groups of one client share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import trio

from realmfs.realms.presence import Presence
from realmfs.realms.settings import RealmSettings
from realmfs.realms.tokens import Tokens
from realmfs.realms.types import Listener
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.service import Address, Transport
from realmfs.rpc2.tunnel import connect_tcp
from realmfs.vice.types import ClientId, Fid

MAX_BACKGROUND = 64
MAX_CHANGED = 1000
UPDATE_SECONDS = 2.0
"""Within what time of the break of a promise the update that broke it is at every server."""


@dataclass(slots=True)
class Context:
    """The endpoint, the settings, who listens, and the nursery for what nobody waits for."""

    endpoint: Endpoint
    settings: RealmSettings
    listener: Listener
    breaks: int = 0
    """How many promises were broken so far.

    A reply that was under way meanwhile promises nothing (vice.md §4.2).
    """
    presence: Presence = field(default_factory=lambda: Presence(set()))
    tokens: Tokens = field(default_factory=Tokens)
    connect: Callable[[Address], Awaitable[trio.abc.Stream]] = connect_tcp
    """How to reach the TCP port of a server."""
    open_port: Callable[[Address], Awaitable[Transport]] = udp_transport
    """How to open a port of our own."""
    changed: dict[Fid, float] = field(default_factory=dict)
    """When others changed objects lately, as far as we were told, the oldest first (trio's clock)."""
    nursery: trio.Nursery | None = None
    _running: set[Any] = field(default_factory=set)

    @property
    def client_id(self) -> ClientId:
        """How we introduce ourselves to servers."""
        settings = self.settings
        return ClientId(settings.user_name.encode(), settings.host_name.encode(), b"realmfs", settings.uuid)

    def promise_broken(self, fid: Fid) -> None:
        """Note that somebody changes an object."""
        self.breaks += 1
        self.note_change(fid)

    def note_change(self, fid: Fid) -> None:
        """Note that somebody else has changed an object, or is about to."""
        self.changed.pop(fid, None)
        self.changed[fid] = trio.current_time()
        while len(self.changed) > MAX_CHANGED:
            del self.changed[next(iter(self.changed))]

    def since_change(self, fid: Fid) -> float:
        """Return how many seconds ago another client was heard to change an object; infinity: never."""
        return trio.current_time() - self.changed.get(fid, -inf)

    def is_being_changed(self, fid: Fid) -> bool:
        """Whether another client's update of an object may not have reached every server yet."""
        return self.since_change(fid) < UPDATE_SECONDS

    def background(self, key: Any, work: Callable[[], Awaitable[object]]) -> bool:
        """Run `work` in the background unless work with the same key is running. False: it was not started.

        There is a limit to how much runs; what is refused must be something that will be asked for again.
        """
        if self.nursery is None or key in self._running or len(self._running) >= MAX_BACKGROUND:
            return False
        try:
            self.nursery.start_soon(self._run, key, work)
        except RuntimeError:  # it is closed: we are stopping, and what was cancelled is let go
            return False
        self._running.add(key)
        return True

    async def _run(self, key: Any, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        finally:
            self._running.discard(key)
