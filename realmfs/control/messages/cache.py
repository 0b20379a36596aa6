"""What is kept on this machine: `cache.*`. Sizes in bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listing:
    """Cached objects of one volume (`name@realm`), or of all; a page behind `cursor`.

    `validity`: only valid ones (True), or only others (False).
    """

    volume: str | None = None
    cursor: str | None = None
    limit: int = 200
    validity: bool | None = None


@dataclass(frozen=True, slots=True)
class Cached:
    """A cached object; `priority` is that of replacement."""

    number: int
    path: str
    fid: str
    volume: str
    type: str
    """directory, file, link or mount."""
    size: int
    state: str
    """absent, partial, cached, dirty or conflict."""
    valid: bool
    hoard: int
    priority: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The cache and its limits."""

    size: int
    used: int
    free: int
    """What could be written: clean copies would make room."""
    objects: int
    objects_limit: int
    pending: int
    """Changes that wait, and never make room."""
    pending_bytes: int
    pending_limit: int
    hoarded: int
    """Objects with a hoard priority."""
    hoarded_bytes: int
    directory: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Drop the object at `path` with all cached below it, or (None) everything that is clean and not open."""

    path: str | None = None
    force: bool = False
    """Also while the servers cannot be reached, and it could not be fetched again."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring an object; `recursive`: and all below it."""

    path: str
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """Another size for the cache, until the daemon ends."""

    size: int
