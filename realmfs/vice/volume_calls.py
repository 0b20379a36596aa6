"""The calls of the file service that are about connections, servers and volumes (vice.md §2, §3.1, §5.1).

They are exported from `realmfs.vice.calls`, where the others are.
"""

from __future__ import annotations

from typing import Annotated

from realmfs.vice.parameters import (
    MAX_PIGGIES,
    NOTICE_SIZE,
    VOLUME_NAME_SIZE,
    Notice,
    PiggyCop2,
    ValidityFlags,
    VolumeName,
    until_nul,
)
from realmfs.vice.types import (
    VICE_VERSION,
    ClientId,
    FidRange,
    ObjectType,
    Statistics,
    StoreId,
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
    array,
    bounded,
    counted,
    message,
)

# connections


@message
class NewConnectFS(Request[NoResults]):
    """Introduce the client; the server calls back before it answers (vice.md §2.2)."""

    OPCODE = 40
    Reply = NoResults
    version: U32 = VICE_VERSION
    client: ClientId


@message
class DisconnectFS(Request[NoResults]):
    """End this connection, and only this one (vice.md §2.4)."""

    OPCODE = 19
    Reply = NoResults


@message
class TokenExpired(Request[NoResults]):
    """Leave: the server forgets all connections and promises of this client, answers NAKED (vice.md §2.4)."""

    OPCODE = 21
    Reply = NoResults


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
