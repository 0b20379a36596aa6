"""Objects of the tree and who may do what with them: `path.*`, `file.*`, `acl.*`.

Paths are relative to the root of the tree, `realm/directory/file`, without a leading slash.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PathOf:
    """An object by its path; `follow` a symbolic link at its end."""

    path: str
    follow: bool = True


@dataclass(frozen=True, slots=True)
class FidOf:
    """An object by its fid, `volume.vnode.unique` in hexadecimal."""

    fid: str
    realm: str


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
class Open:
    """Open a file: to read it, or to make it anew (`write`, with permission bits `mode`).

    With the answer comes a descriptor, one end of a pipe: the contents are read from it up to its end, or
    written into it and it is closed.
    """

    path: str
    write: bool = False
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file, and its size when it was opened."""

    handle: int
    size: int


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
class Acl:
    """The access list of a directory: what is granted, and what is taken away again."""

    positive: list[AclEntry]
    negative: list[AclEntry]


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
