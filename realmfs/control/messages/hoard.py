"""What must be here when the servers are away: `hoard.*`. Sizes in bytes, times in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Add:
    """Hoard the object at `path` (from the root of the tree) with `attributes` like `600:d+`.

    `uid` is the local user whose entry it is; None: the daemon's owner.
    """

    path: str
    attributes: str = ""
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """Something at a path."""

    path: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Remove the entries of a local user, or (None) of all."""

    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Limited:
    """At most `limit` of each list in the answer, then come cursors; counts and sums are of all."""

    limit: int = 200


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether walks begin by themselves."""

    on: bool


@dataclass(frozen=True, slots=True)
class ProfileSwitch:
    """A profile to enable or disable."""

    name: str
    enabled: bool
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A process group or session."""

    group: int


@dataclass(frozen=True, slots=True)
class Removed:
    """How many entries went."""

    removed: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the hoard database, and what it stands for as of the last survey (None: none yet)."""

    id: int
    path: str
    """From the root of the tree, with a leading slash, as far as it is known where its volume is mounted."""
    volume: str
    """Hexadecimal."""
    realm: str
    place: str
    """From the volume's root: `./a/b`."""
    uid: int
    priority: int
    attributes: str
    """`600:d+`."""
    profile: str
    """"": added by a command."""
    state: str
    """valid, suspect, indigent or inconsistent."""
    trouble: str
    bound: bool
    objects: int | None
    bytes: int | None
    present: int | None
    present_bytes: int | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something hoarded that is not here as it should be; `size` None: nobody knows."""

    path: str
    priority: int
    verdict: str
    why: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the last walk did."""

    files: int
    bytes: int
    seconds: float
    complete: bool
    age: float
    """Seconds since it ended."""


@dataclass(frozen=True, slots=True)
class Status:
    """The hoard at a glance, and the walk under way."""

    on: bool
    hindrance: str
    """Why no walk begins by itself now; "": nothing is against it."""
    entries: int
    walking: bool
    walks: int
    """How many have ended since the start."""
    phase: str
    """status, data or done; "" before the first."""
    percent: int
    files: int
    bytes: int
    files_left: int
    bytes_left: int
    eta: float | None
    seconds: float
    current: list[str]
    """Large files on their way."""
    last: Outcome | None
    ready: bool | None
    """Whether everything hoarded is here, as of the last survey."""
    missing: int
    missing_bytes: int
    reasons: list[str]
    """Why, the most frequent reasons first."""
    valid: int
    suspect: int
    indigent: int
    inconsistent: int


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether one may unplug."""

    ready: bool
    reachable: bool
    """False: servers could not be asked, so what is here was not compared with theirs."""
    objects: int
    bytes: int
    present: int
    present_bytes: int
    problems: list[Problem]
    count: int
    """Of all problems."""
    cursor: str | None = None
    """The rest of them, from `hoard.problems`."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Some objects together."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Evicted:
    """Something that would go."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a walk would do."""

    fetch: list[Problem]
    evict: list[Evicted]
    short: list[Problem]
    """What would not fit."""
    fetched: Sum
    evicted: Sum
    lacking: Sum
    unknown: int
    """Objects among those to fetch whose size nobody knows."""
    free: int
    fetch_cursor: str | None = None
    """The rest of `fetch`, from `hoard.problems`."""
    evict_cursor: str | None = None
    """The rest of `evict`, from `hoard.evicted`."""
    short_cursor: str | None = None
    """The rest of `short`, from `hoard.problems`."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile; `mistakes` as `file:line:column: text`."""

    name: str
    file: str
    enabled: bool
    entries: int
    mistakes: list[str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A line for a profile, for `files` files of `size` bytes that were opened."""

    path: str
    attributes: str
    files: int
    size: int
