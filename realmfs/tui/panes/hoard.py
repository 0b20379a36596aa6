"""Hoard: what must be here when the servers are away, whether it is, and what a walk would bring.

`hoard.status` is asked every few seconds and costs the daemon nothing; `hoard.verify`, which looks at every
hoarded object, only when the pane comes to the front, after a change of entries, and when a walk has ended.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ProgressBar, Static

from realmfs.control.protocol import ControlError, Kind
from realmfs.control.words import printable
from realmfs.tui.dialogs import Confirm, Form
from realmfs.tui.hoardwords import (
    Entry,
    cache_line,
    entry_row,
    missing_rows,
    plan_line,
    planned_rows,
    profile_row,
    reach_of,
    ready_line,
    walk_line,
)
from realmfs.tui.link import Event, Link
from realmfs.tui.pane import Pane
from realmfs.tui.table import Cell, Rows

STEP = 10
HIGHEST = 1000


class HoardPane(Pane):
    """Readiness over entries over profiles over what is missing or planned."""

    key = "hoard"
    title = "Hoard"
    watches = frozenset({"hoard", "cache"})
    period = 3.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "walk", "Walk/stop"),
        Binding("p", "plan", "Plan"),
        Binding("a", "add", "Add"),
        Binding("e", "edit", "Edit"),
        Binding("D", "remove", "Remove"),
        Binding("plus", f"raise_priority({STEP})", "Raise", tooltip="Raise the priority of the entry"),
        Binding("minus", f"raise_priority({-STEP})", "Lower", tooltip="Lower the priority of the entry"),
        Binding("c", "reach('c')", "Children", show=False, tooltip="Hoard the directory's children, or not"),
        Binding("d", "reach('d')", "Descendants", show=False, tooltip="Hoard all below it, or not"),
        Binding("space", "profile", "Profile", show=False, tooltip="Enable or disable the profile"),
        Binding("o", "automatic", "Automatic", show=False, tooltip="Let walks begin by themselves, or not"),
    ]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._entries: dict[str, Entry] = {}
        self._profiles: dict[str, Mapping[str, Any]] = {}
        self._automatic = True
        self._walking = False
        self._look = True
        self._planned: Mapping[str, Any] | None = None
        self._editing = asyncio.Lock()
        self._edits = self._unsaved = 0  # by single keys: ever, and those the daemon does not know yet

    def compose(self) -> ComposeResult:
        """Put what matters most first."""
        yield Static(id="hoard-ready")
        yield Static(id="hoard-cache", markup=False)
        yield ProgressBar(id="hoard-progress", total=100, show_eta=False)
        yield Rows(
            ("entry", "priority", "with", "here", "size", "state", "from"),
            id="hoard-entries",
            shrink=("entry", "state"),
            drop=("from",),
            empty="a adds a path; H in Browse hoards what is under the cursor there.",
        )
        yield Rows(("profile", "", "entries", "mistakes"), id="hoard-profiles", shrink=("mistakes",))
        yield Static(id="hoard-heading", classes="heading", markup=False)
        yield Rows(
            ("", "object", "size", "priority", "why"),
            id="hoard-missing",
            shrink=("object", "why"),
            drop=("priority",),
        )

    def on_mount(self) -> None:
        """Hide what is not there yet."""
        self.query_one("#hoard-progress").display = False
        self.query_one("#hoard-profiles").display = False

    def shown(self) -> None:
        """Take the keys, and have everything looked at."""
        self._look = True
        super().shown()
        if not any(table.has_focus for table in self.query(Rows)):
            self.screen.set_focus(self._table)

    @property
    def _table(self) -> Rows:
        return self.query_one("#hoard-entries", Rows)

    def take_events(self, events: Sequence[Event], lost: int) -> None:
        """Ask while a walk goes on, and look once it has ended."""
        super().take_events(events, lost)
        if any(event.get("kind") == "progress" and event.get("phase") == "done" for event in events):
            self._look = True
            self.mark_stale()

    # what there is

    async def load(self) -> None:
        """Ask for the entries and the walk; look at every object if something may have changed."""
        status = await self.link.call("hoard.status")
        self._show_walk(status)
        edits = self._edits
        async with self._editing:
            entries = await self.link.entries("hoard.list")
        entries.sort(key=lambda one: (-one["priority"], one["path"], one["id"]))  # the most important first
        if edits == self._edits and not self._unsaved:  # else it is older than what is shown
            self._entries = {str(entry["id"]): entry for entry in entries}
            self._show_entries()
        await self._load_profiles()
        usage = await self.link.call("cache.usage")
        self.query_one("#hoard-cache", Static).update(cache_line(usage))
        if self._look and not self._walking:
            self._look = False
            # Not awaited: one that comes when a walk has just begun is answered at the walk's end.
            self.ask(self._load_missing, status["entries"], group="missing", alone=True)
        if status["walking"]:
            self.mark_stale()

    def _show_entries(self) -> None:
        self._table.show_rows({key: entry_row(entry) for key, entry in self._entries.items()})

    async def _load_profiles(self) -> None:
        profiles = await self.link.entries("hoard.profiles")
        self._profiles = {one["name"]: one for one in profiles}
        table = self.query_one("#hoard-profiles", Rows)
        table.display = bool(profiles)
        table.show_rows({name: profile_row(one) for name, one in self._profiles.items()})

    def _show_walk(self, status: Mapping[str, Any]) -> None:
        ended = self._walking and not status["walking"]
        self._automatic, self._walking = status["on"], status["walking"]
        self._look = self._look or ended
        bar = self.query_one("#hoard-progress", ProgressBar)
        bar.display = self._walking
        if self._walking:
            self.workers.cancel_group(self, "missing")
            bar.update(progress=status["percent"])
            self.query_one("#hoard-ready", Static).update(walk_line(status))

    async def _load_missing(self, entries: int) -> None:
        try:
            told = await self.link.call("hoard.verify")
        except ControlError as error:
            if error.kind is not Kind.UNREACHABLE:
                raise
            self.query_one("#hoard-ready", Static).update(Text(f"○ {error.text}", "yellow"))
            return
        self.query_one("#hoard-ready", Static).update(ready_line(told, entries, self._automatic))
        if self._planned is None:
            self._show_lower(
                f"Missing: {told['count']}" if told["count"] else "Nothing is missing", missing_rows(told)
            )

    def _show_lower(self, heading: str, rows: Mapping[str, Sequence[Cell]]) -> None:
        self.query_one("#hoard-heading", Static).update(heading)
        self.query_one("#hoard-missing", Rows).show_rows(rows)

    # walks and plans

    def action_walk(self) -> None:
        """Have a walk begin now, or end the one under way."""
        self.ask(self._walk)

    async def _walk(self) -> None:
        self._planned = None
        await self.link.call("hoard.stop" if self._walking else "hoard.walk")
        self._look = True
        self.mark_stale()

    def action_plan(self) -> None:
        """Show what a walk would bring and what would go for it; again: what is missing."""
        if self._planned is not None:
            self._planned = None
            self._look = True
            self.mark_stale()
            return
        self.ask(self._plan, group="plan", alone=True)

    async def _plan(self) -> None:
        plan = self._planned = await self.link.call("hoard.plan")
        self._show_lower(plan_line(plan), planned_rows(plan))

    def action_automatic(self) -> None:
        """Let walks begin by themselves, or not."""
        self.ask(self._switch, not self._automatic)

    async def _switch(self, on: bool) -> None:
        await self.link.call("hoard.switch", on=on)
        self.notify("Walks begin by themselves." if on else "Walks begin on demand only.")
        self._changed()

    # entries

    def action_add(self) -> None:
        """Ask what to hoard."""
        self._form("Hoard what is at a path", "", "100:d+")

    def action_edit(self) -> None:
        """Edit the attributes of the entry under the cursor."""
        entry = self._own_entry()
        if entry is not None:
            title = "Priority 1 to 1000; c+ with its children, d+ with all below"
            self._form(title, *_path_and_wish(entry), begin=1)

    def _form(self, title: str, path: str, attributes: str, begin: int = 0) -> None:
        def answered(answer: tuple[str, ...] | None) -> None:
            if answer is not None and answer[0]:
                self.ask(self._enter, path, *answer)

        fields = (("Path below /coda", path), ("Attributes, as 600:d+", attributes))
        self.app.push_screen(Form(title, fields, begin=begin), answered)

    async def _enter(self, before: str, path: str, attributes: str) -> None:
        """Enter an object; an entry whose path was changed moves."""
        path = path.strip().removeprefix("/coda/").strip("/")
        async with self._editing:
            await self.link.call("hoard.add", path=path, attributes=attributes.strip())
            if before and before != path:
                await self.link.call("hoard.remove", path=before)
        self._changed()

    def _wish(self, entry: Entry, priority: int, reach: str) -> None:
        """Give an entry other attributes; shown at once, so that a key pressed again counts from there."""
        wish = f"{priority}{reach}"
        new = dict(entry) | {"priority": priority, "attributes": wish}
        self._entries[str(entry["id"])] = new
        self._show_entries()
        self._edits += 1
        self._unsaved += 1
        self.ask(self._save, _path_and_wish(entry)[0], wish)

    async def _save(self, path: str, wish: str) -> None:
        try:
            await self._enter(path, path, wish)
        finally:
            self._unsaved -= 1
            self.mark_stale()

    def action_remove(self) -> None:
        """Remove the entry under the cursor, after asking."""
        entry = self._own_entry()
        if entry is None:
            return
        path = _path_and_wish(entry)[0]

        def answered(answer: bool | None) -> None:
            if answer:
                self.ask(self._remove, path)

        question = f"No longer hoard /{printable(path)}? What is here stays until its room is wanted."
        self.app.push_screen(Confirm(question, "Remove"), answered)

    async def _remove(self, path: str) -> None:
        await self.link.call("hoard.remove", path=path)
        self._changed()

    def action_raise_priority(self, step: int) -> None:
        """Change the priority of the entry under the cursor."""
        entry = self._own_entry()
        if entry is not None:
            self._wish(entry, max(1, min(HIGHEST, entry["priority"] + step)), reach_of(entry))

    def action_reach(self, mark: str) -> None:
        """Hoard what is below the entry, or no longer."""
        entry = self._own_entry()
        if entry is not None:
            reach = f":{mark}+"
            self._wish(entry, entry["priority"], "" if reach_of(entry) == reach else reach)

    def action_profile(self) -> None:
        """Enable or disable the profile under the cursor."""
        one = self._profiles.get(self.query_one("#hoard-profiles", Rows).chosen or "")
        if one is not None:
            self.ask(self._switch_profile, one["name"], not one["enabled"])

    async def _switch_profile(self, name: str, enabled: bool) -> None:
        await self.link.call("hoard.profile", name=name, enabled=enabled)
        self._changed()

    def _own_entry(self) -> Entry | None:
        """The entry under the cursor, if it can be edited here."""
        entry = self._entries.get(self._table.chosen or "")
        if entry is None:
            self.notify("There is no entry yet: press a, or H in Browse.", severity="warning")
        elif entry["profile"]:
            self.notify(
                f"It comes from the profile {entry['profile']}; edit its file.",
                severity="warning",
                markup=False,
            )
            return None
        return entry

    def _changed(self) -> None:
        self._planned = None
        self._look = True
        self.mark_stale()


def _path_and_wish(entry: Entry) -> tuple[str, str]:
    return entry["path"].strip("/"), entry["attributes"]
