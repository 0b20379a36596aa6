"""Volumes, where they are mounted and when they are sent: `volumes.*`, `mountpoints.*`, `writeback`.

Sizes in KiB, as the servers say them.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VolumeId:
    """A volume by its number."""

    id: int
    realm: str


@dataclass(frozen=True, slots=True)
class VolumeOf:
    """The volume that holds the object at `path`; `local`: without asking its servers."""

    path: str
    local: bool = False


@dataclass(frozen=True, slots=True)
class SetQuota:
    """The most that the volume which holds the object at `path` may hold, in KiB; 0: no limit."""

    path: str
    max_quota: int


@dataclass(frozen=True, slots=True)
class MakeMountPoint:
    """A mount point to make at `path`, in the realm of its directory.

    `volume` is the volume's name; "": it is named as the path from the realm's root.
    """

    path: str
    volume: str = ""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume known here."""

    realm: str
    name: str
    id: str
    type: str
    servers: list[str]
    reachable: bool
    pending: int
    state: str = "unreachable"
    """reachable, unreachable or resolving (its servers make their replicas equal)."""
    why: str = ""
    """Why it is unreachable, if that is our own doing."""
    pending_bytes: int = 0
    oldest: float | None = None
    """When the oldest pending change was made, in Unix seconds."""
    refused: int = 0
    """Pending changes that the servers have refused: conflicts."""
    waits_for: str = ""
    """What its changes wait for (servers, tokens, a decision, a person to go on...); "": nothing."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a volume: its place among the others, its own id in hexadecimal, its server's address."""

    slot: int
    id: str
    address: str


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """What is known of a volume here, and what its servers say; sizes in KiB, None: nobody could be asked.

    `max_quota` 0 is no limit. `type` is the servers' number. `conflict`: something in it is in conflict.
    """

    realm: str
    name: str
    id: int
    type: int
    state: str
    pending: int
    pending_bytes: int
    conflict: bool
    offline: str
    motd: str
    max_quota: int | None
    blocks_used: int | None
    partition_free: int | None
    partition_size: int | None
    replicas: list[Replica]


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A mount point: the text of its link, and the volume and realm that it names."""

    path: str
    text: str
    volume: str
    realm: str


@dataclass(frozen=True, slots=True)
class SetWriteback:
    """When changes are sent: of one volume (`volume@realm`), or of all that have no setting of their own.

    `age` seconds they wait at least; `time` seconds that a batch may take, 0: calls that change something
    wait until the servers have it. `default`: the volume, or each, loses its own setting first. `paused`:
    nothing at all is sent by itself, or it is again. What is None stays as it is.
    """

    age: float | None = None
    time: float | None = None
    volume: str | None = None
    default: bool = False
    paused: bool | None = None


@dataclass(frozen=True, slots=True)
class Writeback:
    """When changes are sent: of `volume`, or ("") of all that are not among the `own` ones."""

    age: float
    time: float
    volume: str = ""
    paused: bool = False
    own: list[str] = field(default_factory=list)
