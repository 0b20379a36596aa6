"""Records that come back from sending unapplied: what was made and removed again meanwhile need not be sent.

While a creation is on its way, the removal of what it makes must be logged (optimise.py). If the servers then
have not applied the creation, neither is of use to anybody.
"""

from collections.abc import Iterable

from realmfs.cache.log import LogEntry, Role, State
from realmfs.venus.core import Core
from realmfs.venus.optimise import MAKING, Past, is_passing


def forget_passing(core: Core, thawed: Iterable[LogEntry]) -> None:
    """Remove all records about objects that exist in this log only. Inside a transaction."""
    for entry in thawed:
        if entry.opcode not in MAKING:
            continue
        number = next(number for number, role in entry.about if role & Role.OBJECT)
        row = core.cache.objects.load(number)
        if row is None or row.status is None or row.status.links:
            continue
        waiting = list(reversed(list(core.cache.log.about(number))))
        if is_passing([_past(other, role, entry) for other, role in waiting]):
            core.nodes.cleaned(core.cache.log.remove(other for other, _ in waiting))


def _past(entry: LogEntry, role: Role, made: LogEntry) -> Past:
    foreign = (entry.uid, entry.identity) != (made.uid, made.identity)
    return Past(
        entry.sequence,
        entry.opcode,
        bool(role & Role.OBJECT),
        frozen=entry.frozen,
        blocked=foreign or bool(entry.state & State.BLOCKED),
    )
