"""The daemon in one word and one line, for status bars: what `gcodacon` shows by the colour of its icon.

The word is the worst that is so; what needs a person comes before what passes by itself:

    stopped      no daemon runs
    login        changes wait for a login
    conflict     somebody must choose
    trouble      something keeps the daemon from working in full
    unreachable  no server answers
    offline      disconnected by hand
    pending      changes wait
    clean        everything has reached the servers
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.control.words import age, counted, size, waiting

PERIOD = 2.0
"""Seconds between looks."""


@dataclass(frozen=True, slots=True)
class Indicator:
    """What a status bar shows, in the form that Waybar reads.

    `class` and `alt` are the same word: stopped, login, conflict, trouble, unreachable, offline, pending or
    clean. `percentage` of the cache is full.
    """

    text: str
    alt: str
    class_: str
    tooltip: str
    percentage: int

    def json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps({name.rstrip("_"): getattr(self, name) for name in self.__slots__})


def looks(path: Path) -> Iterator[Indicator]:
    """Yield how the daemon at a socket is, at once and whenever that has changed, for ever."""
    shown = None
    for now in _every_look(path):
        if now != shown:
            yield now
        shown = now
        time.sleep(PERIOD)


def _every_look(path: Path) -> Iterator[Indicator]:
    while True:
        try:
            with Client(path) as client:
                while True:
                    yield look(client)
        except (NoDaemonError, ControlError) as error:
            yield lost(error)


def look(client: Client) -> Indicator:
    """Ask a daemon how it is. Raises NoDaemonError and ControlError."""
    return indicator(client.call("daemon.status"), list(client.pages("tokens.list")), time.time())


def lost(error: NoDaemonError | ControlError) -> Indicator:
    """Return what is shown where no daemon answers, or none that is understood."""
    word, text = ("stopped", "not running") if isinstance(error, NoDaemonError) else ("trouble", "trouble")
    return Indicator(text, word, word, str(error), 0)


def indicator(status: dict[str, Any], tokens: list[dict[str, Any]], now: float) -> Indicator:
    """Return what `daemon.status` and `tokens.list` mean; `now` in seconds since 1970."""
    word = _word(status, tokens)
    percentage = min(100, 100 * status["cache_used"] // max(1, status["cache_size"]))
    tooltip = "\n".join(_details(status, tokens)) or "Everything has reached the servers"
    return Indicator(_line(status, tokens, now), word, word, tooltip, percentage)


def _word(status: dict[str, Any], tokens: list[dict[str, Any]]) -> str:
    causes = {
        "login": any(token["state"] != "valid" and token["pending"] for token in tokens),
        "conflict": status["conflicts"],
        "trouble": status["troubles"],
        "unreachable": status["servers_down"] and not status["servers_up"] and not status["off_line"],
        "offline": status["off_line"],
        "pending": status["pending"],
    }
    return next((word for word, cause in causes.items() if cause), "clean")


def _details(status: dict[str, Any], tokens: list[dict[str, Any]]) -> Iterator[str]:
    """Say line by line what there is to do, and what waits."""
    for token in tokens:
        if token["state"] != "valid":
            held = f": {waiting(token['pending'])} for it" if token["pending"] else ""
            yield f"Log in again in {token['realm']}{held}"
    if status["conflicts"]:
        yield f"{counted(status['conflicts'], 'conflict')}: see realmfs conflicts"
    yield from status["troubles"]
    for where in status["off_line"]:
        yield f"Off line {where}"
    if status["pending"]:
        yield f"{counted(status['pending'], 'change')} not sent yet ({size(status['pending_bytes'])})"


def _line(status: dict[str, Any], tokens: list[dict[str, Any]], now: float) -> str:
    """Return the line. The worst comes first; then what waits, the token that ends first, the cache."""
    if any(where.startswith("everywhere") for where in status["off_line"]):
        presence = "off line"
    elif status["servers_up"] or not status["servers_down"]:
        presence = "online"
    else:
        presence = "no server answers"
    servers = counted(status["servers_up"], "server")
    if status["servers_down"]:
        servers += f" ({status['servers_down']} down)"
    ends = [token["ends"] for token in tokens if token["state"] == "valid" and token["ends"] is not None]
    missing = any(token["state"] != "valid" for token in tokens)
    login = "log in again" if missing else f"token {age(max(0.0, min(ends) - now))}" if ends else "no token"
    parts = [
        *([counted(status["conflicts"], "conflict")] if status["conflicts"] else []),
        *(["trouble"] if status["troubles"] else []),
        presence,
        servers,
        f"{status['pending']} pending",
        login,
        f"{size(status['cache_used'])} of {size(status['cache_size'])} cached",
    ]
    return ", ".join(parts)
