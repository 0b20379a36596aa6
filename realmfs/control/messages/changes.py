"""What waits to be sent: `changes.*`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Changes:
    """Pending changes of one volume (`volume@realm`), or of all; a page behind `cursor`."""

    volume: str | None = None
    cursor: str | None = None
    limit: int = 200


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
class Send:
    """Send the pending changes of one volume (`volume@realm`), or of all, and wait at most `within` seconds.

    `retry`: those too that servers have refused before.
    """

    volume: str | None = None
    retry: bool = False
    within: float = 60.0


@dataclass(frozen=True, slots=True)
class Unsent:
    """Changes of a volume that could not be sent: how many, their bytes, and what they wait for."""

    volume: str
    realm: str
    pending: int
    bytes: int
    waits_for: str


@dataclass(frozen=True, slots=True)
class Discard:
    """Give pending changes up: one by its sequence number with all that rests on it, or a volume's."""

    sequence: int | None = None
    volume: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Changes written to a file, or given up; None: there were none."""

    file: str | None
    changes: int
    bytes: int


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
class Imported:
    """Changes made again, and those that could not be, with the reasons."""

    done: int
    failed: list[str]
