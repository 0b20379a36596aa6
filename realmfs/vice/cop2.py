"""COP2: the second phase of an update, by which each server learns which others executed it (vice.md §6.4).

A COP2 string is a sequence of 52-byte entries: the update's store id, then a version vector that serves as
the *update set*: 1 in the slot of each server that executed the update. The strings travel in a Cop2 call or
ride on others as PiggyCOP2. Losing one is legal, and sending one twice or for an unknown store id is
harmless.

An update set that is exactly the group, 1 in each slot, makes a reference server cut the resolution logs of
the directories. Of its own slot it looks otherwise only whether it is 0; with 2 there it counts all others as
always and leaves the logs alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.versions import StoreId, VersionVector

ENTRY_SIZE: Final = 52
PIGGY_ENTRIES: Final = 19
"""Most entries that the reference puts on another call."""
CALL_ENTRIES: Final = 81
"""Most entries that fit the one packet of a Cop2 call; more than a packet is never answered."""


class Cop2Entry(NamedTuple):
    """One update, and the slots of the servers that executed it."""

    store_id: StoreId
    slots: tuple[int, ...]


def pack_entries(entries: Iterable[Cop2Entry], keep: int | None = None) -> bytes:
    """Return the COP2 string of some updates.

    `keep`: the slot of the server that it is for, which shall leave its resolution logs alone.
    """
    packer = Packer()
    for entry in entries:
        update_set = VersionVector().raised(entry.slots)
        if keep in entry.slots:
            update_set = update_set.raised((keep,))
        entry.store_id.pack(packer)
        update_set.pack(packer)
    return packer.done()


def unpack_entries(data: bytes) -> list[Cop2Entry]:
    """Read a COP2 string. Raises BadPacket, which a server answers EINVAL, if it is cut short."""
    if len(data) % ENTRY_SIZE:
        raise BadPacket(f"{len(data)} bytes are no whole number of COP2 entries")
    unpacker = Unpacker(data)
    entries = []
    for _ in range(len(data) // ENTRY_SIZE):
        store_id, update_set = StoreId.unpack(unpacker), VersionVector.unpack(unpacker)
        slots = tuple(slot for slot, executed in enumerate(update_set.versions) if executed)
        entries.append(Cop2Entry(store_id, slots))
    return entries
