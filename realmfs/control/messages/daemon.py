"""The daemon, its servers, being on line: `hello`, `daemon.*`, `realms.*`, `servers.*`, `connection.*`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Nothing:
    """No parameters, or no result."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first request: the version of the methods that the caller knows, and his release."""

    protocol: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The version of the methods that the daemon knows, its release, and its process."""

    protocol: int
    version: str
    pid: int


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon at a glance; sizes in bytes, times in seconds."""

    version: str
    pid: int
    uptime: float
    mount_point: str | None
    """None: serves without a mount."""
    cache_dir: str
    cache_size: int
    cache_used: int
    objects: int
    objects_limit: int
    realms: int
    servers_up: int
    servers_down: int
    pending: int
    """Changes that wait to be sent."""
    pending_bytes: int
    requests: dict[str, int]
    """Kernel requests answered so far, by operation."""
    waiting: list[str]
    """Kernel requests under way for longer than a second, with their age."""
    channels: list[str]
    """For each server what protects the packets, and why it is down if it is."""
    troubles: list[str]
    """What keeps it from working in full: a damaged database, a full disk, a missing realms file."""
    off_line: list[str] = field(default_factory=list)
    """Where it is off line, and why: `everywhere: disconnected by hand`, `example.org: ...`."""
    reused_files: int = 0
    """Files whose contents were here under another name and not fetched."""
    reused_bytes: int = 0
    conflicts: int = 0
    """Objects in conflict, of both kinds: somebody must choose."""


@dataclass(frozen=True, slots=True)
class LogLevel:
    """What the daemon logs until it ends: debug, info, warning or error; None: as it is.

    Parameter and result.
    """

    level: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the daemon; `force` cuts off who still uses the mount."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class Stopping:
    """The daemon ends; what still waits is kept for the next start."""

    pending: int
    busy: bool
    """Files are still open on the mount: the daemon ends after their last close."""
    pending_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RealmInfo:
    """A realm that was ever reached."""

    name: str
    servers: list[str]
    reachable: bool


@dataclass(frozen=True, slots=True)
class Servers:
    """`check`: ask each server now instead of telling what is known; a page behind `cursor`."""

    check: bool = False
    cursor: str | None = None
    limit: int = 200


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server; `round_trip` in seconds, `bandwidth` in bytes/s, `last_heard` seconds ago; None: unknown."""

    realm: str
    address: str
    state: str
    round_trip: float | None
    bandwidth: float | None
    last_heard: float | None
    protection: str
    name: str
    """As the realms file or DNS gives it; the address where there is no name."""
    reason: str
    """Why it is down, or is refused; "" if it is up."""
    ours: bool | None
    """Whether it runs realmfs, too; None: not met yet."""
    callbacks: int = 0
    """For how many objects and volumes it has promised to call back."""


@dataclass(frozen=True, slots=True)
class Where:
    """A realm to go off line in or to come back to; None: everywhere."""

    realm: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where we are off line by hand: everywhere, or in some realms; and how many changes wait."""

    everywhere: bool
    realms: list[str]
    pending: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Whether the caller's programs on the mount wait for servers for ever; None: as it is.

    Parameter and result.
    """

    on: bool | None = None
