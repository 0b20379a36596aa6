"""Access lists as the store keeps them, and who a caller is (directories.md §5).

A list holds ids, not names: renaming a user changes nothing, and a removed one leaves a number that nobody
has. Its stored form is `<u16 positive> <u16 negative>` and, per entry, `<i32 id> <u32 rights>`, big-endian,
in the order they were given.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass

from realmfs.vice.types import Rights

_HEAD = struct.Struct(">HH")
_ENTRY = struct.Struct(">iI")

MAX_ENTRIES = 20
"""Most entries of a list, both halves together (directories.md §5.2)."""


@dataclass(frozen=True, slots=True)
class Acl:
    """An access list: who is granted and who is denied which rights; entries are (id, rights)."""

    positive: tuple[tuple[int, int], ...]
    negative: tuple[tuple[int, int], ...] = ()

    def pack(self) -> bytes:
        """Return the stored form."""
        entries = b"".join(_ENTRY.pack(who, rights) for who, rights in self.positive + self.negative)
        return _HEAD.pack(len(self.positive), len(self.negative)) + entries

    @classmethod
    def unpack(cls, stored: bytes) -> Acl:
        """Read the stored form."""
        positive, _ = _HEAD.unpack_from(stored)
        entries = tuple(_ENTRY.iter_unpack(stored[_HEAD.size :]))
        return cls(entries[:positive], entries[positive:])

    def rights(self, ids: Collection[int]) -> int:
        """Return what the list grants to one who is all of `ids`, less what it denies to any of them."""
        granted = denied = 0
        for who, rights in self.positive:
            if who in ids:
                granted |= rights
        for who, rights in self.negative:
            if who in ids:
                denied |= rights
        return granted & ~denied


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: a Vice id and all groups it is in, directly or through other groups, itself included."""

    user: int
    ids: frozenset[int]
    administrator: bool
    """A member of System:Administrators: exempt from r, l, a and what setting attributes needs."""
    anyone: frozenset[int]
    """The ids of System:AnyUser."""

    def rights(self, acl: Acl) -> int:
        """Return the caller's rights: nobody has less than System:AnyUser (directories.md §5.3)."""
        return acl.rights(self.ids) | acl.rights(self.anyone)

    def may(self, acl: Acl, wanted: Rights) -> bool:
        """Whether the list grants all of `wanted`, administrators' exemptions included."""
        exempt = Rights.READ | Rights.LOOKUP | Rights.ADMINISTER if self.administrator else Rights.NONE
        return not wanted & ~(self.rights(acl) | exempt)
