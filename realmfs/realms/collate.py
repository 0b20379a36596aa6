"""One answer out of the answers of a group (vice.md §6.3, §6.4, §7.2). Pure functions over codes.

Servers disagree in ways that are no error: one is down, one lacks the volume, one is busy. The rule is to
disregard growing sets of such codes until the others are unanimous. Unanimous success in spite of a
disregarded answer is EASYRESOLVE: go on, and let the servers make their replicas equal in the background.
Readers that find real disagreement get ESYNRESOLVE: resolve first, then ask again. For updates any success
counts; what some servers missed is brought to them by resolution.
"""

import enum
from collections.abc import Collection
from typing import Final

from realmfs.vice.errors import Code, translate


class Verdict(enum.Enum):
    """What one server's answer says of the server itself."""

    ALIVE = "alive"
    DEAD = "dead"
    FORGOT = "forgot us"
    """It knows nothing of our connection, hence of none of our promises."""


_CLIENTS_OWN: Final = frozenset({Code.ESYNRESOLVE, Code.EASYRESOLVE, Code.ERETRY})
_DEAD: Final = frozenset({-2001, -2002, -2003, -2004, -2014, -2015})
"""FAIL, NOCONNECTION, TIMEOUT, NOBINDING, SEFAIL2, DEAD: the server is down (vice.md §7.2)."""
_FORGOT: Final = frozenset({-2016, -2007})
"""NAKED, NOTCLIENT: the server does not know our connection."""


def verdict(result: int) -> Verdict:
    """Tell what a return code, the server's or the transport's own, says of the server (vice.md §7.2)."""
    if result in _FORGOT:
        return Verdict.FORGOT
    return Verdict.DEAD if result in _DEAD else Verdict.ALIVE


def meaning(result: int, reintegrating: bool = False) -> Code:
    """Translate one server's result for collation.

    EINVAL are numbers that nobody gave a meaning, and those that only clients may use among themselves.
    """
    if result in _CLIENTS_OWN:
        return Code.EINVAL
    code = translate(result, reintegrating)
    return Code.EINVAL if code is Code.UNKNOWN else code


_READING: Final = (
    {Code.ETIMEDOUT},
    {Code.EINVAL},
    {Code.ENXIO},
    {Code.EIO},
    {Code.EACCES},
    {Code.EWOULDBLOCK},
)
_UPDATING: Final = (
    {Code.ETIMEDOUT},
    {Code.EINVAL},
    {Code.ENXIO},
    {Code.EIO},
    {Code.ENOSPC, Code.EDQUOT},
    {Code.EACCES},
    {Code.EWOULDBLOCK},
)
_IMPOSSIBLE_FOR_READERS: Final = frozenset({Code.ENOSPC, Code.EDQUOT})


def collate_read(codes: Collection[Code]) -> Code:
    """Collate the translated answers to a call that changes nothing (vice.md §6.3).

    Members that were not asked are not among them.
    """
    heard = {Code.EINVAL if code in _IMPOSSIBLE_FOR_READERS else code for code in codes}
    if not heard - {Code.ETIMEDOUT}:
        return Code.ETIMEDOUT
    if len(heard) == 1:
        return heard.pop()
    if Code.ERETRY in heard:
        return Code.ERETRY
    return _unanimous(heard, _READING, Code.ERETRY) or Code.ESYNRESOLVE


def collate_update(codes: Collection[Code], reintegrating: bool) -> Code:
    """Collate the translated answers to an update (vice.md §6.4, reintegration.md §2.8)."""
    heard = set(codes)
    if not heard - {Code.ETIMEDOUT}:
        return Code.ETIMEDOUT
    if len(heard) == 1:
        return heard.pop()
    outcome = _unanimous(heard, _UPDATING, Code.ERETRY)
    if outcome is None:
        outcome = Code.EASYRESOLVE if Code.SUCCESS in heard else Code.ERETRY
    if outcome is Code.ERETRY and reintegrating and Code.EALREADY in heard:
        return Code.EALREADY
    return outcome


def _unanimous(heard: set[Code], disregarded: Collection[set[Code]], none_left: Code) -> Code | None:
    """Disregard one set after the other; the first unanimous rest decides. None: it stays mixed."""
    rest = set(heard)
    for codes in disregarded:
        rest -= codes
        if not rest:
            return none_left
        if len(rest) == 1:
            only = rest.pop()
            return Code.EASYRESOLVE if only is Code.SUCCESS else only
    return None
