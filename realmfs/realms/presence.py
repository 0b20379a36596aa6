"""Where we are on line, as far as that is ours to say: but for what a person or the machine took off.

Three things take us off line, each by itself:

    everywhere off     `realmfs disconnect`           remembered on disk, until `reconnect`
    a realm off        `realmfs disconnect REALM`     remembered on disk, until `reconnect [REALM]`
    asleep             the machine is about to sleep  until it wakes

Who goes off line takes leave of the servers (vice.md §2.4), so that no writer there waits for us, and then
sends and believes nothing: no probe, no name looked up, no server that binds back. All that is cached serves
on, all changes wait in the log. State is per realm, so one that is off touches no other.
"""

from collections.abc import Set as AbstractSet

EVERYWHERE = "*"  # no name of a realm


class Presence:
    """The switches. `remembered` names the realms that are off by hand, or EVERYWHERE; shared with Memory."""

    def __init__(self, remembered: set[str]) -> None:
        self._off = remembered
        self.asleep = False

    def is_online(self, realm: str) -> bool:
        """Tell whether servers of a realm, by its folded name, may be spoken to."""
        return not (self.asleep or EVERYWHERE in self._off or realm in self._off)

    @property
    def anywhere(self) -> bool:
        """Whether anybody may be spoken to, name servers for one."""
        return not (self.asleep or EVERYWHERE in self._off)

    @property
    def off(self) -> AbstractSet[str]:
        """The realms that are off by hand, or EVERYWHERE."""
        return frozenset(self._off)

    def why(self, realm: str) -> str:
        """Say in a word or two why a realm is off line; "" if it is not."""
        if EVERYWHERE in self._off or realm in self._off:
            return "disconnected by hand"
        return "asleep" if self.asleep else ""

    def take_off(self, realm: str | None) -> None:
        """Go off line in a realm, or everywhere (None)."""
        self._off.add(EVERYWHERE if realm is None else realm)

    def put_on(self, realm: str | None) -> None:
        """Take a realm on line, or all of them (None)."""
        if realm is None:
            self._off.clear()
        else:
            self._off.discard(realm)
