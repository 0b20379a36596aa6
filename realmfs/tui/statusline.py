"""The line at the top: the daemon at a glance."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from textual.widgets import Static

from realmfs.control.words import counted, size


class StatusLine(Static):
    """One line: servers, pending changes, cache."""

    def tell(self, status: Mapping[str, Any]) -> None:
        """Show the result of `daemon.status`."""
        self.update(summary(status))

    def tell_down(self) -> None:
        """Show that nobody is there."""
        self.update("[bold]realmfs[/]  [red]○ no daemon[/]")


def summary(status: Mapping[str, Any]) -> str:
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
    if pending:
        size_of = size(status["pending_bytes"])
        parts.append(f"[yellow]✎ {pending} unsent ({size_of})[/]")
    else:
        parts.append("all sent")
    parts.append(f"cache {100 * status['cache_used'] // max(1, status['cache_size'])} %")
    return f"[bold]realmfs[/]  {'  ·  '.join(parts)}"
