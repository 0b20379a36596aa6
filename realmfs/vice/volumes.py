"""What servers say of volumes, and of themselves (vice.md §1.2 to §1.4)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import NamedTuple, Self

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.versions import VSG_MEMBERS

_INFO = struct.Struct(">Ii5II8II8I")
_STATUS = struct.Struct(">IIB3xB3xB3xB3xI6i")
_STATISTICS = struct.Struct(">45I")
_DISK = struct.Struct(">ii32s")
_DISKS = 10
_REPLICATED_IDS = 0x7F


class VolumeType(enum.IntEnum):
    """ViceVolumeType; also the index into the related ids of a VolumeInfo."""

    READ_WRITE = 0
    """One replica of a replicated volume."""
    READ_ONLY = 1
    BACKUP = 2
    REPLICATED = 3
    NON_REPLICATED = 4


_TYPES = {kind.value: kind for kind in VolumeType}


class Replica(NamedTuple):
    """One member of a volume's group."""

    slot: int
    """Index into every version vector of the volume."""
    volume: int
    """Id of the replica; of a volume that is not replicated its own id."""
    server: str
    """IPv4 address."""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """Where a volume lives; 100 bytes (vice.md §1.2)."""

    id: int
    type: VolumeType
    related: tuple[int, ...]
    """Five ids, indexed by VolumeType: the same data in its other forms, 0 = none."""
    servers: tuple[int, ...]
    """IPv4 addresses as integers, one per server, at most 8; the index is the version vector's slot."""
    replica_ids: tuple[int, ...]
    """Eight ids in the order of `servers`; all 0 unless the volume is replicated."""

    def pack(self, packer: Packer) -> None:
        """Append the 100 wire bytes."""
        servers = self.servers + (0,) * (VSG_MEMBERS - len(self.servers))
        head = (self.id, self.type, *self.related, len(self.servers))
        packer.raw(_INFO.pack(*head, *servers, 0, *self.replica_ids))

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 100 bytes. Raises BadPacket."""
        words = _INFO.unpack(unpacker.raw(_INFO.size))
        count = words[7]
        kind = _TYPES.get(words[1])
        if kind is None or count > VSG_MEMBERS:
            raise BadPacket(f"a volume of type {words[1]} on {count} servers")
        return cls(words[0], kind, words[2:7], words[8 : 8 + count], words[17:25])

    @classmethod
    def zero(cls) -> Self:
        """What accompanies an error."""
        return cls(0, VolumeType.READ_WRITE, (0,) * 5, (), (0,) * VSG_MEMBERS)

    @property
    def replicated_id(self) -> int:
        """Id of the replicated volume that this is, or is a replica of; 0 if it stands alone."""
        return self.related[VolumeType.REPLICATED]

    @property
    def is_replicated(self) -> bool:
        """Whether this is a replicated volume: several vectors to compare, COP2, resolution."""
        return self.type is VolumeType.REPLICATED

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The group, in slot order; slots without a server are left out."""
        ids = self.replica_ids if self.is_replicated else (self.id,) * VSG_MEMBERS
        return tuple(
            Replica(slot, ids[slot], address_text(address))
            for slot, address in enumerate(self.servers)
            if address
        )


def address_text(address: int) -> str:
    """Return the dotted form of an IPv4 address given as an integer."""
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


def is_replicated_id(volume: int) -> bool:
    """Whether the id is of the range that servers give to replicated volumes (vice.md §3)."""
    return volume >> 24 == _REPLICATED_IDS


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """State and quota of a volume, in blocks of 1 KiB; 52 bytes (vice.md §1.3)."""

    id: int
    parent_id: int
    online: bool
    in_service: bool
    blessed: bool
    needs_salvage: bool
    type: int
    min_quota: int
    max_quota: int
    """0 = unlimited; -1 in a request = leave it."""
    blocks_in_use: int
    partition_available: int
    partition_blocks: int

    def pack(self, packer: Packer) -> None:
        """Append the 52 wire bytes."""
        packer.raw(
            _STATUS.pack(
                self.id, self.parent_id,
                self.online, self.in_service, self.blessed, self.needs_salvage,
                self.type, self.min_quota, self.max_quota,
                self.blocks_in_use, self.partition_available, self.partition_blocks, 0,
            )
        )  # fmt: skip

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 52 bytes. Raises BadPacket."""
        words = _STATUS.unpack(unpacker.raw(_STATUS.size))
        flags = (bool(word) for word in words[2:6])
        return cls(words[0], words[1], *flags, *words[6:12])

    @classmethod
    def zero(cls) -> Self:
        """What accompanies an error."""
        return cls(0, 0, False, False, False, False, 0, 0, 0, 0, 0, 0)

    @classmethod
    def request(cls, volume: int, min_quota: int = -1, max_quota: int = -1) -> Self:
        """What SetVolumeStatus is given: -1 leaves a quota as it is."""
        return cls(volume, 0, False, False, False, False, 0, min_quota, max_quota, 0, 0, 0)


class Disk(NamedTuple):
    """ViceDisk: one partition of a server, in blocks of 1 KiB."""

    available: int
    blocks: int
    name: bytes


COUNTERS = (
    "obsolete1", "obsolete2", "current_time", "boot_time", "start_time", "current_connections",
    "total_vice_calls", "total_fetches", "fetch_datas", "fetched_bytes", "fetch_data_rate",
    "total_stores", "obsolete3", "stored_bytes", "store_data_rate", "rpc_bytes_sent",
    "rpc_bytes_received", "rpc_packets_sent", "rpc_packets_received", "rpc_packets_lost",
    "rpc_bogus_packets", "system_cpu", "user_cpu", "nice_cpu", "idle_cpu", "total_io", "active_vm",
    "total_vm", "ether_errors", "ether_writes", "ether_interrupts", "ether_good_reads",
    "ether_bytes_written", "ether_bytes_read", "process_size", "workstations", "active_workstations",
    "minor_faults", "major_faults", "swaps", "spare4", "user_time", "system_time", "resident_size",
    "data_size",
)  # fmt: skip
"""Names of the 45 counters of a ViceStatistics, in wire order (vice.md §1.4)."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """ViceStatistics: what a server counts of its life; 580 bytes (vice.md §1.4)."""

    counters: tuple[int, ...]
    """45 numbers, named by COUNTERS."""
    disks: tuple[Disk, ...]
    """The partitions there are, at most 10."""

    def pack(self, packer: Packer) -> None:
        """Append the 580 wire bytes."""
        packer.raw(_STATISTICS.pack(*self.counters))
        blank = Disk(0, 0, b"")
        for disk in self.disks + (blank,) * (_DISKS - len(self.disks)):
            packer.raw(_DISK.pack(*disk))

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 580 bytes. Raises BadPacket."""
        counters = _STATISTICS.unpack(unpacker.raw(_STATISTICS.size))
        slots = _DISK.iter_unpack(unpacker.raw(_DISK.size * _DISKS))
        disks = (Disk(available, blocks, name.partition(b"\0")[0]) for available, blocks, name in slots)
        return cls(counters, tuple(disk for disk in disks if disk.name))

    @classmethod
    def zero(cls) -> Self:
        """What accompanies an error."""
        return cls((0,) * len(COUNTERS), ())

    def named(self) -> dict[str, int]:
        """Return the counters by name."""
        return dict(zip(COUNTERS, self.counters, strict=True))
