"""The second phase of updates: telling each server of a group who else executed an update (vice.md §6.4).

One queue per replicated volume, in the order of the updates. Entries ride on calls that go to the whole
group anyway; they are taken off once such a call has succeeded. What does not get a ride is sent by itself:
after a lull, before a call to a single server, and before the next update.

    update 1 ──► its second phases ──► update 2        each server counts the others once for each update
    update 1 ──► update 2 ──► the second phases        ... once in all: the replicas differ

The order matters because a server marks an object once, however many updates of it wait for their second
phase: the first that comes ends the mark, and the others do nothing. Replicas that differ so, or by an entry
that was lost, are weakly equal: each is resolved when somebody next looks at it, which is legal and slow. So
the queue may have a limit. Sending one twice is harmless.

A reference server does one thing more with a second phase that names the whole group: it cuts the directory's
resolution log down to its last record, since all have what was before. That is wrong if another client has
changed the directory after the update and without knowing it:

    our update X ──► theirs, made without X ──► the second phase of X          log: [null]
                                            └─► in the form that keeps logs    log: [X, theirs, null]

Such a change gives the directory a store id of each server's own, so it has to be resolved, and is logged in
a form that does not count as a point that logs have in common; X would be one, and is gone. Then every
resolution, whoever asks for it, marks the directory as in conflict (protocol-notes.md, "several clients in
one directory"). So where others change a directory, too, second phases go in a form that leaves the logs
alone, to each server its own (vice/cop2.py). Resolutions, and second phases of those others, cut them.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from realmfs.vice.cop2 import Cop2Entry
from realmfs.vice.types import Fid, StoreId

log = logging.getLogger(__name__)

LULL: Final = 0.05
"""Seconds in which something may follow that takes them along; other clients that look meanwhile see replicas
that differ."""
MAX_ENTRIES: Final = 4096
SHARED_SECONDS: Final = 600.0
"""For how long after a change by somebody else a directory's log is left alone."""
MOST_KEPT: Final = 200
"""Second phases of one directory after which its log is cut as soon as others rest: logs are bounded."""
REST_SECONDS: Final = 30.0
MAX_DIRECTORIES: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class SecondPhase:
    """One entry, and the directories that its update changed."""

    entry: Cop2Entry
    directories: tuple[Fid, ...] = ()


class KeptLogs:
    """How often each directory's log was left alone, to say when it should be cut."""

    def __init__(self) -> None:
        self._times: dict[Fid, int] = {}

    def keeps(self, directory: Fid, since_change: float) -> bool:
        """Whether its log should be left alone; others changed it so many seconds ago."""
        if since_change >= SHARED_SECONDS:
            return False
        return self._times.get(directory, 0) < MOST_KEPT or since_change < REST_SECONDS

    def note(self, directory: Fid, kept: bool) -> None:
        """Note what a second phase did to its log."""
        times = self._times.pop(directory, 0)
        if kept:
            self._times[directory] = times + 1
            if len(self._times) > MAX_DIRECTORIES:
                del self._times[next(iter(self._times))]


class Cop2Queue:
    """Entries not yet delivered, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[SecondPhase] = deque()
        self._lost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, store_id: StoreId, update_set: Sequence[int], directories: Sequence[Fid] = ()) -> None:
        """Queue one: the slots that executed the update, and the directories that it changed."""
        if len(self._entries) >= MAX_ENTRIES:
            if not self._lost:
                log.info("more than %d second phases wait; the oldest are left to resolution", MAX_ENTRIES)
            self._lost += 1
            self._entries.popleft()
        self._entries.append(SecondPhase(Cop2Entry(store_id, tuple(update_set)), tuple(directories)))

    def batch(self, limit: int) -> list[SecondPhase]:
        """Return the oldest entries, at most `limit`; they stay in the queue until `delivered`."""
        return list(islice(self._entries, limit))

    def delivered(self, batch: Sequence[SecondPhase]) -> None:
        """Take entries off that every server up has got.

        These very ones: another of the same store id may have come meanwhile, for a later update.
        """
        done = {id(entry) for entry in batch}
        while self._entries and id(self._entries[0]) in done:
            self._entries.popleft()
        if self._lost and not self._entries:
            log.info("%d second phases were left to resolution", self._lost)
            self._lost = 0
