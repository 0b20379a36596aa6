"""Records of the client modify log: every change to a volume, as servers get it (reintegration.md §1).

A packed log is a plain concatenation of records: opcode, the client's time, the operation's arguments, the
store id. The version vectors among the arguments are filled in by `thread` just before a log is sent. The fid
of an object that is removed or renamed is not sent at all, since servers look it up by name; the client has
it in the record because threading needs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, StoreId, VersionVector
from realmfs.vice.wire import I32, U32, Codec, Message, Text, codecs, message

MAX_RECORDS: Final = 100
"""Most records that one Reintegrate should carry: beyond it nothing gets faster (reintegration.md §1.1)."""

_UNSENT: Codec[Fid] = Codec(lambda _packer, _fid: None, lambda _unpacker: Fid.zero(), Fid.zero())
Unsent = Annotated[Fid, _UNSENT]
"""A fid that only the client knows; zero in a record that came over the wire."""


@message
class Record(Message):
    """What all records have in common."""

    OPCODE: ClassVar[int]
    OBJECTS: ClassVar[tuple[tuple[str, str], ...]]
    """Per object that the operation touches, the names of the fields with its fid and its version vector; the
    latter is empty for an object that the operation creates."""

    mtime: U32
    """The client's clock when the user did it, seconds since 1970."""
    store_id: StoreId

    def pack_into(self, packer: Packer) -> None:
        """Append the record: the arguments stand between time and store id."""
        packer.u32(self.OPCODE)
        packer.u32(self.mtime)
        for name, codec in codecs(type(self))[2:]:
            codec.pack(packer, getattr(self, name))
        self.store_id.pack(packer)

    @classmethod
    def unpack_from(cls, unpacker: Unpacker) -> Self:
        """Read a record behind its opcode. Raises BadPacket."""
        mtime = unpacker.u32()
        arguments = {name: codec.unpack(unpacker) for name, codec in codecs(cls)[2:]}
        return cls(mtime=mtime, store_id=StoreId.unpack(unpacker), **arguments)

    def objects(self) -> Iterator[Fid]:
        """Yield the fids of all objects that the operation touches, parents first."""
        return (getattr(self, fid) for fid, _ in self.OBJECTS)

    def translated(self, fids: Mapping[Fid, Fid]) -> Self:
        """Return the record with real fids in place of local ones."""
        changed: dict[str, Any] = {
            fid: fids[getattr(self, fid)] for fid, _ in self.OBJECTS if getattr(self, fid) in fids
        }
        return dataclasses.replace(self, **changed)


@message
class Create(Record):
    """A new file."""

    OPCODE = 1
    OBJECTS = (("parent", "parent_vv"), ("fid", ""))
    parent: Fid
    parent_vv: VersionVector = VersionVector()
    name: Text
    owner: U32
    """The local uid, which servers ignore: the owner is who is authenticated."""
    mode: U32
    fid: Fid


@message
class Rename(Record):
    """Move a name. The new one is free: what it overwrites has been removed by an earlier record."""

    OPCODE = 3
    OBJECTS = (("old_parent", "old_parent_vv"), ("new_parent", "new_parent_vv"), ("fid", "vv"))
    old_parent: Fid
    old_parent_vv: VersionVector = VersionVector()
    old_name: Text
    new_parent: Fid
    new_parent_vv: VersionVector = VersionVector()
    new_name: Text
    vv: VersionVector = VersionVector()
    fid: Unsent


@message
class Store(Record):
    """New contents, all of them; the bytes come by another way."""

    OPCODE = 11
    OBJECTS = (("fid", "vv"),)
    fid: Fid
    vv: VersionVector = VersionVector()
    length: I32


@message
class Utimes(Record):
    """A new modify time, in whole seconds."""

    OPCODE = 13
    OBJECTS = (("fid", "vv"),)
    fid: Fid
    vv: VersionVector = VersionVector()
    date: U32


@message
class Chmod(Record):
    """New mode bits; never of a symlink, which servers refuse."""

    OPCODE = 14
    OBJECTS = (("fid", "vv"),)
    fid: Fid
    vv: VersionVector = VersionVector()
    mode: U32


@message
class Chown(Record):
    """A new owner, as a Vice id."""

    OPCODE = 15
    OBJECTS = (("fid", "vv"),)
    fid: Fid
    vv: VersionVector = VersionVector()
    owner: U32


@message
class SymLink(Record):
    """A new symbolic link; a mount link if the mode is 0644."""

    OPCODE = 16
    OBJECTS = (("parent", "parent_vv"), ("fid", ""))
    parent: Fid
    parent_vv: VersionVector = VersionVector()
    name: Text
    content: Text
    fid: Fid
    owner: U32
    mode: U32


@message
class Link(Record):
    """Another name for a file, in the same directory."""

    OPCODE = 17
    OBJECTS = (("parent", "parent_vv"), ("fid", "vv"))
    parent: Fid
    parent_vv: VersionVector = VersionVector()
    name: Text
    fid: Fid
    vv: VersionVector = VersionVector()


@message
class MakeDir(Record):
    """A new directory. Its arguments stand in another order than those of Create."""

    OPCODE = 18
    OBJECTS = (("parent", "parent_vv"), ("fid", ""))
    parent: Fid
    parent_vv: VersionVector = VersionVector()
    name: Text
    fid: Fid
    owner: U32
    mode: U32


@message
class RemoveDir(Record):
    """Remove an empty directory."""

    OPCODE = 19
    OBJECTS = (("parent", "parent_vv"), ("fid", "vv"))
    parent: Fid
    parent_vv: VersionVector = VersionVector()
    name: Text
    vv: VersionVector = VersionVector()
    fid: Unsent


@message
class Remove(Record):
    """Remove a name of a file or symlink."""

    OPCODE = 21
    OBJECTS = (("parent", "parent_vv"), ("fid", "vv"))
    parent: Fid
    parent_vv: VersionVector = VersionVector()
    name: Text
    vv: VersionVector = VersionVector()
    fid: Unsent


AnyRecord: TypeAlias = (
    Create | Rename | Store | Utimes | Chmod | Chown | SymLink | Link | MakeDir | RemoveDir | Remove
)
RECORDS: Final[Mapping[int, type[AnyRecord]]] = {
    kind.OPCODE: kind
    for kind in (Create, Rename, Store, Utimes, Chmod, Chown, SymLink, Link, MakeDir, RemoveDir, Remove)
}
"""Record classes by opcode. All other numbers are retired, or were never sent (reintegration.md §1.1)."""


class BadLog(BadPacket):
    """A log that can not be read: what to answer, and how many good records come before the bad one."""

    def __init__(self, code: Code, index: int, text: str) -> None:
        """`code` is ENOMEM or EINVAL, as reference servers answer (reintegration.md §2.2)."""
        super().__init__(f"record {index} of a log: {text}")
        self.code = code
        self.index = index


def pack_log(records: Iterable[Record]) -> bytes:
    """Return the packed log of some records, in their order."""
    packer = Packer()
    for record in records:
        record.pack_into(packer)
    return packer.done()


def unpack_log(data: bytes, volumes: Collection[int] | None = None) -> list[AnyRecord]:
    """Read a packed log, all of whose fids must be of one of `volumes` if that is given.

    Raises BadLog: ENOMEM for a record that can not be read, EINVAL for an unknown opcode or a foreign volume.
    """
    unpacker = Unpacker(data)
    records: list[AnyRecord] = []
    while not unpacker.at_end:
        try:
            opcode = unpacker.u32()
            kind = RECORDS.get(opcode)
            record = kind.unpack_from(unpacker) if kind else None
        except BadPacket as error:
            raise BadLog(Code.ENOMEM, len(records), str(error)) from error
        if record is None:
            raise BadLog(Code.EINVAL, len(records), f"opcode {opcode}")
        if volumes is not None and not _all_in(record, volumes):
            raise BadLog(Code.EINVAL, len(records), "a fid of another volume")
        records.append(record)
    return records


def _all_in(record: Record, volumes: Collection[int]) -> bool:
    """Whether the fids that were sent are of these volumes."""
    hidden = {name for name, codec in codecs(type(record)) if codec is _UNSENT}
    return all(getattr(record, fid).volume in volumes for fid, _ in record.OBJECTS if fid not in hidden)


def thread(records: Sequence[AnyRecord], vectors: Mapping[Fid, VersionVector]) -> list[AnyRecord]:
    """Fill in the version vectors of one batch (reintegration.md §1.4).

    `vectors` has the cached vector of every object that the batch touches and does not create itself;
    anything missing raises KeyError. Within the batch the counters stand still, and the store ids lead from
    each record to the next one that touches the same object.
    """
    current = dict(vectors)
    threaded = []
    for record in records:
        filled: dict[str, Any] = {vv: current[getattr(record, fid)] for fid, vv in record.OBJECTS if vv}
        threaded.append(dataclasses.replace(record, **filled))
        for fid, vv in record.OBJECTS:
            before = current[getattr(record, fid)] if vv else VersionVector()
            current[getattr(record, fid)] = before.with_store_id(record.store_id)
    return threaded


def committed(
    records: Sequence[AnyRecord], vectors: Mapping[Fid, VersionVector], slots: Collection[int]
) -> dict[Fid, VersionVector]:
    """Return the vectors of all objects a batch touched, now that the servers of `slots` have replayed it.

    Each object gets the store id of the last record that touched it, and one more in each slot, once per
    batch.
    """
    touched = last_store_ids(records)
    return {
        fid: vectors.get(fid, VersionVector()).with_store_id(store_id).raised(slots)
        for fid, store_id in touched.items()
    }


def last_store_ids(records: Sequence[Record]) -> dict[Fid, StoreId]:
    """Return the store id under which each object ends; these alone matter for COP2 (vice.md §6.4)."""
    return {fid: record.store_id for record in records for fid in record.objects()}


def consulted(records: Sequence[Record]) -> list[Fid]:
    """Return the files by whose directories a server's rights are judged, and nothing else done to those.

    A reference server counts such a directory, where the file was when the batch came, as changed by it
    (reintegration.md §2.7): it has one more in its own slot, keeps its store id, and waits for the second
    phase of that. A file that the batch itself has made is in a directory that the batch changes.
    """
    made: set[Fid] = set()
    files: dict[Fid, None] = {}
    for record in records:
        if isinstance(record, Create | SymLink):
            made.add(record.fid)
        elif isinstance(record, Store | Utimes | Chmod | Chown) and not record.fid.is_directory:
            files[record.fid] = None
    return [fid for fid in files if fid not in made]
