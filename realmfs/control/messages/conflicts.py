"""What somebody must decide: `conflicts.*`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Conflicts of one volume (`volume@realm`), or of all; a page behind `cursor`."""

    volume: str | None = None
    cursor: str | None = None
    limit: int = 200


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
    by: str = ""
    """Its author, for people: a name, as far as one is known here."""


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
class FixText:
    """A repair file as text."""

    text: str


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
class Settled:
    """What became of a conflict: new names beside the old one, where a copy of what was given up is kept.

    `kind` is what is left of it: no, or again a kind of conflict. `sent`: the servers have the outcome.
    """

    path: str
    names: list[str]
    kept: str | None
    kind: str
    sent: bool
