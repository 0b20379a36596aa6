"""The line at the top: the daemon at a glance."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from textual.widgets import Static

from realmfs.control.words import size


class StatusLine(Static):
    """One line: servers, pending changes, cache."""

    def tell(self, status: Mapping[str, Any]) -> None:
        """Show the result of `daemon.status`."""
        self.update(summary(status))

    def tell_down(self) -> None:
        """Show that nobody is there."""
        self.update("realmfs: no daemon")


def summary(status: Mapping[str, Any]) -> str:
    """Return the daemon's status in one line; colours only stress what the words say."""
    up, down = status["servers_up"], status["servers_down"]
    servers = f"[green]● {up} up[/]" if not down else f"[yellow]● {up} up, {down} down[/]"
    if not up:
        servers = "[red]○ offline[/]" if down else "○ no server yet"
    if status["off_line"]:
        servers = f"[yellow]○ off line {escape(status['off_line'][0])}[/]"
    pending = status["pending"]
    waiting = f"[yellow]{pending} pending ({size(status['pending_bytes'])})[/]" if pending else "0 pending"
    cached = f"cache {size(status['cache_used'])} of {size(status['cache_size'])}"
    trouble = f"  [red]! {escape(status['troubles'][0])}[/]" if status["troubles"] else ""
    return f"realmfs  {servers}  ·  {waiting}  ·  {cached}{trouble}"
