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
"""

import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from realmfs.vice.cop2 import Cop2Entry
from realmfs.vice.types import StoreId

log = logging.getLogger(__name__)

LULL: Final = 0.05
"""Seconds in which something may follow that takes them along; other clients that look meanwhile see replicas
that differ."""
MAX_ENTRIES: Final = 4096


class Cop2Queue:
    """Entries not yet delivered, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Cop2Entry] = deque()
        self._lost = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, store_id: StoreId, update_set: Sequence[int]) -> None:
        """Queue one: the slots that executed the update."""
        if len(self._entries) >= MAX_ENTRIES:
            if not self._lost:
                log.info("more than %d second phases wait; the oldest are left to resolution", MAX_ENTRIES)
            self._lost += 1
            self._entries.popleft()
        self._entries.append(Cop2Entry(store_id, tuple(update_set)))

    def batch(self, limit: int) -> list[Cop2Entry]:
        """Return the oldest entries, at most `limit`; they stay in the queue until `delivered`."""
        return list(islice(self._entries, limit))

    def delivered(self, batch: Sequence[Cop2Entry]) -> None:
        """Take entries off that every server up has got.

        These very ones: another of the same store id may have come meanwhile, for a later update.
        """
        done = {id(entry) for entry in batch}
        while self._entries and id(self._entries[0]) in done:
            self._entries.popleft()
        if self._lost and not self._entries:
            log.info("%d second phases were left to resolution", self._lost)
            self._lost = 0
