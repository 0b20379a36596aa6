"""The file service: every live call of subsystem 1001, as servers of Coda 8 know them (vice.md §2 to §5).

One class per call: its fields are the parameters in wire order, `Reply` is what comes back. Arguments are
given by keyword. Parameters the protocol no longer uses have the value that all servers accept as their
default. The calls that maintain volumes and connections come first, then objects, then updates. Each call's
own errors are named in the document section its docstring gives; a reply with an error carries
`Reply.zero()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final

from realmfs.vice.types import (
    VICE_VERSION,
    ClientId,
    Fid,
    FidAndVector,
    FidRange,
    ObjectType,
    ReintHandle,
    Statistics,
    Status,
    StoreId,
    VersionVector,
    VolumeInfo,
    VolumeStatus,
)
from realmfs.vice.wire import (
    I32,
    MAX_BUFFER,
    U32,
    WORD,
    Flag,
    NoResults,
    Promise,
    Request,
    Results,
    Room,
    Text,
    Transfer,
    array,
    bounded,
    counted,
    message,
    own_codec,
    service,
)

WHOLE: Final = 0xFFFFFFFF
"""The count that means "to the end" in FetchPartial."""
MAX_PIGGIES: Final = 50
"""Most objects that one ValidateAttrs may carry besides its primary one (vice.md §5.2)."""
MAX_STALE_DIRS: Final = 50
"""Most stale directories that a Reintegrate asks for (reintegration.md §2.1)."""
SHA_SIZE: Final = 20
VOLUME_NAME_SIZE: Final = 32
"""A volume name with its NUL."""
NOTICE_SIZE: Final = 128
"""Room for the off-line message, and for the message of the day; servers insist on it (vice.md §5.1)."""

PiggyCop2 = Annotated[bytes, counted(MAX_BUFFER)]
"""COP2 entries (`realmfs.vice.cop2`) that the server executes before the call itself."""
VersionStamps = Annotated[bytes, counted(32)]
"""OldVS: stamps in the sender's byte order, which no server can use; send it empty (vice.md §5.2, SetACL)."""
StatusArgument = Annotated[Status, replace(own_codec(Status), unpack=Status.unpack_argument)]
"""A status in a request, of which only the fields the call names count."""
StatusResult = Annotated[Status, own_codec(Status)]
VolumeName = Annotated[bytes, bounded(VOLUME_NAME_SIZE)]
Notice = Annotated[bytes, bounded(NOTICE_SIZE)]
Sha = Annotated[bytes, bounded(SHA_SIZE)]
"""SHA-1 of a file, or nothing. No proof of anything: it may be that of older contents (vice.md §5.2)."""
ValidityFlags = Annotated[bytes, bounded(MAX_BUFFER)]
"""One byte per object or volume asked about."""


def until_nul(text: bytes) -> bytes:
    """Return a text that servers send with its NUL counted, without it."""
    return text.partition(b"\0")[0]


# connections


@message
class NewConnectFS(Request["NewConnectFS.Reply"]):
    """Introduce the client; the server calls back before it answers (vice.md §2.2)."""

    OPCODE = 40
    version: U32 = VICE_VERSION
    client: ClientId

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class DisconnectFS(Request["DisconnectFS.Reply"]):
    """End this connection, and only this one (vice.md §2.4)."""

    OPCODE = 19

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class TokenExpired(Request["TokenExpired.Reply"]):
    """Leave: the server forgets all connections and promises of this client, answers NAKED (vice.md §2.4)."""

    OPCODE = 21

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class GetTime(Request["GetTime.Reply"]):
    """Probe the server, which in turn checks its callback channel (vice.md §4.3)."""

    OPCODE = 20

    @message
    class Reply(Results):
        """The server's clock."""

        seconds: U32
        microseconds: I32


@message
class GetStatistics(Request["GetStatistics.Reply"]):
    """Ask what the server counts of its life (vice.md §1.4)."""

    OPCODE = 23

    @message
    class Reply(Results):
        """The counters and disks."""

        statistics: Statistics


# volumes


@message
class GetRootVolume(Request["GetRootVolume.Reply"]):
    """Ask for the name of the realm's root volume (vice.md §5.1)."""

    OPCODE = 15
    volume_room: Room = VOLUME_NAME_SIZE

    @message
    class Reply(Results):
        """The name, with its NUL."""

        volume: VolumeName

        @property
        def name(self) -> bytes:
            """The name without its NUL."""
            return until_nul(self.volume)


@message
class GetVolumeInfo(Request["GetVolumeInfo.Reply"]):
    """Ask where a volume lives, by name or by decimal id (vice.md §5.1)."""

    OPCODE = 24
    name: Text

    @message
    class Reply(Results):
        """The location."""

        info: VolumeInfo


@message
class GetVolumeStatus(Request["GetVolumeStatus.Reply"]):
    """Ask for state and quota of a volume; needs READ on its root (vice.md §5.1)."""

    OPCODE = 17
    volume: U32
    name_room: Room = VOLUME_NAME_SIZE
    offline_room: Room = NOTICE_SIZE
    motd_room: Room = NOTICE_SIZE
    is_replicated: Flag = False
    """Set, the server insists that the id is that of a replicated volume."""

    @message
    class Reply(Results):
        """The state; name and id are those of the server's replica, texts come with their NUL."""

        status: VolumeStatus
        name: VolumeName
        offline: Notice
        motd: Notice


@message
class SetVolumeStatus(Request["SetVolumeStatus.Reply"]):
    """Set quota and texts, for administrators; empty texts and quota -1 change nothing (vice.md §5.1)."""

    OPCODE = 18
    volume: U32
    status: VolumeStatus
    name: VolumeName = b""
    offline: Notice = b""
    motd: Notice = b""
    unused: U32 = 0
    store_id: StoreId
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """What was sent, as the server now has it."""

        status: VolumeStatus
        name: VolumeName
        offline: Notice
        motd: Notice


@message
class GetVolumeLocation(Request["GetVolumeLocation.Reply"]):
    """Ask which host holds one replica; GetVolumeInfo is the better question (vice.md §5.1)."""

    OPCODE = 26
    volume: U32
    host_room: Room = 256

    @message
    class Reply(Results):
        """Host name, perhaps with a port."""

        host_port: Annotated[bytes, bounded(256)]


@message
class GetVolVS(Request["GetVolVS.Reply"]):
    """Acquire the server's own version stamp of a volume, and a promise for all of it (vice.md §5.1)."""

    OPCODE = 41
    volume: U32

    @message
    class Reply(Results):
        """The stamp of this server alone."""

        stamp: I32
        promised: Promise


@message
class ValidateVols(Request["ValidateVols.Reply"]):
    """Ask whether volumes that live on the same servers still have these stamps (vice.md §5.1)."""

    OPCODE = 42
    volumes: Annotated[tuple[int, ...], array(WORD, MAX_BUFFER // 4)]
    stamps: Annotated[bytes, counted(MAX_BUFFER)]
    """For each volume one big-endian word per server, volume by volume."""
    flags_room: Room = MAX_PIGGIES
    """At least one byte per volume."""

    @message
    class Reply(Results):
        """Per volume: 1 current and promised, 0 current, 255 old or unknown."""

        flags: ValidityFlags


@message
class AllocFids(Request["AllocFids.Reply"]):
    """Reserve up to 32 fids; the count must be positive, or it kills a reference server (vice.md §3.1)."""

    OPCODE = 36
    volume: U32
    type: ObjectType
    range: FidRange

    @message
    class Reply(Results):
        """What was granted, perhaps fewer; see FidRange.checked."""

        range: FidRange


@message
class OldAllocFids(Request["OldAllocFids.Reply"]):
    """Reserve fids at one host of the group; only that one grants any (vice.md §3.1)."""

    OPCODE = 37
    volume: U32
    type: ObjectType
    range: FidRange
    host: U32
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """What was granted; count 0 from all other hosts."""

        range: FidRange


# objects


@message
class GetAttr(Request["GetAttr.Reply"]):
    """GetAttrPlusSHA: ask for an object's status, with a promise (vice.md §5.2)."""

    OPCODE = 63
    fid: Fid
    inconsistent_ok: Flag = False
    sha_room: Room = SHA_SIZE
    unused: U32 = 0
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The status, and a hash not to be trusted."""

        status: StatusResult
        sha: Sha


@message
class ValidateAttrs(Request["ValidateAttrs.Reply"]):
    """ValidateAttrsPlusSHA: status of one object; do others still have these versions? (vice.md §5.2)."""

    OPCODE = 64
    unused: U32 = 0
    primary: Fid
    status: StatusArgument = Status.zero()
    sha_room: Room = SHA_SIZE
    piggies: Annotated[tuple[FidAndVector, ...], array(own_codec(FidAndVector), MAX_PIGGIES)]
    """Of the same volume id, in ascending order, without the primary one."""
    flags_room: Room = MAX_PIGGIES
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The primary's status; per piggy 1 = unchanged and promised, 0 = not."""

        status: StatusResult
        sha: Sha
        flags: ValidityFlags


@message
class FetchPartial(Request["FetchPartial.Reply"]):
    """Fetch contents from `offset`; give files their exact count (vice.md §5.2)."""

    OPCODE = 65
    TRANSFER: ClassVar[Transfer] = Transfer.TO_CLIENT
    fid: Fid
    vv: VersionVector = VersionVector()
    """Checked by the server if the offset is not 0: EAGAIN means that the object has changed."""
    inconsistent_ok: Flag = False
    primary_host: U32 = 0
    """0 = send the data; else the address of the one server of the group that shall send them."""
    offset: U32 = 0
    count: U32 = WHOLE
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The status, with a promise; from the servers not chosen it is all that comes."""

        status: StatusResult


@message
class Fetch(Request["Fetch.Reply"]):
    """Fetch contents from `offset` to the end: the call of servers that lack FetchPartial (vice.md §5.2)."""

    OPCODE = 3
    TRANSFER: ClassVar[Transfer] = Transfer.TO_CLIENT
    fid: Fid
    vv: VersionVector = VersionVector()
    inconsistent_ok: Flag = False
    primary_host: U32 = 0
    offset: U32 = 0
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The status, with a promise."""

        status: StatusResult


@message
class GetAcl(Request["GetAcl.Reply"]):
    """Ask for a directory's access list (vice.md §5.2, directories.md §5.2)."""

    OPCODE = 2
    fid: Fid
    inconsistent_ok: Flag = False
    acl_room: Room = MAX_BUFFER
    unused: U32 = 0
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The list as text with its NUL (`realmfs.vice.acl`), and the status without a promise."""

        acl: Annotated[bytes, bounded(MAX_BUFFER)]
        status: StatusResult


@message
class SetAcl(Request["SetAcl.Reply"]):
    """Replace a directory's access list; never beside a reintegration of the volume (vice.md §5.2)."""

    OPCODE = 5
    fid: Fid
    acl: Annotated[bytes, counted(MAX_BUFFER)]
    """Text with its NUL."""
    status: StatusArgument
    """Its version vector must be the server's, else EINCOMPATIBLE."""
    unused: U32 = 0
    store_id: StoreId
    old_stamps: VersionStamps = b""
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The new status; the volume's promise is lost whatever the last two say."""

        status: StatusResult
        new_stamp: I32
        promised: Promise


# updates


@message
class Cop2(Request["Cop2.Reply"]):
    """Tell a server who else executed updates: their second phase (vice.md §6.4)."""

    OPCODE = 29
    entries: PiggyCop2

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class Resolve(Request["Resolve.Reply"]):
    """Let one server make the replicas of an object equal; 0 is no proof that it did (vice.md §5.3)."""

    OPCODE = 30
    fid: Fid

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class SetVV(Request["SetVV.Reply"]):
    """Overwrite the version vector of one replica, flags included (vice.md §5.3)."""

    OPCODE = 34
    fid: Fid
    vv: VersionVector
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class Repair(Request["Repair.Reply"]):
    """Give an object in conflict new contents, or a directory a repair file (conflicts.md §5.4)."""

    OPCODE = 33
    TRANSFER: ClassVar[Transfer] = Transfer.TO_SERVER
    fid: Fid
    status: StatusArgument
    store_id: StoreId

    @message
    class Reply(Results):
        """The new status."""

        status: StatusResult


@message
class Reintegrate(Request["Reintegrate.Reply"]):
    """Replay a packed modify log, all of it or nothing (reintegration.md §2)."""

    OPCODE = 59
    TRANSFER: ClassVar[Transfer] = Transfer.TO_SERVER
    volume: U32
    log_size: I32
    out_of_order: Flag = False
    """Set, the server does not remember this batch for the detection of duplicates."""
    max_stale_dirs: U32 = MAX_STALE_DIRS
    old_stamps: VersionStamps = b""
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """What became of the log. Only `index` means something beside an error."""

        index: I32
        """0: records applied. VLOGSTALE: last uniquifier known. Else the record to blame, or -1."""
        stale_dirs: Annotated[tuple[Fid, ...], array(own_codec(Fid), MAX_STALE_DIRS)]
        new_stamp: I32
        promised: Promise


@message
class OpenReintHandle(Request["OpenReintHandle.Reply"]):
    """Open a container at one server for a store sent in pieces (reintegration.md §3)."""

    OPCODE = 55
    fid: Fid

    @message
    class Reply(Results):
        """The handle; it dies with the server process."""

        handle: ReintHandle


@message
class QueryReintHandle(Request["QueryReintHandle.Reply"]):
    """Ask how many bytes have arrived; EBADF: the handle is dead (reintegration.md §3)."""

    OPCODE = 56
    volume: U32
    handle: ReintHandle

    @message
    class Reply(Results):
        """Bytes present."""

        length: U32


@message
class SendReintFragment(Request["SendReintFragment.Reply"]):
    """Append `length` bytes, all or nothing (reintegration.md §3)."""

    OPCODE = 57
    TRANSFER: ClassVar[Transfer] = Transfer.TO_SERVER
    volume: U32
    handle: ReintHandle
    length: U32

    @message
    class Reply(NoResults):
        """Nothing."""


@message
class CloseReintHandle(Request["CloseReintHandle.Reply"]):
    """Replay a log of one store record whose data are the handle's (reintegration.md §3)."""

    OPCODE = 58
    TRANSFER: ClassVar[Transfer] = Transfer.TO_SERVER
    volume: U32
    log_size: I32
    handle: ReintHandle
    old_stamps: VersionStamps = b""
    piggy_cop2: PiggyCop2 = b""

    @message
    class Reply(Results):
        """The volume's promise is lost whatever this says."""

        new_stamp: I32
        promised: Promise


FILE_SERVICE: Final[Mapping[int, type[Request[Any]]]] = service(
    NewConnectFS, DisconnectFS, TokenExpired, GetTime, GetStatistics,
    GetRootVolume, GetVolumeInfo, GetVolumeStatus, SetVolumeStatus, GetVolumeLocation, GetVolVS, ValidateVols,
    AllocFids, OldAllocFids,
    GetAttr, ValidateAttrs, FetchPartial, Fetch, GetAcl, SetAcl,
    Cop2, Resolve, SetVV, Repair,
    Reintegrate, OpenReintHandle, QueryReintHandle, SendReintFragment, CloseReintHandle,
)  # fmt: skip
"""Every live call by opcode; any other number is answered INVALIDOPCODE."""
