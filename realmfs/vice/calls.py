"""The file service: every live call of subsystem 1001, as servers of Coda 8 know them (vice.md §2 to §5).

One class per call: its fields are the parameters in wire order, `Reply` is what comes back. Arguments are
given by keyword. Parameters the protocol no longer uses have the value that all servers accept as their
default. Here are the calls about objects, then the updates; those about connections and volumes live in
`realmfs.vice.volume_calls` and are exported from here. Each call's own errors are named in the document
section that its docstring gives; a reply with an error carries `Reply.zero()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from realmfs.vice.parameters import (
    MAX_PIGGIES,
    MAX_STALE_DIRS,
    NOTICE_SIZE,
    SHA_SIZE,
    VOLUME_NAME_SIZE,
    WHOLE,
    Notice,
    PiggyCop2,
    Sha,
    StatusArgument,
    StatusResult,
    ValidityFlags,
    VersionStamps,
    VolumeName,
    until_nul,
)
from realmfs.vice.types import (
    Fid,
    FidAndVector,
    ReintHandle,
    Status,
    StoreId,
    VersionVector,
)
from realmfs.vice.volume_calls import (
    AllocFids,
    DisconnectFS,
    GetRootVolume,
    GetStatistics,
    GetTime,
    GetVolumeInfo,
    GetVolumeLocation,
    GetVolumeStatus,
    GetVolVS,
    NewConnectFS,
    OldAllocFids,
    SetVolumeStatus,
    TokenExpired,
    ValidateVols,
)
from realmfs.vice.wire import (
    I32,
    MAX_BUFFER,
    U32,
    Flag,
    NoResults,
    Promise,
    Request,
    Results,
    Room,
    Transfer,
    array,
    bounded,
    counted,
    message,
    own_codec,
    service,
)

__all__ = [
    "FILE_SERVICE",
    "MAX_PIGGIES",
    "MAX_STALE_DIRS",
    "NOTICE_SIZE",
    "SHA_SIZE",
    "VOLUME_NAME_SIZE",
    "WHOLE",
    "AllocFids",
    "CloseReintHandle",
    "Cop2",
    "DisconnectFS",
    "Fetch",
    "FetchPartial",
    "GetAcl",
    "GetAttr",
    "GetRootVolume",
    "GetStatistics",
    "GetTime",
    "GetVolVS",
    "GetVolumeInfo",
    "GetVolumeLocation",
    "GetVolumeStatus",
    "NewConnectFS",
    "Notice",
    "OldAllocFids",
    "OpenReintHandle",
    "PiggyCop2",
    "QueryReintHandle",
    "Reintegrate",
    "Repair",
    "Resolve",
    "SendReintFragment",
    "SetAcl",
    "SetVV",
    "SetVolumeStatus",
    "Sha",
    "StatusArgument",
    "StatusResult",
    "TokenExpired",
    "ValidateAttrs",
    "ValidateVols",
    "ValidityFlags",
    "VersionStamps",
    "VolumeName",
    "until_nul",
]

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
class Cop2(Request[NoResults]):
    """Tell a server who else executed updates: their second phase (vice.md §6.4)."""

    OPCODE = 29
    Reply = NoResults
    entries: PiggyCop2


@message
class Resolve(Request[NoResults]):
    """Let one server make the replicas of an object equal; 0 is no proof that it did (vice.md §5.3)."""

    OPCODE = 30
    Reply = NoResults
    fid: Fid


@message
class SetVV(Request[NoResults]):
    """Overwrite the version vector of one replica, flags included (vice.md §5.3)."""

    OPCODE = 34
    Reply = NoResults
    fid: Fid
    vv: VersionVector
    piggy_cop2: PiggyCop2 = b""


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
class SendReintFragment(Request[NoResults]):
    """Append `length` bytes, all or nothing (reintegration.md §3)."""

    OPCODE = 57
    Reply = NoResults
    TRANSFER: ClassVar[Transfer] = Transfer.TO_SERVER
    volume: U32
    handle: ReintHandle
    length: U32


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
