"""What goes over the control socket: parameters of the methods and their results, as small frozen classes.

Paths are relative to the root of the tree, `realm/directory/file`, without a leading slash.
"""

from dataclasses import dataclass, field

# Parameters


@dataclass(frozen=True, slots=True)
class Nothing:
    """No parameters, or no result."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first request: the version of the methods that the caller knows, and his release."""

    protocol: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class PathOf:
    """An object by its path; `follow` a symbolic link at its end."""

    path: str
    follow: bool = True


@dataclass(frozen=True, slots=True)
class List:
    """At most `limit` entries of a directory after `position`.

    With `attributes` they are asked for where they are not known, which may cost a call each; with `states`
    it is told, without a call, what of each entry is on this machine.
    """

    path: str
    position: int = 0
    limit: int = 1000
    attributes: bool = True
    states: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """Open a file: to read it, or to make it anew (`write`, with permission bits `mode`).

    With the answer comes a descriptor, one end of a pipe: the contents are read from it up to its end, or
    written into it and it is closed.
    """

    path: str
    write: bool = False
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Close:
    """Close an open file. Raises what stopped its contents on their way.

    A new file takes its name now, with `sync` only once it is safe against power loss; `abandon`: never.
    """

    handle: int
    sync: bool = False
    abandon: bool = False


@dataclass(frozen=True, slots=True)
class Make:
    """A directory to make."""

    path: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Move:
    """A name to move to another place."""

    path: str
    new_path: str


@dataclass(frozen=True, slots=True)
class AclEntry:
    """What a user or group may do, by name: letters of `rlidwka`, all or none; other bits as `rl+128`."""

    name: str
    rights: str


@dataclass(frozen=True, slots=True)
class SetAcl:
    """Entries to put into the access list of a directory; one without rights removes the name's entry.

    `negative`: into the half of the list that takes rights away. `clear`: nothing else stays. `text`, if not
    empty, is a whole list instead, as `acl get` and `cfs listacl` print it.
    """

    path: str
    entries: list[AclEntry]
    negative: bool = False
    clear: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the daemon; `force` cuts off who still uses the mount."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class Servers:
    """`check`: ask each server now instead of telling what is known; a page behind `cursor`."""

    check: bool = False
    cursor: str | None = None
    limit: int = 200


@dataclass(frozen=True, slots=True)
class Changes:
    """Pending changes of one volume (`volume@realm`), or of all; a page behind `cursor`."""

    volume: str | None = None
    cursor: str | None = None
    limit: int = 200


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Conflicts of one volume (`volume@realm`), or of all; a page behind `cursor`."""

    volume: str | None = None
    cursor: str | None = None
    limit: int = 200


@dataclass(frozen=True, slots=True)
class ConflictAt:
    """A conflict by its id or by the path at which it is shown."""

    id: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class FixFile:
    """A conflict of a directory; as which server's version it shall become, None: all that any server has."""

    id: int | None = None
    path: str | None = None
    server: str | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """How to settle a conflict.

    `keep` is local, server or both; `server` names whose version where the servers differ. In place of
    `keep`: `contents`, the path of a local file with what shall be the contents, or `fix`, the text of a
    repair file.
    """

    id: int | None = None
    path: str | None = None
    keep: str | None = None
    server: str | None = None
    contents: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """Write pending changes of one volume (`volume@realm`), or of all, to a new local file."""

    file: str
    volume: str | None = None


@dataclass(frozen=True, slots=True)
class Import:
    """Make the changes in a local file again."""

    file: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Give pending changes up: one by its sequence number with all that rests on it, or a volume's."""

    sequence: int | None = None
    volume: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send the pending changes of one volume (`volume@realm`), or of all, and wait at most `within` seconds.

    `retry`: those too that servers have refused before.
    """

    volume: str | None = None
    retry: bool = False
    within: float = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    """Log in to a realm; who logs in is the local user who calls.

    `keep` "keyring": over restarts, in the desktop's keyring; "": as the settings say.
    """

    realm: str
    user: str
    password: str = field(repr=False)
    keep: str = ""


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Set the password of `user`: `agent`, himself or an administrator, proves who he is by his own."""

    realm: str
    agent: str
    password: str = field(repr=False)
    user: str
    new_password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token in the form of a Coda token file: a parameter and a result; `keep` as in `Login`."""

    realm: str
    contents: str = field(repr=False)
    keep: str = ""


@dataclass(frozen=True, slots=True)
class InRealm:
    """A realm."""

    realm: str


@dataclass(frozen=True, slots=True)
class Logout:
    """A realm to log out of, or all."""

    realm: str | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """A realm to go off line in or to come back to; None: everywhere."""

    realm: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Whether the caller's programs on the mount wait for servers for ever; None: as it is.

    Parameter and result.
    """

    on: bool | None = None


@dataclass(frozen=True, slots=True)
class LogLevel:
    """What the daemon logs until it ends: debug, info, warning or error; None: as it is.

    Parameter and result.
    """

    level: str | None = None


@dataclass(frozen=True, slots=True)
class FidOf:
    """An object by its fid, `volume.vnode.unique` in hexadecimal."""

    fid: str
    realm: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """`everybody`: of all local users, for root; a page behind `cursor`."""

    everybody: bool = False
    cursor: str | None = None
    limit: int = 200


# Results


@dataclass(frozen=True, slots=True)
class Welcome:
    """The version of the methods that the daemon knows, its release, and its process."""

    protocol: int
    version: str
    pid: int


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """Who a local user is in a realm; never the token itself.

    `state` is valid, expired, or missing: then changes wait for a login. `ends` in seconds since 1970; `user`
    is the name he logged in under, "" if unknown; `pending` changes wait in the realm.
    """

    realm: str
    uid: int
    user: str
    id: int
    state: str
    ends: float | None
    pending: int


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
class RealmInfo:
    """A realm that was ever reached."""

    name: str
    servers: list[str]
    reachable: bool


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
class Attributes:
    """What stat(2) tells; `mtime` in nanoseconds since 1970, `type` one of file, directory, link."""

    type: str
    mode: int
    size: int
    mtime: int
    links: int
    uid: int
    gid: int
    inode: int


@dataclass(frozen=True, slots=True)
class Object:
    """An object; `details` are its `user.coda.*` attributes without the prefix."""

    path: str
    attributes: Attributes
    target: str | None
    details: dict[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory entry; `attributes` is None if they are not known.

    `kind` is file, directory or link; while there are no attributes, a link is taken for a file. `state` is
    absent, partial, cached, dirty or conflict, `hoard` its hoard priority, `volume` the name of the volume
    whose root it is; "" if not asked for.
    """

    name: str
    attributes: Attributes | None
    target: str | None = None
    kind: str = ""
    state: str = ""
    hoard: str = ""
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """A piece of a directory; `position` continues, None at the end."""

    entries: list[Entry]
    position: int | None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file, and its size when it was opened."""

    handle: int
    size: int


@dataclass(frozen=True, slots=True)
class Acl:
    """The access list of a directory: what is granted, and what is taken away again."""

    positive: list[AclEntry]
    negative: list[AclEntry]


@dataclass(frozen=True, slots=True)
class Change:
    """A change that waits to be sent; `made` in seconds since 1970, `size` in bytes.

    `path` is below the mount, as far as it is known; of a rename it has both, `OLD -> NEW`.
    """

    volume: str
    realm: str
    sequence: int
    made: float
    uid: int
    what: str
    path: str
    size: int
    state: str


@dataclass(frozen=True, slots=True)
class Connection:
    """Where we are off line by hand: everywhere, or in some realms; and how many changes wait."""

    everywhere: bool
    realms: list[str]
    pending: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """Changes of a volume that could not be sent: how many, their bytes, and what they wait for."""

    volume: str
    realm: str
    pending: int
    bytes: int
    waits_for: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The daemon ends; what still waits is kept for the next start."""

    pending: int
    busy: bool
    """Files are still open on the mount: the daemon ends after their last close."""
    pending_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of an object in conflict: who has it, and where its contents can be read.

    `server` is None for our own. `mtime` in seconds since 1970; `author` and `owner` are Vice ids, our own
    version's a local uid.
    """

    name: str
    path: str
    server: str | None
    type: str
    size: int
    mtime: float
    author: int
    owner: int
    mode: int
    version: str


@dataclass(frozen=True, slots=True)
class ConflictInfo:
    """An object in conflict.

    `kind` is local (a change made here is refused), server (the servers cannot agree) or both. `path` is
    where it is shown; below it are its versions. `since` in seconds since 1970, None: unknown. `waiting`
    further changes rest on the refused ones. `versions` only in answer to `conflicts.show`.
    """

    id: int
    path: str
    realm: str
    volume: str
    fid: str
    kind: str
    type: str
    reason: str
    changes: list[str]
    uid: int | None
    since: float | None
    waiting: int
    versions: list[VersionInfo]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a conflict: new names beside the old one, where a copy of what was given up is kept.

    `kind` is what is left of it: no, or again a kind of conflict. `sent`: the servers have the outcome.
    """

    path: str
    names: list[str]
    kept: str | None
    kind: str
    sent: bool


@dataclass(frozen=True, slots=True)
class FixText:
    """A repair file as text."""

    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Changes written to a file, or given up; None: there were none."""

    file: str | None
    changes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Imported:
    """Changes made again, and those that could not be, with the reasons."""

    done: int
    failed: list[str]
