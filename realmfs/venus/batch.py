"""Which waiting records go together in the next call (reintegration.md §2.2, design, row "batches"). Pure.

Servers execute a batch as a whole or not at all. Reference servers do not survive taking one back that made
something. So towards servers not known to be ours a call holds one of

    MAKES      creations, and what is done in the same breath to what they made: nothing of it can fail for
               what others did to an object, and names, rights and room are looked at before (certify.py)
    CHANGES    all other changes of names and attributes, which may be refused
    STORES     contents that servers fetch back
    HANDLE     one large store, whose contents are at the servers already (uploads.py)

Towards our own servers the first three may be mixed. Editors and archivers alternate the kinds (create a,
store a, create b, ...), so records of another kind are *passed over*, and so is all that depends on one:

    log     create a   store a   create b   store b   chmod b   create c
    first   create a             create b                       create c
    then               store a              store b
    then                                              chmod b

Passed over as well are records that were refused and wait for a decision, stores of files that are still open
for writing, and large stores that are being uploaded. The rest of the volume goes on. A record depends on an
earlier one if both are about the same object, or about the same name, or if one is about a directory that
the other enters something in. Two entries of one directory do not depend on one another.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from realmfs.vice.log import Chmod, Create, Link, MakeDir, Rename, Store, SymLink, Utimes


class Kind(Enum):
    """How a batch is sent."""

    MAKES = "creations"
    CHANGES = "names and attributes"
    STORES = "stores that servers fetch back"
    MIXED = "anything, to our own servers"
    HANDLE = "one large store"


class Why(Enum):
    """Why nothing can be sent now, in words for people."""

    NOTHING = ""
    DECISION = "a decision"
    OPEN = "files that are open for writing"
    YOUNG = "their age"
    UPLOAD = "contents on their way"


MAKES = frozenset({Create.OPCODE, MakeDir.OPCODE, SymLink.OPCODE})
_HARMLESS_TO_NEW = frozenset({Rename.OPCODE, Link.OPCODE, Utimes.OPCODE, Chmod.OPCODE})


@dataclass(frozen=True, slots=True)
class Waiting:
    """What choosing needs to know of a record."""

    sequence: int
    opcode: int
    objects: frozenset[int]
    """Inode numbers of what it makes, changes, moves or removes."""
    parents: frozenset[int] = frozenset()
    """Inode numbers of the directories in which it changes entries."""
    names: frozenset[object] = frozenset()
    """The names it gives or takes, each with its directory."""
    length: int = 0
    blocked: bool = False
    held: bool = False
    """A store whose file is open for writing."""
    young: bool = False
    """Not old enough to be sent."""
    uploaded: bool = False
    """A large store whose contents the servers have."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What fits into a batch: records, files, bytes of contents, directories with changed entries.

    A store above `big` bytes is large.
    """

    own_servers: bool
    records: int
    files: int
    big: int
    size: int
    directories: int = 40
    """Servers not ours list at most 50 stale directories in an answer; two of three were seen to fall silent
    over a batch in which there were more."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to send together, by sequence."""

    kind: Kind
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to send next, and large stores whose contents may be uploaded; or why there is none."""

    batch: Batch | None
    uploads: tuple[int, ...]
    why: Why


@dataclass(slots=True)
class _Passed:
    """What the records that were passed over are about."""

    objects: set[int] = field(default_factory=set)
    parents: set[int] = field(default_factory=set)
    names: set[object] = field(default_factory=set)

    def hold(self, record: Waiting) -> bool:
        """Tell whether a record depends on one that was passed over."""
        if not self.objects and not self.parents:
            return False
        return not (
            record.objects.isdisjoint(self.objects)
            and record.objects.isdisjoint(self.parents)
            and record.parents.isdisjoint(self.objects)
            and record.names.isdisjoint(self.names)
        )

    def add(self, record: Waiting) -> None:
        self.objects |= record.objects
        self.parents |= record.parents
        self.names |= record.names


def choose(waiting: Iterable[Waiting], rules: Rules, kind: Kind | None = None) -> Choice:
    """Return the next batch of a volume's log: of a kind, or of that of the first record that may go.

    Looks no further than the batch needs.
    """
    selection = _Selection(rules, kind)
    for record in waiting:
        if record.young:
            selection.why = selection.why or Why.YOUNG
            break
        if len(selection.chosen) == rules.records or selection.kind is Kind.HANDLE:
            break
        selection.offer(record)
    batch = None
    if selection.chosen and selection.kind is not None:
        batch = Batch(selection.kind, tuple(selection.chosen))
    why = Why.NOTHING if batch is not None else selection.why or Why.NOTHING
    return Choice(batch, tuple(selection.uploads), why)


class _Selection:
    """A batch in the making."""

    def __init__(self, rules: Rules, kind: Kind | None) -> None:
        self.chosen: list[int] = []
        self.uploads: list[int] = []
        self.kind = kind
        self.why: Why | None = None
        self._rules = rules
        self._passed = _Passed()
        self._touched: set[int] = set()
        self._made: set[int] = set()
        self._parents: set[int] = set()
        self._files = 0
        self._bytes = 0

    def offer(self, record: Waiting) -> None:
        """Take a record, or pass it over."""
        if self._passed.hold(record) or self._must_wait(record) or not self._fits(record):
            self._passed.add(record)
            return
        self.chosen.append(record.sequence)
        self._touched |= record.objects
        self._parents |= record.parents
        if record.opcode in MAKES:
            self._made |= record.objects
        if record.opcode == Store.OPCODE:
            self._files += 1
            self._bytes += record.length

    def _must_wait(self, record: Waiting) -> bool:
        why = None
        if record.blocked:
            why = Why.DECISION
        elif record.held:
            why = Why.OPEN
        elif is_large(record, self._rules.big) and not record.uploaded:
            why = Why.UPLOAD
            if record.objects.isdisjoint(self._touched):  # else it may not exist at the servers yet
                self.uploads.append(record.sequence)
        self.why = self.why or why
        return why is not None

    def _fits(self, record: Waiting) -> bool:
        its = self._kind_of(record)
        if self.kind is None:
            self.kind = its
        if its is not self.kind:
            return False
        crowded = len(self._parents | record.parents) > self._rules.directories
        if self.chosen and crowded and not self._rules.own_servers:
            return False
        if record.opcode != Store.OPCODE or not self._files:
            return True
        return self._files < self._rules.files and self._bytes + record.length <= self._rules.size

    def _kind_of(self, record: Waiting) -> Kind:
        if is_large(record, self._rules.big):
            return Kind.HANDLE
        if self._rules.own_servers:
            return Kind.MIXED
        if record.opcode == Store.OPCODE:
            return Kind.STORES
        if record.opcode in MAKES:
            return Kind.MAKES
        new = record.objects <= self._made and len(record.parents) <= 1
        return Kind.MAKES if new and record.opcode in _HARMLESS_TO_NEW else Kind.CHANGES


def is_large(record: Waiting, big: int) -> bool:
    """Tell whether a record is a store that goes by handle."""
    return record.opcode == Store.OPCODE and record.length > big
