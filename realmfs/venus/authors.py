"""Whose log is it? All records of a volume's log have one author (reintegration.md §1.5).

An author is a local uid together with whom the servers take it for: a Coda identity (`id@realm`), or nobody.
A log is sent as its author, so records of two authors in one log would wait for each other's tokens. Hence a
volume belongs to whoever has changes waiting in it, until the servers have them. Another author, or the same
uid under another identity, waits for his turn; when it does not come he is told EBUSY, and who holds the log.

Under which identity a uid's change is logged:

    he has a token, ended or not      that of the token
    changes of his wait               theirs: what he does now waits with them, for the same login
    none, servers are away            the last that he had and has not logged out of, over restarts too: his
                                      rights of then count (access.py), and what they allowed is sent as him
    none, servers are there           nobody's: it is what anybody may do

So nothing is ever sent as anybody else, and work without a network does not stop because a token ended.

A change begins only in a log of one's own, and a file is changed from its first write on. Its store is logged
at the close in any case: what was written is not lost because somebody else got in between. (The sender cuts
batches where the author changes, and the optimiser touches no record of another author.)
"""

import trio

from realmfs.cache.cache import Cache
from realmfs.venus.events import EventStream, LogHeld
from realmfs.venus.face import Caller
from realmfs.venus.volume import VolumeState
from realmfs.venus.volumes import Volumes
from realmfs.vice.errors import CodaError, Code

PART_OF_PATIENCE = 0.8  # the rest is for the change itself


class Authors:
    """Tells whose turn it is in each log. `patience` in seconds is that of a whole public call."""

    def __init__(self, cache: Cache, volumes: Volumes, events: EventStream, patience: float) -> None:
        self._cache = cache
        self._volumes = volumes
        self._events = events
        self._patience = patience

    def identity(self, volume: VolumeState, caller: Caller) -> str:
        """Return under which identity a change by `caller` is logged now; "" is nobody."""
        own = self._volumes.identity(volume, caller.uid)
        owner = self._cache.log.owner(volume.key)
        if own:
            return own
        if owner is not None and owner[0] == caller.uid:
            return owner[1]
        return self._volumes.last_identity(volume, caller.uid) if volume.away else ""

    def is_turn(self, volume: VolumeState, caller: Caller) -> bool:
        """Tell whether `caller` may begin a change: the log is empty, or his."""
        owner = self._cache.log.owner(volume.key)
        if owner is None:
            return True
        uid, identity = owner
        return uid == caller.uid and self._volumes.identity(volume, uid) in ("", identity)

    async def turn(self, volume: VolumeState, caller: Caller) -> None:
        """Wait for the turn. Raises CodaError EBUSY when it does not come, with an event that says why."""
        if self.is_turn(volume, caller):
            return
        with trio.move_on_after(self._patience * PART_OF_PATIENCE):
            while not self.is_turn(volume, caller):
                await volume.drained.park()
        owner = self._cache.log.owner(volume.key)
        if owner is None or self.is_turn(volume, caller):
            return
        held = LogHeld(volume.name, volume.realm, caller.uid, *owner, volume.waiting_for)
        self._events.publish(held)
        raise CodaError(Code.EBUSY, held.text())
