"""What is known of an object, said to people: its replicas and their agreement, and why it is here."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from realmfs.control.words import mode, moment, printable, size

_DETAILS = (
    ("state", "state"),
    ("valid", "valid"),
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
WIDE = 11

Server = Mapping[str, Any]


def facts(told: Mapping[str, Any], servers: Sequence[Server]) -> Text:
    """Return what is known of an object (the result of `path.stat`), a line a fact."""
    attributes, details = told["attributes"], told["details"]
    text = Text(f"{mode(attributes)}  {size(attributes['size'])}  {moment(attributes['mtime'])}\n")
    if told["target"] is not None:
        text.append(f"-> {printable(told['target'])}\n")
    why = why_here(details)
    if why:
        _append(text, "why here", why)
    for name, word in _DETAILS:
        if details.get(name) not in (None, "", "no", "0"):
            _append(text, word, printable(details[name]))
    known = {server["address"].split(":")[0]: server for server in servers}
    replicas = details.get("servers", "").split()
    if len(replicas) > 1:
        _append(text, "replicas", agreement(details, len(replicas)))
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


def _append(text: Text, word: str, fact: str) -> None:
    text.append(f"{word:>{WIDE}} ", "dim")
    text.append(f"{fact}\n")
