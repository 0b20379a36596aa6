"""The keys that tokens are sealed with, and their change (auth.md §4.4).

auth2 seals tokens, file servers open them, with the same key of 8 bytes. Nobody else has it: who had it could
be anybody. A change of the key must not end the logins under the former one, which hold for 25 hours; and in
a realm of several servers no token may be sealed with a key that a file server has not heard of.

       change               + SPREAD                             + SPREAD + 25 h
    ─────┼────────────────────┼─────────────────────────────────────┼──────────►
         │ sealed: former     │ sealed: new                         │
         │ opened: both       │ opened: both                        │ opened: new

The former key is stored with the time until when it is good: `<8 bytes> <u64 Unix seconds>`; it travels among
the servers with all else that they share (realmdb.py). Logins can also be revoked, all at once: then the
former key is good no more.
"""

import struct
from typing import Final

from realmfs.vice.tokens import LIFETIME

SPREAD: Final = 10
"""Seconds for all servers to hear of a new key; one that is down hears of it before it serves again."""
_FORMER: Final = struct.Struct(">8sQ")


def keys_at(key: object, former: object, now: float) -> list[bytes]:
    """Return the keys good at a time, that which seals first; `key` and `former` as they are stored."""
    assert isinstance(key, bytes)
    if not isinstance(former, bytes) or good_until(former) <= now:
        return [key]
    old = former[:8]
    return [old, key] if now < good_until(former) - LIFETIME else [key, old]


def former_key(key: bytes, now: float, *, alone: bool, revoke: bool) -> bytes:
    """Return what is to be stored of a key when it is replaced; `alone`: there is no other server to tell."""
    until = 0 if revoke else int(now) + (0 if alone else SPREAD) + LIFETIME
    return _FORMER.pack(key, until)


def good_until(former: bytes) -> float:
    """Return until when a former key opens tokens, in Unix seconds."""
    return float(_FORMER.unpack(former)[1]) if len(former) == _FORMER.size else 0.0
