"""Version vectors: what a replica has seen, how two replicas compare, what a group of replicas amounts to.

A vector counts, per server of the volume's replica list, the updates that this replica knows that server to
have executed. Next to the counters stands the store id of the last update. The counters order two replicas;
equal store ids say that the contents are the same even if the counters differ, because only the second phase
of the last update (COP2) was lost on the way: the replicas are then *weakly equal*. (vice.md §6, conflicts.md
§1)
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from realmfs.rpc2.marshal import Packer, Unpacker

VSG_MEMBERS = 8
"""Most replicas of a volume, hence the slots of a version vector (vice.md, constants)."""

_LAYOUT = struct.Struct(">8i3I")
_NO_VERSIONS = (0,) * VSG_MEMBERS


class StoreId(NamedTuple):
    """The unique stamp of one update; 8 bytes. Compare for equality only (vice.md §1)."""

    host: int
    uniquifier: int

    def pack(self, packer: Packer) -> None:
        """Append the 8 wire bytes."""
        packer.u32(self.host)
        packer.u32(self.uniquifier)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 8 bytes. Raises BadPacket."""
        return cls(unpacker.u32(), unpacker.u32())

    @classmethod
    def zero(cls) -> Self:
        """The store id of an object that was never updated."""
        return cls(0, 0)

    def __str__(self) -> str:
        return f"{self.host:x}.{self.uniquifier:x}"


_NO_STORE = StoreId(0, 0)


class Order(enum.Enum):
    """How one vector stands to another (vice.md §6.1)."""

    EQUAL = "EQ"
    DOMINATES = "DOM"
    SUBMITS = "SUB"
    INCONSISTENT = "INC"


class VersionFlags(enum.IntFlag):
    """The flag word of a vector. Only INCON takes part in comparison (vice.md §1)."""

    INCON = 0x01
    """The servers could not merge this object's replicas: a conflict."""
    LOCAL = 0x02
    BARREN = 0x04
    """A file that lost its data container; the server answers EIO."""
    COP2PENDING = 0x08
    """The second phase of the last update has not arrived yet."""


@dataclass(frozen=True, slots=True)
class VersionVector:
    """The version of one replica: 44 bytes on the wire (vice.md §1)."""

    versions: tuple[int, ...] = _NO_VERSIONS
    store_id: StoreId = _NO_STORE
    flags: int = 0

    def pack(self, packer: Packer) -> None:
        """Append the 44 wire bytes."""
        packer.raw(_LAYOUT.pack(*self.versions, *self.store_id, self.flags))

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 44 bytes. Raises BadPacket."""
        words = _LAYOUT.unpack(unpacker.raw(_LAYOUT.size))
        return cls(words[:VSG_MEMBERS], StoreId(words[8], words[9]), words[10])

    @classmethod
    def zero(cls) -> Self:
        """The vector of a volume root nobody ever changed, and of an object created in a modify log."""
        return cls()

    @property
    def inconsistent(self) -> bool:
        """Whether the replica is marked as being in conflict."""
        return bool(self.flags & VersionFlags.INCON)

    @property
    def cop2_pending(self) -> bool:
        """Whether the last update's second phase is still awaited."""
        return bool(self.flags & VersionFlags.COP2PENDING)

    @property
    def is_runt(self) -> bool:
        """Whether this is an empty shell made by resolution, never stored to (conflicts.md §1)."""
        untouched = self.versions == _NO_VERSIONS and self.store_id == (0, 0)
        return untouched and (not self.flags or self.inconsistent)

    def compare(self, other: VersionVector, ignore_inconsistent: bool = False) -> Order:
        """Place this vector against `other`; store ids play no part (vice.md §6.1)."""
        if not ignore_inconsistent and (self.flags | other.flags) & VersionFlags.INCON:
            return Order.INCONSISTENT
        if self.versions == other.versions:
            return Order.EQUAL
        pairs = list(zip(self.versions, other.versions, strict=True))
        if all(ours >= theirs for ours, theirs in pairs):
            return Order.DOMINATES
        if all(ours <= theirs for ours, theirs in pairs):
            return Order.SUBMITS
        return Order.INCONSISTENT

    def weakly_equal(self, other: VersionVector) -> bool:
        """Whether both name the same last update, so that their contents are the same (vice.md §6.1)."""
        return self.store_id == other.store_id

    def raised(self, slots: Iterable[int]) -> VersionVector:
        """Count one more update in each of `slots` (0..7)."""
        versions = list(self.versions)
        for slot in slots:
            versions[slot] += 1
        return VersionVector(tuple(versions), self.store_id, self.flags)

    def with_store_id(self, store_id: StoreId) -> VersionVector:
        """Return the same counters and flags under another last update."""
        return VersionVector(self.versions, store_id, self.flags)

    def with_flags(self, flags: int) -> VersionVector:
        """Return the same counters and store id with the flag word replaced."""
        return VersionVector(self.versions, self.store_id, flags)

    def maximum(self, other: VersionVector) -> VersionVector:
        """Return the slot-wise maximum under this vector's store id, with no flag set."""
        return VersionVector(tuple(map(max, self.versions, other.versions)), self.store_id)

    def __str__(self) -> str:
        used = max((slot for slot, version in enumerate(self.versions) if version), default=0) + 1
        flags = f" flags {self.flags:x}" if self.flags else ""
        return f"[{' '.join(map(str, self.versions[:used]))}][{self.store_id}]{flags}"


@dataclass(frozen=True, slots=True)
class GroupCheck:
    """The outcome of comparing the vectors of a group."""

    consistent: bool
    dominant: tuple[int, ...]
    """Slots of the newest replicas, equal to each other; empty if the check failed or nobody was heard."""


def check_group(vectors: Sequence[VersionVector | None], equality_required: bool = False) -> GroupCheck:
    """Find the newest among the vectors of a group; None stands for a server not heard (vice.md §6.2).

    Directories require equality: a directory is used only if all its replicas agree. A vector that is alone
    is always fine, even one marked inconsistent, for then the server itself has already had its say.
    """
    present = {slot: vector for slot, vector in enumerate(vectors) if vector is not None}
    dominant: list[int] = []
    for slot, vector in present.items():
        if not dominant:
            dominant = [slot]
            continue
        order = present[dominant[0]].compare(vector)
        if order is Order.EQUAL:
            dominant.append(slot)
        elif equality_required:
            return GroupCheck(False, ())
        elif order is Order.SUBMITS:
            dominant = [slot]
        elif order is Order.INCONSISTENT:
            return _search_dominant(present)
    return GroupCheck(True, tuple(dominant))


def _search_dominant(present: dict[int, VersionVector]) -> GroupCheck:
    """Look for one vector that equals or dominates every other one, though some are incomparable."""
    for slot, vector in present.items():
        orders = {other: vector.compare(their) for other, their in present.items() if other != slot}
        if not {Order.SUBMITS, Order.INCONSISTENT} & set(orders.values()):
            equals = {other for other, order in orders.items() if order is Order.EQUAL}
            return GroupCheck(True, tuple(sorted({slot} | equals)))
    return GroupCheck(False, ())
