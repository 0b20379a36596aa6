"""Which waiting records go together in the next call (reintegration.md §2.2, design, row "batches"). Pure.

Towards servers not known to be ours a call holds either name-space records or stores, never both: their
roll-back of a failed batch with creations kills them. Editors and archivers alternate the two (create a,
store a, create b, ...), so records of the other kind are *passed over*, and with them whatever touches an
object that one passed over touches. The rest keeps its order:

    log     create a   store a   create b   store b   chmod b   create c
    first   create a             create b                       create c
    then               store a              store b
    then                                              chmod b

Towards our own servers a batch is simply a prefix of the log. A store larger than can be fetched back in
about a second goes by itself, by handle. A store of a file that is still open for writing waits, with all
that touches it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from realmfs.vice.log import Store


class Kind(Enum):
    """How a batch is sent."""

    NAMES = "names and attributes"
    STORES = "stores that servers fetch back"
    MIXED = "anything, to our own servers"
    HANDLE = "one large store"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What choosing needs to know of a record."""

    sequence: int
    opcode: int
    objects: frozenset[int]
    """Inode numbers of all objects it touches."""
    length: int = 0
    blocked: bool = False
    held: bool = False
    """A store whose file is open for writing."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to send together, by sequence."""

    kind: Kind
    sequences: tuple[int, ...]


def choose(
    waiting: Iterable[Waiting], *, own_servers: bool, records: int, files: int, big: int
) -> Batch | None:
    """Return the next batch of a volume's log; None if nothing can go now."""
    chosen: list[int] = []
    stores = 0
    passed: set[int] = set()
    kind: Kind | None = None
    for record in waiting:
        if record.blocked or len(chosen) == records:
            break
        if record.held or not record.objects.isdisjoint(passed):
            passed |= record.objects
            continue
        its = kind_of(record, own_servers, big)
        if kind is None:
            kind = its
        if its is not kind or (record.opcode == Store.OPCODE and stores == files):
            if own_servers:
                break
            passed |= record.objects
            continue
        chosen.append(record.sequence)
        stores += record.opcode == Store.OPCODE
        if kind is Kind.HANDLE:
            break
    return Batch(kind, tuple(chosen)) if kind is not None else None


def kind_of(record: Waiting, own_servers: bool, big: int) -> Kind:
    """Tell how a record must be sent."""
    if record.opcode == Store.OPCODE and record.length > big:
        return Kind.HANDLE
    if own_servers:
        return Kind.MIXED
    return Kind.STORES if record.opcode == Store.OPCODE else Kind.NAMES
