"""What each command prints with `--json`: the classes from which the reference is generated.

Fields may be added; none goes or changes its type within a major version. `admin` prints the tables of the
server's own store, and `events` whatever an event holds: they are not here.
"""

from dataclasses import dataclass
from typing import Any

from realmfs.control import messages


@dataclass(frozen=True, slots=True)
class Whereis:
    """The servers of an object, and its volume's name; None: not known."""

    path: str
    volume: str | None
    servers: list[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of `doctor` found: `verdict` is ok, note or wrong; `advice` is "" if there is none."""

    check: str
    verdict: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What `find` found; state, hoard and volume as of an [Entry](#entry)."""

    path: str
    type: str
    state: str
    hoard: str
    volume: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as the next start of the daemon will see it; `file`: the configuration file that sets it."""

    name: str
    value: str
    file: str | None


SCHEMA: dict[str, Any] = {
    "status": messages.Status,
    "realms": list[messages.RealmInfo],
    "servers": list[messages.ServerInfo],
    "volumes": list[messages.volumes.VolumeInfo],
    "whereis": Whereis,
    "stat": messages.Object,
    "path": list[messages.PathOf],
    "ls": list[messages.Entry],
    "find": list[Found],
    "tokens": list[messages.TokenInfo],
    "acl get": messages.Acl,
    "acl set": messages.Acl,
    "mountpoint make": messages.volumes.MountPoint,
    "mountpoint show": messages.volumes.MountPoint,
    "mountpoint remove": messages.volumes.MountPoint,
    "quota": messages.volumes.VolumeStatus,
    "changes": list[messages.Change],
    "changes list": list[messages.Change],
    "changes send": list[messages.Unsent],
    "changes export": messages.Kept,
    "changes import": messages.Imported,
    "changes discard": list[messages.Kept],
    "disconnect": messages.Connection,
    "reconnect": messages.Connection,
    "conflicts": list[messages.ConflictInfo],
    "conflicts list": list[messages.ConflictInfo],
    "conflicts show": messages.ConflictInfo,
    "conflicts resolve": list[messages.Settled],
    "wait": messages.Wait,
    "writeback": messages.volumes.Writeback,
    "hoard add": list[messages.hoard.Entry],
    "hoard list": list[messages.hoard.Entry],
    "hoard plan": messages.hoard.Plan,
    "hoard verify": messages.hoard.Verified,
    "hoard status": messages.hoard.Status,
    "hoard walk": messages.hoard.Status,
    "hoard profile list": list[messages.hoard.Profile],
    "hoard profile enable": list[messages.hoard.Profile],
    "hoard profile disable": list[messages.hoard.Profile],
    "cache list": list[messages.cache.Cached],
    "cache usage": messages.cache.Usage,
    "cache limit": messages.cache.Usage,
    "cache fetch": list[messages.hoard.Verified],
    "config show": dict[str, str],
    "config get": Setting,
    "config set": Setting,
    "config log-level": messages.LogLevel,
    "doctor": list[Finding],
}
