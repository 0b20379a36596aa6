"""The values that the file service speaks of: fids, status blocks, client identities (vice.md §1).

Every type packs itself into a Packer and unpacks from an Unpacker, raising BadPacket and nothing else;
`zero()` is what stands in a reply that carries an error. Integers are in the protocol's own units: seconds
since 1970, bytes, Vice ids. The types of volumes live in `realmfs.vice.volumes` and are exported from here as
well.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.versions import VSG_MEMBERS, Order, StoreId, VersionFlags, VersionVector
from realmfs.vice.volumes import Disk, Replica, Statistics, VolumeInfo, VolumeStatus, VolumeType

__all__ = [
    "CALLBACK_SUBSYSTEM",
    "FABRICATED",
    "FILE_SUBSYSTEM",
    "LOCAL_DIRECTORY",
    "LOCAL_FILE",
    "ROOT",
    "VICE_VERSION",
    "VSG_MEMBERS",
    "ClientId",
    "Disk",
    "Fid",
    "FidAndVector",
    "FidRange",
    "ObjectType",
    "Order",
    "ReintHandle",
    "Replica",
    "Rights",
    "Statistics",
    "Status",
    "StoreId",
    "VersionFlags",
    "VersionVector",
    "VolumeInfo",
    "VolumeStatus",
    "VolumeType",
]

FILE_SUBSYSTEM: Final = 1001
CALLBACK_SUBSYSTEM: Final = 127823
VICE_VERSION: Final = 3
"""What NewConnectFS must say (vice.md §2.2)."""
ROOT: Final = (1, 1)
"""Vnode and unique of the root directory of every volume (vice.md §3)."""

LOCAL_FILE: Final = 0xFFFFFFFE
"""Vnode of a file or symlink made without a server; such fids are never sent (reintegration.md §6)."""
LOCAL_DIRECTORY: Final = 0xFFFFFFFF
"""Vnode of a directory made without a server."""
FABRICATED: Final = (0xFFFFFFFA, 0xFFFFFFFC)
"""Vnodes of objects that only this client sees (vice.md §3)."""

_THREE_WORDS = struct.Struct(">3I")
_STATUS = struct.Struct(">IIiII 8i3I IIIIiiIII")
_INTERFACE_VERSION = 1


class Fid(NamedTuple):
    """The name of an object: volume, vnode, unique; 12 bytes (vice.md §3)."""

    volume: int
    vnode: int
    unique: int

    def pack(self, packer: Packer) -> None:
        """Append the 12 wire bytes."""
        packer.raw(_THREE_WORDS.pack(*self))

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 12 bytes. Raises BadPacket."""
        return cls(*_THREE_WORDS.unpack(unpacker.raw(12)))

    @classmethod
    def zero(cls) -> Self:
        """The null fid: no object; in a callback, a probe."""
        return cls(0, 0, 0)

    @classmethod
    def root(cls, volume: int) -> Self:
        """The root directory of a volume."""
        return cls(volume, *ROOT)

    @property
    def is_directory(self) -> bool:
        """Whether the fid can only be a directory's: its vnode is odd."""
        return bool(self.vnode & 1)

    @property
    def is_root(self) -> bool:
        """Whether this is the root directory of its volume."""
        return self[1:] == ROOT

    @property
    def is_local(self) -> bool:
        """Whether no server knows this fid, so that none may be asked about it."""
        return self.vnode >= LOCAL_FILE or self.vnode in FABRICATED

    @property
    def names_volume(self) -> bool:
        """Whether a callback with this fid is about the whole volume (vice.md §4.2)."""
        return self.vnode == 0 or self.unique == 0

    def in_volume(self, volume: int) -> Self:
        """Return the same object under another volume id, as between a replicated volume and its replicas."""
        return self._replace(volume=volume)

    def __str__(self) -> str:
        return f"{self.volume:x}.{self.vnode:x}.{self.unique:x}"


class ObjectType(enum.IntEnum):
    """ViceDataType. INVALID is what an error's reply holds."""

    INVALID = 0
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3


class Rights(enum.IntFlag, boundary=enum.KEEP):
    """What an access list grants on a directory and the files in it (directories.md §5.1).

    Bits above `a` are kept, as the servers keep them.
    """

    NONE = 0
    READ = 1
    WRITE = 2
    INSERT = 4
    LOOKUP = 8
    DELETE = 16
    LOCK = 32
    ADMINISTER = 64
    ALL = 127


@dataclass(frozen=True, slots=True)
class Status:
    """ViceStatus: what a server knows of an object; 100 bytes (vice.md §1.1)."""

    type: ObjectType
    links: int
    length: int
    """Bytes; of a directory the size of its image."""
    data_version: int
    """A counter of this replica alone; never compare it between servers."""
    vv: VersionVector
    date: int
    """Modify time, whole seconds since 1970. There is no other time."""
    author: int
    owner: int
    callback: bool
    """Whether this reply promises a callback."""
    my_rights: int
    """The caller's rights on the directory, or on the parent directory of anything else."""
    any_rights: int
    """System:AnyUser's rights, same place."""
    mode: int
    parent: tuple[int, int]
    """Vnode and unique of the parent directory; (0, 0) for a volume root."""

    def pack(self, packer: Packer) -> None:
        """Append the 100 wire bytes."""
        vv = self.vv
        packer.raw(
            _STATUS.pack(
                _INTERFACE_VERSION, self.type, self.links, self.length, self.data_version,
                *vv.versions, *vv.store_id, vv.flags,
                self.date, self.author, self.owner, self.callback, self.my_rights, self.any_rights, self.mode,
                *self.parent,
            )
        )  # fmt: skip

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 100 bytes from a server. Raises BadPacket; the type is one of the three real ones."""
        status = cls.unpack_argument(unpacker)
        if status.type is ObjectType.INVALID:
            raise BadPacket("the status is of no type of object")
        return status

    @classmethod
    def unpack_argument(cls, unpacker: Unpacker) -> Self:
        """Read 100 bytes from a client, who fills only the fields that the call is about (vice.md §1.1)."""
        words = _STATUS.unpack(unpacker.raw(100))
        return cls(
            _OBJECT_TYPES.get(words[1], ObjectType.INVALID),
            words[2],
            words[3],
            words[4],
            VersionVector(words[5:13], StoreId(words[13], words[14]), words[15]),
            words[16],
            words[17],
            words[18],
            words[19] == 1,
            words[20],
            words[21],
            words[22],
            (words[23], words[24]),
        )

    @classmethod
    def zero(cls) -> Self:
        """The status that says nothing: an error's, or a request's that asks for one."""
        return cls(ObjectType.INVALID, 0, 0, 0, VersionVector(), 0, 0, 0, False, 0, 0, 0, (0, 0))


_OBJECT_TYPES = {kind.value: kind for kind in ObjectType}


@dataclass(frozen=True, slots=True)
class FidRange:
    """Fids set aside by a server: the i-th is (vnode + i × stride, unique + i); 16 bytes (vice.md §3.1)."""

    vnode: int
    unique: int
    stride: int
    count: int

    def pack(self, packer: Packer) -> None:
        """Append the 16 wire bytes."""
        packer.u32(self.vnode)
        packer.u32(self.unique)
        packer.i32(self.stride)
        packer.i32(self.count)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 16 bytes. Raises BadPacket; whether the numbers make sense is for `checked` to say."""
        return cls(unpacker.u32(), unpacker.u32(), unpacker.i32(), unpacker.i32())

    @classmethod
    def zero(cls) -> Self:
        """The empty range."""
        return cls(0, 0, 0, 0)

    @classmethod
    def request(cls, count: int) -> Self:
        """What asks for `count` fids."""
        return cls(0, 0, 0, count)

    def checked(self, wanted: int, directories: bool) -> Self:
        """Return this range if a server may grant it for `wanted` objects. Raises BadPacket."""
        odd = int(directories)
        sound = 0 <= self.count <= wanted and self.stride > 0 and self.stride % 2 == 0
        last = self.vnode + self.stride * self.count, self.unique + self.count
        if self.count and not (sound and self.vnode % 2 == odd and self.vnode and max(last) < 0xFFFFFF00):
            raise BadPacket(f"a server granted the senseless fid range {self}")
        return self

    def fids(self, volume: int) -> Iterator[Fid]:
        """Yield the fids of the range, in order."""
        for step in range(self.count):
            yield Fid(volume, self.vnode + step * self.stride, self.unique + step)

    def rest(self, used: int) -> FidRange:
        """Return the range without its first `used` fids."""
        return FidRange(self.vnode + used * self.stride, self.unique + used, self.stride, self.count - used)


class FidAndVector(NamedTuple):
    """ViceFidAndVV: an object and the version the client has of it; 56 bytes."""

    fid: Fid
    vv: VersionVector

    def pack(self, packer: Packer) -> None:
        """Append the 56 wire bytes."""
        self.fid.pack(packer)
        self.vv.pack(packer)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 56 bytes. Raises BadPacket."""
        return cls(Fid.unpack(unpacker), VersionVector.unpack(unpacker))

    @classmethod
    def zero(cls) -> Self:
        """The null fid at no version."""
        return cls(Fid.zero(), VersionVector())


@dataclass(frozen=True, slots=True)
class ClientId:
    """ViceClient: how a client introduces itself; servers only log it (vice.md §2.2)."""

    user: bytes
    workstation: bytes
    venus: bytes
    uuid: bytes
    """16 bytes: constant as long as the cache lives."""

    def pack(self, packer: Packer) -> None:
        """Append three strings and the UUID."""
        for text in (self.user, self.workstation, self.venus):
            packer.string(text)
        packer.raw(self.uuid)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read three strings and 16 bytes. Raises BadPacket."""
        return cls(unpacker.string(), unpacker.string(), unpacker.string(), unpacker.raw(16))

    @classmethod
    def zero(cls) -> Self:
        """A client that says nothing of itself."""
        return cls(b"", b"", b"", bytes(16))


class ReintHandle(NamedTuple):
    """A server's container for a store sent in pieces; opaque to the client (reintegration.md §3)."""

    birth_time: int
    device: int
    inode: int

    def pack(self, packer: Packer) -> None:
        """Append the 12 wire bytes."""
        for word in self:
            packer.i32(word)

    @classmethod
    def unpack(cls, unpacker: Unpacker) -> Self:
        """Read 12 bytes. Raises BadPacket."""
        return cls(unpacker.i32(), unpacker.i32(), unpacker.i32())

    @classmethod
    def zero(cls) -> Self:
        """No handle."""
        return cls(0, 0, 0)
