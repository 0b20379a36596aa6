"""When a server is probed, and when a silent one is checked (realms.md §6 "Probes and timers").

| server | next probe | | --- | --- | | down | 2 s after the loss, then twice as long each time, at most
`probe_idle` | | up, holds promises to us | every `probe_promised`, whatever else was heard: a promise rests
on the callback channel | | up, holds none | `probe_idle` after it was last heard | | never contacted |
never: nobody asked for it |

A *check* is for a call that waits while nothing is heard. Servers that are busy with a call say so only
every quarter of their keep-alive time (rpc2.md §6), so checks that succeed come at growing intervals while
the call goes on. A call begun after the last check has a user of its own who waits, so it is due one as soon
as the first was: a server may well die in the middle of its long work.
"""

from typing import TYPE_CHECKING

import trio

from realmfs.realms.settings import RealmSettings

if TYPE_CHECKING:
    from realmfs.realms.server import Server

FIRST_REPROBE = 2.0
MAX_CHECK_PAUSE = 15.0


class Schedule:
    """The times of one server's probes and checks, on trio's clock."""

    def __init__(self, server: "Server", settings: RealmSettings) -> None:
        self._server = server
        self._settings = settings
        self._next = 0.0
        self._down_pause = FIRST_REPROBE
        self._check_pause = settings.silence
        self._last_check = 0.0

    def lost(self) -> None:
        """The server has just gone down."""
        self._down_pause = FIRST_REPROBE
        self._next = trio.current_time() + FIRST_REPROBE

    def answered(self) -> None:
        """The server has shown itself, or promises began or ended."""
        settings = self._settings
        pause = settings.probe_promised if self._server.promised else settings.probe_idle
        self._next = trio.current_time() + pause

    def now(self) -> None:
        """Something says that a probe at once is worth it, and if it fails more of them soon."""
        self._down_pause = FIRST_REPROBE
        self._next = trio.current_time()

    def is_due(self, now: float) -> bool:
        """Whether to probe now; if so the next time is set already."""
        server = self._server
        if not server.contacted or now < self._next:
            return False
        heard, idle = server.last_heard, self._settings.probe_idle
        if not server.available:
            self._down_pause = min(self._down_pause * 2, idle)
            self._next = now + self._down_pause
            return True
        if not server.promised and heard is not None and now - heard < idle:
            self._next = heard + idle
            return False
        self.answered()
        return True

    def is_silent(self, now: float) -> bool:
        """Whether a call waits in such silence that the server should be checked.

        If so the next time is set.
        """
        calls = [link.started for link in self._server.links.busy]
        if not calls:
            self._check_pause = self._settings.silence
            return False
        unchecked = [started for started in calls if started > self._last_check]
        pause = self._settings.silence if unchecked else self._check_pause
        began = min(unchecked or calls)
        if now - max(began, self._server.last_heard or 0.0, self._last_check) < pause:
            return False
        self._last_check = now
        self._check_pause = min(self._check_pause * 2, MAX_CHECK_PAUSE)
        return True
