"""Name contexts: which object each entry of the hoard database means, and what is to be done about it.

An entry has one context. If it stands for more than its object (`c+`, `d+`), a context for each member of the
directory hangs below it, and so on downward (client.md §8.3):

    entry  ./src 600:d+  ──► src ──┬──► lib ──► (members)
                                   ├──► Makefile
                                   └──► data ──► covered by the root of another volume ──► (members)

States. A new context is *suspect*. Checking it leads to

    valid         bound as far as there is something to bind to. A missing name is no trouble: it may come.
                  A callback for its object, or a new version of its directory, makes it suspect again
    indigent      the cache is too full of more important things
    inconsistent  a conflict is on its path, or something odd happened

Contexts live in memory only and are made anew after a start: by a walk from what is cached, without a call
for what the servers have promised. What must outlive a start is the priority of each object, in its row.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from realmfs.cache.hoard import Expand, HoardEntry


class State(Enum):
    """What is known of a context."""

    VALID = "valid"
    SUSPECT = "suspect"
    INDIGENT = "indigent"
    INCONSISTENT = "inconsistent"


class Context:
    """A name that was hoarded, and the object it is bound to (`number` 0: none)."""

    __slots__ = (
        "above",
        "along",
        "depth",
        "edition",
        "entry",
        "expand",
        "members",
        "name",
        "number",
        "state",
        "trouble",
    )

    def __init__(self, entry: HoardEntry, name: bytes, expand: Expand, above: "Context | None") -> None:
        self.entry = entry
        self.name = name
        self.expand = expand
        self.above = above
        self.depth: int = above.depth + 1 if above is not None else 0
        self.number = 0
        self.along: tuple[int, ...] = ()  # numbers of what else is needed to get there: directories, links
        self.edition: object = None  # of the directory when its members were listed
        self.members: dict[bytes, Context] = {}
        self.state = State.SUSPECT
        self.trouble = ""  # why it is not valid, or not bound

    @property
    def priority(self) -> int:
        """The hoard priority it gives."""
        return self.entry.priority

    @property
    def inner(self) -> Expand:
        """What its members stand for in their turn."""
        return Expand.DESCENDANTS if self.expand is Expand.DESCENDANTS else Expand.NONE

    def path(self) -> bytes:
        """Return the path from the root of the entry's volume."""
        parts: list[bytes] = []
        context: Context | None = self
        while context is not None:
            parts.append(context.name)
            context = context.above
        return b"/".join(part for part in reversed(parts) if part)

    def set(self, state: State, trouble: str = "") -> None:
        """Note what came of checking it."""
        self.state, self.trouble = state, trouble

    def each(self) -> Iterator["Context"]:
        """Yield it and all below it, from above. Members may change while the iteration pauses."""
        stack = [self]
        while stack:
            context = stack.pop()
            yield context
            stack.extend(reversed(list(context.members.values())))


@dataclass(slots=True)
class Census:
    """How many contexts are in which state."""

    valid: int = 0
    suspect: int = 0
    indigent: int = 0
    inconsistent: int = 0
    expanded: int = 0

    def count(self, context: Context) -> None:
        """Count one."""
        name = context.state.value
        setattr(self, name, getattr(self, name) + 1)
        self.expanded += bool(context.members)

    def __str__(self) -> str:
        return f"[{self.valid}, {self.suspect}, {self.indigent}, {self.inconsistent}] [{self.expanded}]"


@dataclass(slots=True)
class Contexts:
    """The contexts of all entries, by the entry's id, and of signalled objects."""

    roots: dict[int, Context] = field(default_factory=dict)

    def keep(self, ids: Collection[int]) -> None:
        """Forget the contexts of all other entries."""
        for gone in [number for number in self.roots if number not in ids]:
            del self.roots[gone]

    def take(self, entries: Iterable[HoardEntry]) -> None:
        """Have a context for each of these entries, as they are now."""
        for entry in entries:
            context = self.roots.get(entry.id)
            if context is None or context.entry.path != entry.path:
                self.roots[entry.id] = Context(entry, entry.path, entry.expand, None)
            else:
                context.entry = entry

    def each(self) -> Iterator[Context]:
        """Yield all contexts, those of the most important entries first."""
        for root in sorted(self.roots.values(), key=lambda one: -one.priority):
            yield from root.each()
