"""What the servers of a realm say to each other: subsystem PEER (docs/reference/server-protocol.md).

Bound at level SECURE with the realm's secret, ident "server <number>". Volumes go by their group ids, objects
by (vnode, unique). Bulk (`Views`, `Plan`, surveys, the realm's database, contents of files) is a side effect.
"""

from __future__ import annotations

from typing import Annotated, Final

from realmfs.server.views import NODE, Blob, Bulk, Guard, Node, ObjectView, nested
from realmfs.vice.types import VersionVector
from realmfs.vice.wire import (
    U32,
    Flag,
    NoResults,
    Request,
    Results,
    Transfer,
    array,
    message,
    service,
)

PEER_SUBSYSTEM: Final = 105893
PROTOCOL: Final = 1
MAX_NODES: Final = 100
"""Most nodes that one request names."""
MAX_BULK: Final = 256 << 20
"""Most bytes of one message in bulk."""
_Nodes = Annotated[tuple[Node, ...], array(NODE, MAX_NODES)]


@message
class Place(Bulk):
    """Where a server is."""

    number: U32
    address: Blob
    port: U32
    stamp: U32


Places = Annotated[tuple[Place, ...], array(nested(Place), 256)]


@message
class Hello(Request["Hello.Reply"]):
    """I am here, this is what I know; what do you know?"""

    OPCODE = 1
    protocol: U32 = PROTOCOL
    started: U32
    """Different at each start."""
    realm_version: U32
    places: Places

    @message
    class Reply(Results):
        """The same of the other side."""

        started: U32
        realm_version: U32
        places: Places


@message
class FetchRealm(Request[NoResults]):
    """Give me what all servers of the realm share (realmdb.py)."""

    OPCODE = 2
    TRANSFER = Transfer.TO_CLIENT
    Reply = NoResults


@message
class Look(Request[NoResults]):
    """What do you have of these directories and objects? A `Views` comes back."""

    OPCODE = 3
    TRANSFER = Transfer.TO_CLIENT
    Reply = NoResults
    volume: U32
    directories: _Nodes
    objects: _Nodes


@message
class Install(Request[NoResults]):
    """Execute the `Plan` that comes along. EAGAIN: something is not as it was when you looked."""

    OPCODE = 4
    TRANSFER = Transfer.TO_SERVER
    Reply = NoResults
    volume: U32


@message
class FetchContents(Request[NoResults]):
    """Give me a file's contents if it has this version, else EAGAIN."""

    OPCODE = 5
    TRANSFER = Transfer.TO_CLIENT
    Reply = NoResults
    volume: U32
    node: Annotated[Node, NODE]
    vv: VersionVector


@message
class Take(Request[NoResults]):
    """Fetch a file from another server and make it this version, if you have what the guard says."""

    OPCODE = 6
    Reply = NoResults
    volume: U32
    server: U32
    guard: Annotated[Guard, nested(Guard)]
    row: Annotated[ObjectView, nested(ObjectView)]
    source: VersionVector
    """The version that the other server has of it now."""


@message
class Settled(Bulk):
    """A directory that is the same at all replicas."""

    node: Annotated[Node, NODE]
    vv: VersionVector


@message
class Forget(Request[NoResults]):
    """These directories are the same everywhere: nobody needs to know any more what was taken away."""

    OPCODE = 7
    Reply = NoResults
    volume: U32
    settled: Annotated[tuple[Settled, ...], array(nested(Settled), 32)]


@message
class GetSurvey(Request["GetSurvey.Reply"]):
    """What versions do you have of everything? A survey comes (survey.py), nothing if its digest is this."""

    OPCODE = 8
    TRANSFER = Transfer.TO_CLIENT
    volume: U32
    digest: Blob

    @message
    class Reply(Results):
        """State of the replica: whether it is on line, whether nothing was ever in it, and its marks."""

        online: Flag
        virgin: Flag
        next_unique: U32
        next_file: U32
        next_directory: U32


PEER_SERVICE: Final = service(Hello, FetchRealm, Look, Install, FetchContents, Take, Forget, GetSurvey)
