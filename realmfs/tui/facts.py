"""What is known of an object, said to people: its replicas and their agreement, and why it is here."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from realmfs.control.words import mode, moment, printable, size

_DETAILS = (
    ("state", "state"),
    ("valid", "why valid"),
    ("hoard", "hoard"),
    ("rights", "rights"),
    ("pending", "pending"),
    ("conflict", "conflict"),
    ("fid", "fid"),
    ("vv", "version"),
    ("volume", "volume"),
    ("mount", "mounted on"),
)
_SERVERS = {"up": ("●", "green"), "down": ("○", "red")}

Server = Mapping[str, Any]


def facts(told: Mapping[str, Any], servers: Sequence[Server]) -> Group:
    """Return what is known of an object (the result of `path.stat`), a line a fact, above its replicas."""
    attributes, details = told["attributes"], told["details"]
    head = Text(f"{mode(attributes)}  {size(attributes['size'])}\n{moment(attributes['mtime'])}")
    if told["target"] is not None:
        head.append(f"\n-> {printable(told['target'])}")
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    why = why_here(details)
    if why:
        table.add_row("why here", why)
    for name, word in _DETAILS:
        if details.get(name) not in (None, "", "no", "0"):
            table.add_row(word, Text(printable(details[name].partition(" flags ")[0])))
    replicas = details.get("servers", "").split()
    if len(replicas) > 1:
        table.add_row("replicas", agreement(details, len(replicas)))
    return Group(head, table, _replicas(details, servers))


def _replicas(details: Mapping[str, str], servers: Sequence[Server]) -> Text:
    """Return a line for each replica: is its server up, and which version has it."""
    text = Text()
    known = {server["address"].split(":")[0]: server for server in servers}
    replicas = details.get("servers", "").split()
    for address, version in zip(replicas, _versions(details, len(replicas)), strict=True):
        server = known.get(address.split(":")[0], {})
        mark, colour = _SERVERS.get(server.get("state", ""), ("?", "dim"))
        text.append(mark, colour).append(f" {printable(server.get('name') or address)}")
        text.append(f" v{version}\n" if version else "\n", "dim")
    return text


def why_here(details: Mapping[str, str]) -> str:
    """Say why the object is in the cache; "" if it is not."""
    if details.get("state") not in ("cached", "partial", "dirty", "conflict"):
        return ""
    if details.get("pending", "0") != "0":
        return "changes of it wait to be sent"
    hoard = details.get("hoard", "0")
    if ":" in hoard:
        return f"hoarded: {hoard}"
    if hoard not in ("0", ""):
        return f"hoarded, priority {hoard}"
    priority = details.get("priority")
    return f"used lately (priority {priority})" if priority else "used lately"


def agreement(details: Mapping[str, str], count: int) -> str:
    """Say whether the replicas have the same version, as far as was asked or promised."""
    if details.get("conflict") in ("server", "both"):
        return "they differ, and cannot settle it: see Conflicts"
    versions = [version for version in _versions(details, count) if version is not None]
    if not versions:
        return "not known yet"
    newest = versions.count(max(versions))
    if newest == count:
        return f"all {count} have this version"
    return f"{newest} of {count} have it, the others are behind"


def _versions(details: Mapping[str, str], count: int) -> list[int | None]:
    """Return each replica's update count out of `[3 3 2][store id]`."""
    numbers = details.get("vv", "").partition("]")[0].lstrip("[").split()
    if not all(number.isdigit() for number in numbers):
        numbers = []
    found = [int(number) for number in numbers[:count]]
    return [*found, *([0 if found else None] * (count - len(found)))]
