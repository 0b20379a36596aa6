"""A volume as the cache manager sees it: where it lives, which of its objects are in memory."""

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import trio

from realmfs.vice.types import ROOT, Fid

if TYPE_CHECKING:
    from realmfs.realms.volume import Volume
    from realmfs.venus.node import Node


class State(Enum):
    """A volume's state (reintegration.md §5). It is the volume's own: servers of others do not matter."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    """No server of the group answers: what is cached serves, what is changed waits."""
    RESOLVING = "resolving"
    """Servers answer, and make their replicas equal."""


TOP_REALM = "localhost"
TOP_VOLUME = 0xFF000001  # the fabricated volume that lists the realms (directories.md §4.3)


class VolumeState:
    """One volume. `key` is its key in the cache; `place` is where it lives, None until realms can tell."""

    __slots__ = (
        "drained",
        "id",
        "key",
        "lost",
        "mounted_on",
        "name",
        "nodes",
        "place",
        "realm",
        "state_told",
        "unfound_until",
        "waiting_for",
    )

    def __init__(self, key: int, realm: str, volume: int, name: str) -> None:
        self.key = key
        self.realm = realm
        self.id = volume
        self.name = name
        self.place: Volume | None = None
        self.lost = 0  # how often every promise of the volume was lost at once (node.py)
        self.nodes: WeakValueDictionary[tuple[int, int], Node] = WeakValueDictionary()
        self.mounted_on: tuple[Node, bytes] | None = None  # directory and name it was last found under
        self.drained = trio.lowlevel.ParkingLot()  # who waits for the log to become empty
        self.unfound_until = 0.0  # nobody could tell where it lives: not asked again before (trio's clock)
        self.state_told: State | None = None  # what the last event said
        self.waiting_for = ""  # why the log is not sent, for people; "" = nothing is in its way

    @property
    def reachable(self) -> bool:
        """Whether any server of the group answers, as far as we know."""
        return self.place is not None and self.place.group.reachable

    @property
    def away(self) -> bool:
        """Whether what is cached is all there is.

        Not so while nobody has asked where the volume lives: its servers may be up.
        """
        if self.place is None:
            return not self.key or self.unfound_until > trio.current_time()
        return not self.place.group.reachable

    @property
    def state(self) -> State:
        """The state."""
        if self.place is None or not self.place.group.reachable:
            return State.UNREACHABLE
        return State.RESOLVING if self.place.group.resolving else State.REACHABLE

    def has_id(self, volume: int) -> bool:
        """Tell whether servers may mean this volume by an id: its own, or that of one of its replicas."""
        if volume == self.id:
            return True
        return self.place is not None and any(one.volume_id == volume for one in self.place.replicas)

    @property
    def replicas(self) -> int:
        """How many servers hold a copy; 0 while nobody has told."""
        return len(self.place.replicas) if self.place is not None else 0

    @property
    def root(self) -> Fid:
        """The fid of its root directory."""
        return Fid(self.id, *ROOT)

    def in_memory(self) -> Iterator["Node"]:
        """Yield the nodes in memory; the set may change meanwhile."""
        yield from list(self.nodes.values())

    def __repr__(self) -> str:
        return f"<Volume {self.name}@{self.realm} {self.id:x}>"

    @property
    def realm_id(self) -> int:
        """The cache's small number for the realm."""
        return self.key >> 32
