"""Which waiting records a new one makes pointless (reintegration.md §4). Pure.

The rules look at the records about one object, oldest first. A record that is frozen may be on its way to the
servers, so it is only marked and goes if it comes back; one that is blocked is left for whoever repairs it.

    store     makes earlier stores and utimes pointless      unless, for stores, a chown lies between
    utimes    earlier utimes
    chown     earlier chowns
    chmod     earlier chmods                                  unless a store lies between
    removal   of the last name: stores, utimes, chowns, chmods; and if the object was made in this log,
              everything about it, the removal included (*identity cancellation*)

If something about such an object is on its way to the servers, the removal is logged: should it come back
unapplied, both are found to be pointless then (`is_passing`).

The barriers are there because rights differ on either side. When a store or chown goes, what it kept apart
may go too, so the rules are applied until nothing changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from realmfs.vice.log import Chmod, Chown, Create, MakeDir, Remove, RemoveDir, Store, SymLink, Utimes

_ATTRIBUTES = frozenset(kind.OPCODE for kind in (Store, Utimes, Chown, Chmod))
MAKING = frozenset(kind.OPCODE for kind in (Create, SymLink, MakeDir))
_BARRIER = {Store.OPCODE: Chown.OPCODE, Chmod.OPCODE: Store.OPCODE}


@dataclass(frozen=True, slots=True)
class Past:
    """A waiting record about the object: as what it is changed or moved, or as the directory of a name."""

    sequence: int
    opcode: int
    as_object: bool
    frozen: bool = False
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Which records to cancel, and whether to log the new one at all."""

    cancel: tuple[int, ...] = ()
    log: bool = True


def plan(opcode: int, past: Sequence[Past], *, last_name: bool = True) -> Plan:
    """Tell what a new record about an object makes of the waiting ones, oldest first.

    `last_name`: for a removal, the object has no other name.
    """
    own = [record for record in past if record.as_object]
    if opcode in (Remove.OPCODE, RemoveDir.OPCODE):
        return _removal(own, past) if last_name else Plan()
    if opcode in _ATTRIBUTES:
        return Plan(_superseded([*own, Past(-1, opcode, as_object=True)]))
    return Plan()


def is_passing(past: Sequence[Past]) -> bool:
    """Tell whether the records, oldest first, make an object, remove its last name, and leave nothing."""
    own = [record for record in past if record.as_object]
    if not own or own[-1].opcode not in (Remove.OPCODE, RemoveDir.OPCODE):
        return False
    removal = own[-1]
    before = [record for record in past if record is not removal]
    return not (removal.frozen or removal.blocked) and not _removal(own[:-1], before).log


def _removal(own: Sequence[Past], past: Sequence[Past]) -> Plan:
    was_parent = len(own) < len(past)
    untouchable = any(record.frozen or record.blocked for record in own)
    if own and own[0].opcode in MAKING and not was_parent and not untouchable:
        return Plan(tuple(record.sequence for record in own), log=False)
    return Plan(tuple(r.sequence for r in own if r.opcode in _ATTRIBUTES and not r.blocked))


def _superseded(records: Sequence[Past]) -> tuple[int, ...]:
    rest = [record for record in records if record.opcode in _ATTRIBUTES]
    gone: list[int] = []
    while True:
        pointless = next(
            (r for i, r in enumerate(rest) if not r.blocked and _pointless(r, rest[i + 1 :])), None
        )
        if pointless is None:
            return tuple(gone)
        rest.remove(pointless)
        gone.append(pointless.sequence)


def _pointless(record: Past, later: Sequence[Past]) -> bool:
    """Tell whether one of the later records does all that this one would."""
    barrier = _BARRIER.get(record.opcode)
    for other in later:
        if other.opcode == record.opcode:
            return True
        if other.opcode == Store.OPCODE and record.opcode == Utimes.OPCODE:
            return True
        if other.opcode == barrier:
            return False
    return False
