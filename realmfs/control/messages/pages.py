"""Lists, page by page: at most `limit` entries behind a cursor, and the cursor of what comes next.

None is the beginning of a list, and its end.
"""

from dataclasses import dataclass

from realmfs.control.messages.cache import Cached
from realmfs.control.messages.changes import Change
from realmfs.control.messages.conflicts import ConflictInfo
from realmfs.control.messages.daemon import RealmInfo, ServerInfo
from realmfs.control.messages.hoard import Entry as HoardEntry
from realmfs.control.messages.hoard import Evicted, Problem, Profile
from realmfs.control.messages.logins import TokenInfo
from realmfs.control.messages.volumes import VolumeInfo

PAGE = 200
"""The most that a page holds."""


@dataclass(frozen=True, slots=True)
class Paged:
    """At most `limit` entries of a list behind `cursor`, which an answer gave; None: from its beginning."""

    cursor: str | None = None
    limit: int = PAGE


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes, volume by volume, in the order in which they were made."""

    entries: list[Change]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ConflictPage:
    """Conflicts, in order of their ids."""

    entries: list[ConflictInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class VolumePage:
    """Volumes."""

    entries: list[VolumeInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class HoardPage:
    """Entries of the hoard database, in order of their ids."""

    entries: list[HoardEntry]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class CachePage:
    """Cached objects, in order of their numbers."""

    entries: list[Cached]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class RealmPage:
    """Realms that were ever reached."""

    entries: list[RealmInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ServerPage:
    """Servers."""

    entries: list[ServerInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class TokenPage:
    """Logins."""

    entries: list[TokenInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ProfilePage:
    """Profiles of the hoard."""

    entries: list[Profile]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ProblemPage:
    """What is hoarded and not here."""

    entries: list[Problem]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class EvictedPage:
    """What would make room, the least important first."""

    entries: list[Evicted]
    cursor: str | None
