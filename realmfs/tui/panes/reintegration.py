"""Reintegration: what waits to be sent, volume by volume and change by change, and what has been sent.

Progress and rates come from the event stream, so they cost the daemon nothing.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, RichLog, Sparkline, Static

from realmfs.control.words import age, counted, printable, size
from realmfs.tui.dialogs import Confirm
from realmfs.tui.link import Event, Link
from realmfs.tui.pace import Pace
from realmfs.tui.pane import Pane
from realmfs.tui.table import Cell, Rows

MOST_CHANGES = 200
"""Changes of a volume that are asked for and shown; the rest are counted."""
SECONDS = 60
"""How far back the sparkline goes."""

Change = Mapping[str, Any]


class ReintegrationPane(Pane):
    """Volumes with pending changes, the changes of one, and the history."""

    key = "reintegration"
    title = "Reintegration"
    watches = frozenset({"reintegrate", "volstate", "store", "token"})
    period = 5.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "send", "Send now"),
        Binding("t", "retry", "Retry"),
        Binding("p", "pause", "Pause"),
        Binding("D", "discard", "Discard"),
        Binding("e", "export", "Export"),
        Binding("o", "line", "Off line"),
    ]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._changes: dict[str, Change] = {}
        self._paused = False
        self._sent: deque[float] = deque([0.0] * SECONDS, maxlen=SECONDS)
        self._todo: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._of: str | None = None
        self._pace = Pace()

    def compose(self) -> ComposeResult:
        """Put volumes over changes over history."""
        yield Static(id="log-state")
        yield Rows(
            ("volume", "state", "waits", "size", "oldest", "why"),
            id="log-volumes",
            shrink=("why", "volume"),
            empty="No changes wait in any volume.",
        )
        yield Rows(
            ("", "change", "path", "size", "age", "by", "state"),
            id="log-changes",
            shrink=("state", "path"),
            drop=("by", ""),
        )
        yield Static("Sent in the last minute", classes="heading")
        yield Sparkline(list(self._sent), id="log-rate")
        yield RichLog(id="log-history", max_lines=500, wrap=False)

    def on_mount(self) -> None:
        """Begin to count."""
        self.set_interval(1.0, self._next_second)

    def shown(self) -> None:
        """Take the keys."""
        super().shown()
        if not self.query_one("#log-changes").has_focus:
            self.screen.set_focus(self.query_one("#log-volumes"))

    # what there is

    async def load(self) -> None:
        """Ask for the volumes, and for the first changes of the one under the cursor."""
        self._paused = (await self.link.call("writeback"))["paused"]
        volumes = [one for one in await self.link.entries("volumes.list") if one["pending"]]
        self._pending = {f"{one['name']}@{one['realm']}": one["pending"] for one in volumes}
        self._pace.note(
            time.monotonic(), sum(self._pending.values()), sum(one["pending_bytes"] for one in volumes)
        )
        rows = {f"{one['name']}@{one['realm']}": _volume_row(one) for one in volumes}
        self.query_one("#log-volumes", Rows).show_rows(rows)
        self._tell_state(sum(one["pending_bytes"] for one in volumes))
        await self._load_changes()

    def _tell_state(self, data: int) -> None:
        records = sum(self._pending.values())
        text = Text(" paused ", "reverse").append(" ", "not reverse") if self._paused else Text()
        if records:
            text.append(f"{counted(records, 'change')} {'waits' if records == 1 else 'wait'} ({size(data)})")
            pace = self._pace.line(time.monotonic())
            text.append(f"  ·  {pace}" if pace else "", "green")
        else:
            text.append("● Everything has reached the servers", "green")
        self.query_one("#log-state", Static).update(text)

    async def _load_changes(self) -> None:
        volume = self._of = self._volume_chosen()
        found = []
        if volume is not None:
            found = await self.link.entries("changes.list", most=MOST_CHANGES, volume=volume)
        self._changes = {str(change["sequence"]): change for change in found}
        rows = {key: _change_row(one) for key, one in self._changes.items()}
        more = self._pending.get(volume or "", 0) - len(found)
        if more > 0 and len(found) == MOST_CHANGES:
            rows["more"] = ("", "…", f"and {more} more after these", "", "", "", "")
        self.query_one("#log-changes", Rows).show_rows(rows)

    @on(DataTable.RowHighlighted, "#log-volumes")
    def _moved(self) -> None:
        if self._volume_chosen() != self._of:
            self.ask(self._load_changes, group="changes", alone=True)

    # what happens

    def take_events(self, events: Sequence[Event], lost: int) -> None:
        """Count what is sent, and write down what was."""
        super().take_events(events, lost)
        history = self.query_one("#log-history", RichLog)
        for event in events:
            told = self._told(event)
            if told:
                clock = time.strftime("%H:%M:%S", time.localtime(event.get("time", 0)))
                history.write(Text.assemble((f"{clock}  ", "dim"), told))

    def _told(self, event: Event) -> str:
        """Take in an event; return what the history says of it, "" if nothing."""
        if event.get("event") == "StoreProgress":
            self._pace.note_upload(time.monotonic(), event)
        if event.get("kind") != "reintegrate":
            return ""
        volume, todo = printable(str(event.get("volume"))), int(event.get("todo", 0))
        sent = self._count(volume, todo)
        if not sent:
            return ""
        return f"{volume}: {counted(sent, 'change')} sent, {todo or 'nothing'} left"

    def _count(self, volume: str, todo: int) -> int:
        done = max(0, self._todo.get(volume, todo) - todo)
        self._sent[-1] += done
        self._todo[volume] = todo
        return done

    def _next_second(self) -> None:
        self.query_one("#log-rate", Sparkline).data = list(self._sent)
        self._sent.append(0.0)

    # actions

    def _volume_chosen(self) -> str | None:
        return self.query_one("#log-volumes", Rows).chosen

    def action_send(self) -> None:
        """Send the changes of the volume under the cursor now, whatever their age."""
        self.ask(self._send, self._volume_chosen(), False)

    def action_retry(self) -> None:
        """Send those too that servers have refused."""
        self.ask(self._send, self._volume_chosen(), True)

    async def _send(self, volume: str | None, retry: bool) -> None:
        left = await self.link.call("changes.send", volume=volume, retry=retry, within=50.0)
        for one in left:
            why = one["waits_for"] or "they are still on their way"
            text = f"{one['pending']} changes of {one['volume']}@{one['realm']} wait: {why}"
            self.notify(text, title="Not all sent", severity="warning", markup=False)
        if not left:
            self.notify("Everything has reached the servers.")
        self.mark_stale()

    def action_pause(self) -> None:
        """Send nothing until told to go on; or go on."""
        self.ask(self._pause)

    async def _pause(self) -> None:
        await self.link.call("writeback", paused=not self._paused)
        self.mark_stale()

    def action_discard(self) -> None:
        """Give up the change under the cursor, or with the cursor on a volume all of its changes."""
        changes = self.query_one("#log-changes", Rows)
        one = self._changes.get(changes.chosen or "") if changes.has_focus else None
        volume = self._volume_chosen()
        if one is None and volume is None:
            return
        what = f"all pending changes of {volume}" if one is None else f"{one['what']} of {one['path']}"

        def answered(answer: bool | None) -> None:
            if answer:
                self.ask(
                    self._discard, None if one is None else one["sequence"], volume if one is None else None
                )

        question = f"Give up {what}, with all that rests on it? A copy is kept in the state directory."
        self.app.push_screen(Confirm(question, "Discard"), answered)

    async def _discard(self, sequence: int | None, volume: str | None) -> None:
        given_up = await self.link.call("changes.discard", sequence=sequence, volume=volume)
        self.notify(str(given_up.get("file") or ""), title="Discarded; the copy", markup=False)
        self.mark_stale()

    def action_export(self) -> None:
        """Write all pending changes to a file in the home directory."""
        path = Path.home() / time.strftime("realmfs-changes-%Y%m%d-%H%M%S.tar")
        self.ask(self._export, path)

    async def _export(self, path: Path) -> None:
        await self.link.call("changes.export", file=str(path))
        self.notify(str(path), title="Exported", markup=False)

    def action_line(self) -> None:
        """Go off line by hand everywhere, or back on line."""
        self.ask(self._line)

    async def _line(self) -> None:
        status = await self.link.call("daemon.status")
        verb = "reconnect" if status["off_line"] else "disconnect"
        await self.link.call(f"connection.{verb}")
        self.notify("On line again." if verb == "reconnect" else "Off line: changes wait here.")
        self.mark_stale()


def _volume_row(volume: Mapping[str, Any]) -> Sequence[Cell]:
    refused = volume["refused"]
    waits = f"waits for {volume['waits_for']}" if volume.get("waits_for") else ""
    why = volume["why"] or (f"{refused} refused: see Conflicts" if refused else waits)
    return (
        printable(f"{volume['name']}@{volume['realm']}"),
        Text(volume["state"], "green" if volume["reachable"] else "yellow"),
        str(volume["pending"]),
        size(volume["pending_bytes"]),
        "-" if volume["oldest"] is None else age(max(0.0, time.time() - volume["oldest"])),
        why or "-",
    )


def _change_row(change: Change) -> Sequence[Cell]:
    state = change["state"]
    colour = "red" if "refused" in state else "green" if "sent" in state else ""
    return (
        str(change["sequence"]),
        change["what"],
        printable(change["path"]),
        size(change["size"]) if change["size"] else "-",
        age(max(0.0, time.time() - change["made"])),
        str(change["uid"]),
        Text(state, colour),
    )
