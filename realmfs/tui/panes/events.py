"""Events: what the daemon does, live; filtered, paused, exported."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, RichLog, Static

from realmfs.control.words import counted, printable
from realmfs.tui.link import Event, Link
from realmfs.tui.pane import Pane

KEPT = 5000
"""Events kept for scrolling back, filtering and export."""

REWRITTEN = 500
"""Of these as many are written again at most when the filter changes; all are exported."""
REST = 0.15
"""Seconds without a key after which the filter is applied."""

_COLOURS = {"reintegrate": "green", "volstate": "yellow", "connection": "cyan", "token": "magenta", "": "red"}


class EventsPane(Pane):
    """The event stream."""

    key = "events"
    title = "Events"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter"),
        Binding("space", "pause", "Pause"),
        Binding("e", "export", "Export"),
        Binding("x", "clear", "Clear"),
        Binding("escape", "show_all", "Show all", show=False),
    ]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self.paused = False
        self._missed = 0
        self._words: list[str] = []

    def compose(self) -> ComposeResult:
        """Put the log under a line that tells what is shown."""
        yield Static(id="events-state")
        yield Input(placeholder="words that must occur; !word must not", id="events-filter")
        yield RichLog(max_lines=KEPT, id="events-log", wrap=False)

    def on_mount(self) -> None:
        """Hide the filter until it is asked for."""
        self.query_one(Input).display = False
        self._tell_state()

    def shown(self) -> None:
        """Take the keys."""
        super().shown()
        self.screen.set_focus(self.query_one(RichLog))

    def take_events(self, events: Sequence[Event], lost: int) -> None:
        """Append what matches; while paused only keep it."""
        self.kept.extend(events)
        if self.paused:
            self._missed += len(events)
        else:
            log = self.query_one(RichLog)
            for event in events:
                self._write(log, event)
            if lost:
                log.write(Text(f"          {lost} more, too fast to show", style="dim"))
        self._tell_state()

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one(Input)
        field.display = True
        self.screen.set_focus(field)

    def action_show_all(self) -> None:
        """Take the filter away."""
        self.query_one(Input).value = ""
        self.on_input_submitted()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter what is there anew."""
        self._words = message.value.lower().split()
        self.ask(self._filter_anew, group="filter", alone=True)

    async def _filter_anew(self) -> None:
        """Filter once the typing rests: five thousand lines cannot be written between two keys."""
        await asyncio.sleep(REST)
        self._rewrite()

    def on_input_submitted(self) -> None:
        """The filter stands, and is shown."""
        field = self.query_one(Input)
        field.display = bool(field.value)
        self.screen.set_focus(self.query_one(RichLog))

    def action_pause(self) -> None:
        """Hold the log, or go on and catch up."""
        self.paused = not self.paused
        self._missed = 0
        if not self.paused:
            self._rewrite()
        self._tell_state()

    def action_clear(self) -> None:
        """Forget all."""
        self.kept.clear()
        self._rewrite()

    def action_export(self) -> None:
        """Write what the filter lets through to a file in the home directory, one JSON object a line."""
        path = Path.home() / time.strftime("realmfs-events-%Y%m%d-%H%M%S.jsonl")
        chosen = [event for event in self.kept if self._matches(event)]
        try:
            with path.open("x") as file:
                file.writelines(json.dumps(dict(event)) + "\n" for event in chosen)
        except OSError as error:
            self.notify(f"{path}: {error.strerror}", title="Not exported", severity="error", markup=False)
            return
        self.notify(f"{len(chosen)} events in {path}", title="Exported", markup=False)

    def _matches(self, event: Event) -> bool:
        line = str(event.get("line", "")).lower()
        return all((word[1:] not in line) if word.startswith("!") else word in line for word in self._words)

    def _write(self, log: RichLog, event: Event) -> None:
        if not self._matches(event):
            return
        clock = time.strftime("%H:%M:%S", time.localtime(event.get("time", 0)))
        colour = _COLOURS.get(str(event.get("kind")), "")
        kind, _, rest = str(event.get("line", "")).rpartition("::")
        text = printable(str(event.get("text") or rest))
        log.write(Text.assemble((f"{clock}  ", "dim"), (f"{printable(kind):<12} ", colour), text))

    def _rewrite(self) -> None:
        log = self.query_one(RichLog)
        log.clear()
        chosen = [event for event in self.kept if self._matches(event)]
        for event in chosen[-REWRITTEN:]:
            self._write(log, event)
        self._tell_state()

    def _tell_state(self) -> None:
        text = Text(" paused ", "reverse") if self.paused else Text("● live", "green")
        if self.paused:
            text.append(f" {self._missed} since", "not reverse")
        text.append(f"  ·  {counted(len(self.kept), 'event')} kept", "not reverse")
        if self._words:
            text.append(f"  ·  filter: {' '.join(self._words)}", "not reverse")
        self.query_one("#events-state", Static).update(text)
