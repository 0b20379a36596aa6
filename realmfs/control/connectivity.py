"""Going off line and coming back by hand: the methods `connection.*`."""

import errno
from collections.abc import Callable

from realmfs.control import messages
from realmfs.control.protocol import ControlError
from realmfs.control.service import Method
from realmfs.realms.names import fold
from realmfs.realms.presence import EVERYWHERE
from realmfs.realms.realms import Realms


class Connectivity:
    """Takes the client off line and puts it on again. `pending` counts the changes that wait."""

    def __init__(self, realms: Realms, pending: Callable[[], int]) -> None:
        self._realms = realms
        self._pending = pending

    def methods(self) -> dict[str, Method]:
        """Return the methods by name; all are for the owner of the daemon."""
        return {
            "connection.disconnect": Method(messages.Where, self.disconnect, owner_only=True),
            "connection.reconnect": Method(messages.Where, self.reconnect, owner_only=True),
        }

    async def disconnect(self, params: messages.Where) -> messages.Connection:
        """Take leave of the servers, and speak to none until `reconnect`."""
        self._check(params.realm)
        await self._realms.disconnect(params.realm)
        return self._now()

    async def reconnect(self, params: messages.Where) -> messages.Connection:
        """Look for the servers again."""
        if params.realm is not None and fold(params.realm) not in self._realms.presence.off:
            self._check(params.realm)
        await self._realms.reconnect(params.realm)
        return self._now()

    def _check(self, realm: str | None) -> None:
        """A misspelt name must not look like success."""
        if realm is not None and self._realms.realm_named(realm) is None:
            raise ControlError.of_errno(
                errno.ENOENT, f"realm {realm} has never been reached. See `realmfs realms`"
            )

    def _now(self) -> messages.Connection:
        off = self._realms.presence.off
        return messages.Connection(EVERYWHERE in off, sorted(off - {EVERYWHERE}), self._pending())
