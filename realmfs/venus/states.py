"""Transitions of volumes between reachable, unreachable and resolving (reintegration.md §5).

                     a server of the group answers
      ┌─────────────┐ ────────────────────────────► ┌───────────┐
      │ unreachable │                               │ reachable │ ◄─┐
      └─────────────┘ ◄──────────────────────────── └───────────┘   │ the last one has ended
             ▲         none does, we sleep, or a          │         │
             │         person has disconnected            ▼ a resolution begins
             │                                      ┌───────────┐   │
             └───────────────────────────────────── │ resolving │ ──┘
                                                    └───────────┘

The state is not kept but read off the servers of the volume's own group (`VolumeState.state`), so it cannot
be wrong, and what happens to other servers does not matter. Kept is only what was told of it. Changes are
logged in every state; they are sent in the last two, by the volume's sender, whom each event wakes.
"""

from realmfs.venus.events import EventStream, VolumeChanged
from realmfs.venus.volume import VolumeState


class States:
    """Tells who watches when a volume's state has changed."""

    def __init__(self, events: EventStream) -> None:
        self._events = events

    def look(self, volume: VolumeState, records: int) -> None:
        """Publish the state if it is another one than was published last; `records` wait."""
        state = volume.state
        if state is volume.state_told:
            return
        volume.state_told = state
        self._events.publish(state_of(volume, records))


def state_of(volume: VolumeState, records: int) -> VolumeChanged:
    """Return the state of a volume with so many records as an event."""
    flags = (volume.waiting_for,) if volume.waiting_for else ()
    return VolumeChanged(volume.name, volume.realm, volume.state.value, records, flags)
