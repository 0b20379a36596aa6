"""Groups of servers said to people: which hold the same volumes, and how many of them are there."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from realmfs.control.words import counted, printable
from realmfs.tui.table import Cell

HEADS = ("realm", "group", "replicas there", "volumes")


def group_rows(
    volumes: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, Any]]
) -> dict[str, Sequence[Cell]]:
    """Return a row for each set of servers that hold volumes, from `volumes.list` and `servers.list`."""
    known = {(server["realm"], server["address"]): server for server in servers}
    groups: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for volume in volumes:
        groups.setdefault((volume["realm"], tuple(sorted(volume["servers"]))), []).append(volume)
    return {
        f"{realm} {' '.join(addresses)}": (
            realm,
            ", ".join(_name(known, realm, address) for address in addresses),
            _there([known.get((realm, address), {}).get("state") == "up" for address in addresses], held),
            _held(held),
        )
        for (realm, addresses), held in sorted(groups.items())
    }


def _name(known: Mapping[tuple[str, str], Mapping[str, Any]], realm: str, address: str) -> str:
    name = str(known.get((realm, address), {}).get("name", address.rpartition(":")[0]))
    return printable(name.removesuffix(f".{realm}"))


def _there(up: Sequence[bool], volumes: Sequence[Mapping[str, Any]]) -> Text:
    """Say how many replicas can be reached, and whether their servers make them equal just now."""
    if any(volume["state"] == "resolving" for volume in volumes):
        return Text(f"◐ {sum(up)} of {len(up)}, resolving", "yellow")
    mark, colour = ("●", "green") if all(up) else ("◐", "yellow") if any(up) else ("○", "red")
    return Text(f"{mark} {sum(up)} of {len(up)}", colour)


def _held(volumes: Sequence[Mapping[str, Any]]) -> str:
    names = sorted(printable(volume["name"]) for volume in volumes)
    return f"{counted(len(names), 'volume')}: {', '.join(names)}"
