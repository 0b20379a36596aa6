"""Whether this is a good moment for work nobody waits for: is the link metered, is the battery low?

NetworkManager tells over D-Bus whether the connection costs by the byte; the kernel tells about batteries in
/sys/class/power_supply. Where either is missing nothing is against the work. Both are looked at now and then,
so that asking costs nothing.
"""

import logging
from pathlib import Path

import trio
from jeepney import DBusAddress, Properties
from jeepney.auth import AuthenticationError
from jeepney.io.trio import open_dbus_router
from jeepney.wrappers import DBusErrorResponse

log = logging.getLogger(__name__)

AGAIN = 30.0
"""Seconds between two looks."""
LOW = 20
"""Percent of the battery's charge from which on nothing begins by itself, unless it is being charged."""
_ANSWER_WITHIN = 5.0
_METERED = frozenset({1, 3})  # NM_METERED_YES, NM_METERED_GUESS_YES
_MANAGER = DBusAddress(
    "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "org.freedesktop.NetworkManager"
)
_TROUBLE = (
    OSError,
    AuthenticationError,
    DBusErrorResponse,
    trio.TooSlowError,
    trio.BrokenResourceError,
    KeyError,
)


class Conditions:
    """What is against unasked work. `bus`: SYSTEM, SESSION or an address; `supplies`: where batteries are."""

    def __init__(self, bus: str = "SYSTEM", supplies: Path = Path("/sys/class/power_supply")) -> None:
        self._bus = bus
        self._supplies = supplies
        self._metered = False
        self._low: int | None = None

    def hindrance(self) -> str:
        """Say what is against it; "" if nothing is."""
        if self._metered:
            return "the network connection is metered"
        if self._low is not None:
            return f"the battery is at {self._low} %"
        return ""

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await self.look()
            await trio.sleep(AGAIN)

    async def look(self) -> None:
        """Look now."""
        self._low = low_battery(self._supplies)
        metered = False
        try:
            with trio.fail_after(_ANSWER_WITHIN):
                metered = await self._ask() in _METERED
        except* _TROUBLE as trouble:  # the bus has a nursery of its own
            log.debug("NetworkManager does not say whether the link is metered: %r", trouble.exceptions)
        self._metered = metered

    async def _ask(self) -> int:
        async with open_dbus_router(self._bus) as router:
            answer = await router.send_and_get_reply(Properties(_MANAGER).get("Metered"))
            if answer.header.message_type.name == "error":
                raise DBusErrorResponse(answer)
            _, value = answer.body[0]
            return int(value)


def low_battery(supplies: Path) -> int | None:
    """Return the charge in percent if the machine lives on a battery that is low; else None."""
    charges = []
    try:
        found = sorted(supplies.iterdir())
    except OSError:
        return None
    for supply in found:
        if _read(supply / "type") == "Mains" and _read(supply / "online") == "1":
            return None
        if _read(supply / "type") != "Battery" or _read(supply / "scope") == "Device":
            continue  # of a mouse or a keyboard
        if _read(supply / "status") != "Discharging":
            return None
        capacity = _read(supply / "capacity")
        if capacity.isdecimal():
            charges.append(int(capacity))
    return max(charges) if charges and max(charges) <= LOW else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
