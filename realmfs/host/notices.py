"""Notices on the desktop of what waits for a person: a conflict, a login that ends, a log that stays.

`Bulletin` decides, purely, what is news: it compares what stands now with what it has told. `Notices` looks
every LOOK seconds, which costs the daemon a few index look-ups, and has `Desktop` show it
(org.freedesktop.Notifications on the session's bus). A notice on the same topic takes the place of the one
before, so that they never pile up. Without a desktop (servers, containers) nothing is shown and nothing is
missing: `status`, `doctor` and the interface tell the same.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio
from jeepney import DBusAddress, new_method_call
from jeepney.auth import AuthenticationError
from jeepney.io.trio import open_dbus_router
from jeepney.wrappers import DBusErrorResponse

from realmfs.cache.cache import Cache
from realmfs.realms.realms import Realms
from realmfs.realms.server import State as ServerState
from realmfs.venus.venus import Venus

log = logging.getLogger(__name__)

LOOK = 15.0
SOON = (3600.0, 600.0)
"""Seconds before the end of a login at which it is told."""
LONG, LONG_OFF_LINE = 3600.0, 86400.0
"""Seconds that changes may wait until it is told, and where we are off line anyway."""
AGAIN = 86400.0
"""Seconds until a log that still does not drain is told of again."""
_WORDS = 300
_ANSWER_WITHIN = 5.0
_SERVICE = DBusAddress(
    "/org/freedesktop/Notifications", "org.freedesktop.Notifications", "org.freedesktop.Notifications"
)
_TROUBLE = (
    OSError,
    AuthenticationError,
    DBusErrorResponse,
    trio.TooSlowError,
    trio.BrokenResourceError,
    KeyError,
)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to show; it replaces what was shown on the same topic."""

    topic: str
    summary: str
    body: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """A login of the user: when it ends (Unix seconds), and how many changes wait for it."""

    realm: str
    ends: float
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """The log of a volume: its records, when the oldest was made, and why it stays ("": not known)."""

    volume: str
    records: int
    oldest: float
    why: str = ""
    off_line: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at a moment: conflicts (key and path), logins, logs that hold something."""

    conflicts: Mapping[int, str] = field(default_factory=dict)
    logins: Sequence[Login] = ()
    backlogs: Sequence[Backlog] = ()


class Bulletin:
    """Remembers what has been told."""

    def __init__(self) -> None:
        self._conflicts: Collection[int] = ()
        self._logins: dict[str, tuple[float, int]] = {}  # by realm: the end, and the steps told of
        self._backlogs: dict[str, float] = {}  # by volume: when it was told

    def news(self, now: float, standing: Standing) -> list[Notice]:
        """Return what is to be told at `now` (Unix seconds)."""
        found = [
            self._of_conflicts(standing.conflicts),
            *(self._of_login(now, login) for login in standing.logins),
            *(self._of_backlog(now, one) for one in standing.backlogs),
        ]
        held = {one.volume for one in standing.backlogs}
        self._backlogs = {volume: told for volume, told in self._backlogs.items() if volume in held}
        return [notice for notice in found if notice is not None]

    def _of_conflicts(self, conflicts: Mapping[int, str]) -> Notice | None:
        new = [path for key, path in conflicts.items() if key not in self._conflicts]
        self._conflicts = set(conflicts)
        if not new:
            return None
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        count = len(conflicts)
        return Notice(
            "conflict",
            "A conflict waits for you" if count == 1 else f"{count} conflicts wait for you",
            f"{new[0]}{more}: there are two versions. Choose: realmfs tui, Conflicts.",
            urgent=True,
        )

    def _of_login(self, now: float, login: Login) -> Notice | None:
        left = login.ends - now
        step = sum(left <= soon for soon in (*SOON, 0.0))
        ends, told = self._logins.get(login.realm, (login.ends, 0))
        if ends != login.ends:
            told = 0
        self._logins[login.realm] = login.ends, max(step, told)
        if step <= told:
            return None
        waiting = f" {login.pending} changes wait for it." if login.pending else ""
        if left <= 0:
            summary = f"Your login in {login.realm} has ended"
        else:
            summary = f"Your login in {login.realm} ends in {max(1, round(left / 60))} minutes"
        return Notice(
            f"login {login.realm}", summary, f"Log in again: realmfs login, or realmfs tui.{waiting}"
        )

    def _of_backlog(self, now: float, one: Backlog) -> Notice | None:
        age = now - one.oldest
        told = self._backlogs.get(one.volume)
        if age < (LONG_OFF_LINE if one.off_line else LONG) or (told is not None and now - told < AGAIN):
            return None
        self._backlogs[one.volume] = now
        hours = max(1, round(age / 3600))
        why = f" Why: {one.why}." if one.why else ""
        return Notice(
            f"backlog {one.volume}",
            f"Changes of {one.volume} have not been sent",
            f"{one.records} wait, the oldest for {hours} h.{why} They are safe here. See realmfs changes.",
        )


class Desktop:
    """The session's notification service. `bus`: SESSION or an address."""

    def __init__(self, bus: str = "SESSION") -> None:
        self._bus = bus
        self._shown: dict[str, int] = {}  # by topic: the number the service gave

    async def show(self, notice: Notice) -> bool:
        """Show a notice; return whether there was anybody to show it."""
        hints: dict[str, tuple[str, Any]] = {
            "urgency": ("y", 2 if notice.urgent else 1),
            "desktop-entry": ("s", "realmfs"),
            "category": ("s", "transfer.error" if notice.urgent else "transfer"),
        }
        replaced = self._shown.get(notice.topic, 0)
        texts = (plain(notice.summary), escaped(plain(notice.body)))
        body: tuple[Any, ...] = ("realmfs", replaced, "folder-remote", *texts, [], hints, -1)
        message = new_method_call(_SERVICE, "Notify", "susssasa{sv}i", body)
        number = None
        try:
            with trio.fail_after(_ANSWER_WITHIN):
                async with open_dbus_router(self._bus) as router:
                    answer = await router.send_and_get_reply(message)
            if answer.header.message_type.name == "error":
                raise DBusErrorResponse(answer)
            number = int(answer.body[0])
        except* _TROUBLE as trouble:  # the bus has a nursery of its own
            error = trouble.exceptions[0]
            log.info("no desktop shows %r: %s", notice.summary, str(error) or repr(error))
        if number is None:
            return False
        self._shown[notice.topic] = number
        return True


class Notices:
    """Looks and tells, for the user the daemon runs as."""

    def __init__(self, cache: Cache, realms: Realms, venus: Venus, desktop: Desktop) -> None:
        self._cache = cache
        self._realms = realms
        self._venus = venus
        self._desktop = desktop
        self._bulletin = Bulletin()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            for notice in self._bulletin.news(self._venus.core.now(), self.standing()):
                await self._desktop.show(notice)
            await trio.sleep(LOOK)

    def standing(self) -> Standing:
        """Return what stands now."""
        core = self._venus.core
        conflicts = {node.ino: core.path(core.conflicts.shown(node)) for node in core.conflicts.all()}
        backlogs = [self._backlog(key) for key in self._cache.log.volumes()]
        found = [one for one in backlogs if one is not None]
        pending: dict[str, int] = {}
        for one in found:
            realm = one.volume.rpartition("@")[2]
            pending[realm] = pending.get(realm, 0) + one.records
        logins = [
            Login(held.realm, float(held.token.clear.end), pending.get(held.realm, 0))
            for held in self._realms.tokens.all()
            if held.uid == os.geteuid()
        ]
        return Standing(conflicts, logins, found)

    def _backlog(self, key: int) -> Backlog | None:
        row = self._cache.volumes.get(key)
        if row is None:
            return None
        realm = self._cache.realms.get(row.realm).name
        summary = self._cache.log.summary(key)
        off_line = not self._realms.presence.is_online(realm)
        why = self._realms.presence.why(realm) or self._hindrance(key, realm)
        return Backlog(f"{row.name}@{realm}", summary.records, float(summary.oldest), why, off_line)

    def _hindrance(self, key: int, realm: str) -> str:
        """Say what keeps a log although we are on line, if that is known."""
        uid, identity = self._cache.log.owner(key) or (-1, "")
        held = self._realms.tokens.get(realm, uid)
        if identity and (held is None or not held.usable):
            return f"they wait for a login as {identity}"
        known = self._realms.realm_named(realm)
        servers = [] if known is None else known.servers
        return "" if any(server.state is ServerState.UP for server in servers) else "no server answers"


def plain(text: str) -> str:
    """Return text with nothing in it that acts: names come from servers."""
    return "".join(char if char.isprintable() else "�" for char in text)[:_WORDS]


def escaped(text: str) -> str:
    """Return text for a body, which the desktop reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
