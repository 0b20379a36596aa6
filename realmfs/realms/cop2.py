"""The second phase of updates: telling each server of a group who else executed an update (vice.md §6.4).

One queue per replicated volume, in the order of the updates. Entries ride on calls that go to the whole
group anyway; they are taken off once such a call has succeeded. What does not get a ride is sent by itself
when it is 10 s old or when a call to a single server is to follow. Losing an entry is legal: the replicas
are then weakly equal until resolution repairs that. So the queue may have a limit. Sending one twice is
harmless.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

from realmfs.vice.cop2 import Cop2Entry
from realmfs.vice.types import StoreId

log = logging.getLogger(__name__)

MAX_AGE: Final = 10.0
MAX_ENTRIES: Final = 4096
MANY: Final = 512
"""So many are worth calls of their own: a batch of a large log brings more than its call can carry away."""


class Cop2Queue:
    """Entries not yet delivered, oldest first, with the time they came."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Cop2Entry, float]] = deque()
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
        self._entries.append((Cop2Entry(store_id, tuple(update_set)), trio.current_time()))

    def batch(self, limit: int) -> list[Cop2Entry]:
        """Return the oldest entries, at most `limit`; they stay in the queue until `delivered`."""
        return [entry for _, (entry, _) in zip(range(limit), self._entries, strict=False)]

    def delivered(self, batch: Sequence[Cop2Entry]) -> None:
        """Take entries off that every server up has got."""
        done = set(batch)
        while self._entries and self._entries[0][0] in done:
            self._entries.popleft()
        if self._lost and not self._entries:
            log.info("%d second phases were left to resolution", self._lost)
            self._lost = 0

    def is_due(self) -> bool:
        """Whether what waits should go by itself: there is much of it, or the oldest waits long enough."""
        if not self._entries:
            return False
        return len(self._entries) >= MANY or trio.current_time() - self._entries[0][1] >= MAX_AGE
