"""The line at the top: the daemon at a glance."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from textual.widgets import Static

from realmfs.control.words import age, counted, size

SOON = 3600.0
"""Seconds before the end of a login in which it is told."""


class StatusLine(Static):
    """One line: servers, pending changes, cache."""

    def tell(self, status: Mapping[str, Any], tokens: Sequence[Mapping[str, Any]]) -> None:
        """Show the results of `daemon.status` and `tokens.list`."""
        self.update(summary(status, login(tokens, time.time())))

    def tell_down(self) -> None:
        """Show that nobody is there."""
        self.update("[bold]realmfs[/]  [red]○ no daemon[/]")


def login(tokens: Sequence[Mapping[str, Any]], now: float) -> str:
    """Return what there is to do about logins: they have ended, or end within the hour; else nothing."""
    for token in tokens:
        if token["state"] != "valid":
            return "[bold red]! log in: 5, l[/]"
    ends = min((token["ends"] - now for token in tokens if token["ends"] is not None), default=SOON)
    return f"[yellow]login ends in {age(max(0.0, ends))}: 5, l[/]" if ends < SOON else ""


def summary(status: Mapping[str, Any], urgent: str = "") -> str:
    """Return the daemon's status in one line; colours only stress what the words say."""
    up, down = status["servers_up"], status["servers_down"]
    servers = f"[green]● {counted(up, 'server')}[/]" if not down else f"[yellow]● {up} up, {down} down[/]"
    if not up:
        servers = "[red]○ offline[/]" if down else "○ no server yet"
    if status["off_line"]:
        servers = f"[yellow]○ off line {escape(status['off_line'][0])}[/]"
    pending, conflicts = status["pending"], status.get("conflicts", 0)
    parts = [servers]
    if status["troubles"]:
        parts.append(f"[red]! {escape(status['troubles'][0])}[/]")
    if conflicts:
        parts.append(f"[bold red]! {counted(conflicts, 'conflict')}[/]")
    if urgent:
        parts.append(urgent)
    if pending:
        size_of = size(status["pending_bytes"])
        parts.append(f"[yellow]✎ {pending} unsent ({size_of})[/]")
    else:
        parts.append("all sent")
    parts.append(f"cache {100 * status['cache_used'] // max(1, status['cache_size'])} %")
    return f"[bold]realmfs[/]  {'  ·  '.join(parts)}"
