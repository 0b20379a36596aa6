"""What one replica says of its objects, for the servers of a group among themselves.

A *node* is an object's (vnode, unique): the same at every replica, whose volume ids differ. A `DirectoryView`
is everything that a merge needs to know of a directory at one replica, be it gone there:

    row       status, vector, parent                 None: the replica does not have it (any more)
    image     its pages, as clients fetch them
    stamps    per name, and per attribute that was ever set, the store id of the change that put it there
    tombs     what was here and was taken away, until every replica is known to have taken it away
    above     the directories from its parent up to the root

The classes are messages (vice/wire.py) so that they have one wire form; what does not parse is a BadPacket.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Final, Self

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.marshal import Packer, Unpacker
from realmfs.vice.directory import MAX_PAGES, PAGE, Directory
from realmfs.vice.types import ObjectType, StoreId, VersionFlags, VersionVector
from realmfs.vice.wire import U32, Codec, Message, array, counted, message, own_codec

Node = tuple[int, int]
"""Vnode and unique of an object."""

NOWHERE: Final[Node] = (0, 0)
ACL: Final = b"/acl"
MODE: Final = b"/mode"
OWNER: Final = b"/owner"
ATTRIBUTES: Final = (ACL, MODE, OWNER)
"""Attributes of a directory, stamped like entries; no name has a slash in it."""
UNSTAMPED: Final = StoreId(0, 0)
"""The stamp of what was there from the beginning."""
MAX_MANY: Final = 1 << 20
"""Most views, names or tombs of one message."""
_MAX_IMAGE: Final = MAX_PAGES * PAGE


def _pack_node(packer: Packer, node: Node) -> None:
    packer.u32(node[0])
    packer.u32(node[1])


def nested(kind: type[Any]) -> Codec[Any]:
    """Return the codec of a message inside another."""
    return Codec(lambda packer, value: value.pack_into(packer), kind.unpack_from, None)


NODE: Final[Codec[Node]] = Codec(_pack_node, lambda unpacker: (unpacker.u32(), unpacker.u32()), NOWHERE)
Nodes = Annotated[tuple[Node, ...], array(NODE, MAX_MANY)]
Blob = Annotated[bytes, counted(4096)]
MAX_PAST: Final = 1000
"""Most versions that are remembered of an object; more follow one another only while a server is away."""
STORE_ID: Final[Codec[StoreId]] = Codec(
    _pack_node, lambda unpacker: StoreId(unpacker.u32(), unpacker.u32()), StoreId(0, 0)
)
Past = Annotated[tuple[StoreId, ...], array(STORE_ID, 4 * MAX_PAST)]


class Bulk(Message):
    """A message that travels as a side effect."""

    __slots__ = ()

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read it whole. Raises BadPacket."""
        unpacker = Unpacker(data)
        found = cls.unpack_from(unpacker)
        unpacker.finish()
        return found


@message
class ObjectView(Message):
    """An object at one replica: its status."""

    node: Annotated[Node, NODE]
    type: ObjectType
    links: U32
    length: U32
    data_version: U32
    vv: VersionVector
    mtime: U32
    author: U32
    owner: U32
    mode: U32
    parent: Annotated[Node, NODE]
    target: Blob = b""
    sha: Blob = b""
    past: Past = ()
    """Of a file: versions that this one was made from, since all replicas were last equal."""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.type is ObjectType.DIRECTORY

    @property
    def is_shell(self) -> bool:
        """Whether this is a shell that resolution made: the object exists, its contents are elsewhere."""
        return bool(self.vv.flags & VersionFlags.BARREN)


@message
class Tomb(Message):
    """An entry, or an attribute's value, that was taken away at this replica."""

    name: Blob
    child: Annotated[Node, NODE]
    stamp: StoreId
    """Of the entry that was taken away: an entry of the same name and child put there later is another."""
    op: StoreId
    """The change that took it away."""
    batch: StoreId
    """The last change of the directory in the same batch: whoever executed that executed `op`, too."""
    to: Annotated[Node, NODE] = NOWHERE
    """The directory that the child was moved to; NOWHERE if it lost a name."""
    vv: VersionVector = VersionVector()  # immutable
    """The child's, as it was then."""
    past: Past = ()
    """Of a file that was removed: versions that the last one was made from."""


@message
class Stamp(Message):
    """When an entry or attribute was put where it is."""

    name: Blob
    id: StoreId


@message
class DirectoryView(Message):
    """A directory at one replica."""

    node: Annotated[Node, NODE]
    rows: Annotated[tuple[ObjectView, ...], array(nested(ObjectView), 1)] = ()
    acl: Blob = b""
    image: Annotated[bytes, counted(_MAX_IMAGE)] = b""
    stamps: Annotated[tuple[Stamp, ...], array(nested(Stamp), MAX_MANY)] = ()
    tombs: Annotated[tuple[Tomb, ...], array(nested(Tomb), MAX_MANY)] = ()
    above: Nodes = ()

    @property
    def row(self) -> ObjectView | None:
        """The status, if the replica has the directory."""
        return self.rows[0] if self.rows else None

    @property
    def is_whole(self) -> bool:
        """Whether the replica has the directory and its contents."""
        return bool(self.rows) and not self.rows[0].is_shell

    @property
    def entries(self) -> dict[bytes, tuple[Node, StoreId]]:
        """Node and stamp by name, without `.` and `..`. Raises BadPacket."""
        return _entries(self.image, self.stamps) if self.is_whole else {}

    def stamp(self, name: bytes) -> StoreId:
        """Return the stamp of an attribute."""
        return next((stamp.id for stamp in self.stamps if stamp.name == name), UNSTAMPED)


@lru_cache(256)
def _entries(image: bytes, stamps: tuple[Stamp, ...]) -> dict[bytes, tuple[Node, StoreId]]:
    known = {stamp.name: stamp.id for stamp in stamps}
    return {
        name: ((vnode, unique), known.get(name, UNSTAMPED))
        for name, vnode, unique in Directory.parse(image).items()
        if name not in (b".", b"..")
    }


@message
class Views(Bulk):
    """What a replica says of some directories and objects; what is not there is left out."""

    directories: Annotated[tuple[DirectoryView, ...], array(nested(DirectoryView), MAX_MANY)] = ()
    objects: Annotated[tuple[ObjectView, ...], array(nested(ObjectView), MAX_MANY)] = ()


class ReplicaViews:
    """All that is known of one replica in the course of a resolution."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.directories: dict[Node, DirectoryView] = {}
        self.objects: dict[Node, ObjectView | None] = {}

    @property
    def versions(self) -> dict[tuple[Node, bool], VersionVector | None]:
        """The vector of each object, None if it is not there; with the object, whether all of it is known."""
        return {
            (node, node in self.directories): row.vv if row is not None else None
            for node, row in self.objects.items()
        }

    def add(self, asked: tuple[Node, ...], more: tuple[Node, ...], found: Views) -> None:
        """Note the answer to a question about directories `asked` and objects `more`. Raises BadPacket."""
        if {view.node for view in found.directories} != set(asked):
            raise BadPacket("views of other directories than were asked for")
        for node in more:
            self.objects[node] = None
        for row in found.objects:
            self.objects[row.node] = row
        for view in found.directories:
            self.directories[view.node] = view
            self.objects[view.node] = view.row


@message
class Guard(Message):
    """What an object was when a resolution looked: the plan holds only as long as it is still that."""

    node: Annotated[Node, NODE]
    rows: Annotated[tuple[VersionVector, ...], array(own_codec(VersionVector), 1)] = ()
    """Its vector; nothing if it was not there."""


@message
class Change(Message):
    """What an object becomes at one replica. A directory's contents are in a DirectoryChange."""

    row: Annotated[ObjectView, nested(ObjectView)]
    acl: Blob = b""
    """Of a directory that is made as a shell."""


@message
class DirectoryChange(Message):
    """What a directory becomes at one replica."""

    row: Annotated[ObjectView, nested(ObjectView)]
    acl: Blob
    image: Annotated[bytes, counted(_MAX_IMAGE)]
    stamps: Annotated[tuple[Stamp, ...], array(nested(Stamp), MAX_MANY)] = ()
    tombs: Annotated[tuple[Tomb, ...], array(nested(Tomb), MAX_MANY)] = ()


@message
class Plan(Bulk):
    """What one replica has to do, in one transaction, if all guards hold."""

    guards: Annotated[tuple[Guard, ...], array(nested(Guard), MAX_MANY)] = ()
    directories: Annotated[tuple[DirectoryChange, ...], array(nested(DirectoryChange), MAX_MANY)] = ()
    objects: Annotated[tuple[Change, ...], array(nested(Change), MAX_MANY)] = ()
    gone: Nodes = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.directories or self.objects or self.gone)
