"""Browse: the tree of all realms, and beside it what is known of the object under the cursor."""

import asyncio
import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, Static, Tree

from realmfs.control.words import printable, size
from realmfs.tui.contents import text_of
from realmfs.tui.dialogs import Form
from realmfs.tui.facts import facts
from realmfs.tui.link import Event, Link
from realmfs.tui.pane import Pane
from realmfs.tui.tree import LEGEND, Node, Place, TreeOfRealms

PREVIEW = 16 << 10
SETTLE = 0.15
"""Seconds the cursor must rest before the details are asked for."""
WELCOME = """No realm yet.

Press g and type the name of one, as coda.example.org: it is looked up, and appears here.

Then l, Enter or the mouse opens directories; ? tells all keys."""
ROOT = """All realms you have visited.

g goes to any path, also in a realm that was never visited.

l, Enter or the mouse opens; ? tells all keys."""
HOARDED = "100"
"""The priority that the key gives."""


class BrowsePane(Pane):
    """The tree and the details."""

    key = "browse"
    title = "Browse"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter"),
        Binding("f", "fetch(False)", "Fetch", tooltip="Bring the object here"),
        Binding("F", "fetch(True)", "Fetch all below", show=False, tooltip="Bring all below it here"),
        Binding("x", "drop", "Drop"),
        Binding("H", "hoard", "Hoard", tooltip="Hoard it with all below, or no longer"),
        Binding("g", "go", "Go to"),
        Binding("exclamation_mark", "shell", "Shell"),
        Binding("y", "copy_path", "Copy"),
        Binding("h", "cursor_out", "Out", show=False),
        Binding("l", "cursor_in", "In", show=False),
        Binding("j", "cursor(1)", "Down", show=False),
        Binding("k", "cursor(-1)", "Up", show=False),
        Binding("escape", "show_all", "Show all", show=False),
    ]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._mount_point: str | None = None
        self._filtered: Place | None = None  # the directory whose filter is in the field

    def compose(self) -> ComposeResult:
        """Put the tree beside the details, the path above both."""
        yield Static("/coda", id="crumbs", markup=False)
        yield Input(placeholder="part of a name", id="browse-filter", compact=True)
        with Horizontal():
            yield TreeOfRealms(self.link, id="tree")
            with VerticalScroll(id="details"):
                yield Static(id="facts", markup=False)
                yield Static(id="preview", markup=False)
        yield Static(LEGEND, id="legend", markup=False)

    def on_mount(self) -> None:
        """Open the root."""
        self.query_one("#browse-filter").display = False
        self.query_one("#preview").display = False
        self.files.root.expand()

    @property
    def files(self) -> TreeOfRealms:
        """The tree."""
        return self.query_one(TreeOfRealms)

    @property
    def place(self) -> Place:
        """What is under the cursor."""
        node = self.files.cursor_node
        data = None if node is None else node.data
        return data or Place("", "", "directory")

    def shown(self) -> None:
        """Take the keys."""
        super().shown()
        self.screen.set_focus(self.files)

    async def load(self) -> None:
        """Ask again for the directory at the cursor, and the root; other directories when they are opened."""
        self._mount_point = (await self.link.call("daemon.status"))["mount_point"]
        await self.files.load(self.files.root)
        node = self.files.cursor_node
        if node is not None and not node.allow_expand:
            node = node.parent
        if node is not None and node.is_expanded and not node.is_root:
            await self.files.load(node)
        self._tell()

    def take_events(self, events: Sequence[Event], lost: int) -> None:
        """Nothing: directories are asked again when opened, or by hand; events would never let it rest."""

    @on(Tree.NodeExpanded)
    def _opened(self, message: Tree.NodeExpanded[Place]) -> None:
        self.ask(self._open, message.node)

    async def _open(self, node: Node) -> None:
        if self.link.up:
            await self.files.load(node)

    @on(Tree.NodeHighlighted)
    def _moved(self) -> None:
        self._tell()

    def _tell(self) -> None:
        place = self.place
        self.query_one("#crumbs", Static).update(
            "/coda" + (f"/{printable(place.path)}" if place.path else "")
        )
        self.ask(self._details, place, group="details", alone=True)

    # details

    async def _details(self, place: Place) -> None:
        await asyncio.sleep(SETTLE)
        if not place.path:
            self.query_one("#facts", Static).update(Text(WELCOME if place.entries == {} else ROOT, "dim"))
            self.query_one("#preview").display = False
        if not place.path or not self.link.up:
            return
        told = await self.link.call("path.stat", path=place.path, follow=False)
        servers = await self.link.entries("servers.list")
        self.query_one("#facts", Static).update(facts(told, servers))
        self.files.learn(place, told)
        preview = Text()
        if told["attributes"]["type"] == "file" and told["details"].get("state") in ("cached", "dirty"):
            preview = await self._preview(place.path, told["attributes"]["size"])
        shown = self.query_one("#preview", Static)
        shown.display = bool(preview)
        shown.update(preview)

    async def _preview(self, path: str, length: int) -> Text:
        text = await text_of(self.link, path, length, PREVIEW)
        return Text("not text", "dim") if text is None else Text(text)

    # actions

    def action_filter(self) -> None:
        """Filter the names of the directory at the cursor; Enter keeps the filter, esc takes it away."""
        node = self.files.cursor_node or self.files.root
        while not (node.allow_expand and node.is_expanded) and node.parent is not None:
            node = node.parent
        self.files.move_cursor(node)
        self._filtered = node.data
        field = self.query_one("#browse-filter", Input)
        with field.prevent(Input.Changed):
            field.value = "" if node.data is None else node.data.filter
        field.display = True
        self.screen.set_focus(field)

    def action_show_all(self) -> None:
        """Take away the filter of the directory at the cursor, or above it."""
        node = self.files.cursor_node
        if self._filtered is not None:
            node = self.files.node_of(self._filtered)
        self._leave_field()
        while node is not None and node.data is not None and not node.data.filter:
            node = node.parent
        if node is not None:
            self.ask(self.files.filter, node, "", group="filter", alone=True)

    @on(Input.Submitted)
    def _leave_field(self) -> None:
        self._filtered = None
        self.query_one("#browse-filter").display = False
        self.screen.set_focus(self.files)

    @on(Input.Changed)
    def _filter_changed(self, message: Input.Changed) -> None:
        node = None if self._filtered is None else self.files.node_of(self._filtered)
        if node is not None:
            self.ask(self.files.filter, node, message.value, group="filter", alone=True)

    def action_fetch(self, all_below: bool) -> None:
        """Bring the object here, or all below it."""
        self.ask(self._fetch, self.place, all_below)

    async def _fetch(self, place: Place, all_below: bool) -> None:
        self.notify(f"/{place.path}", title="Fetching", markup=False)
        told = await self.link.call("cache.fetch", path=place.path, recursive=all_below)
        if told["problems"]:
            first = told["problems"][0]
            text = f"{told['count']} did not come; /{first['path'].lstrip('/')}: {first['why']}"
            self.notify(text, title="Not all here", severity="warning", markup=False)
        else:
            text = f"{told['objects']} objects, {size(told['bytes'])}"
            self.notify(text, title="Here now", markup=False)
        self.mark_stale()

    def action_drop(self) -> None:
        """Let go of the object's contents here, and all below it; what is pending or open stays."""
        self.ask(self._drop, self.place)

    async def _drop(self, place: Place) -> None:
        dropped = await self.link.call("cache.flush", path=place.path)
        text = f"{dropped['files']} objects, {size(dropped['bytes'])}"
        self.notify(text, title=f"Dropped of /{place.path}", markup=False)
        self.mark_stale()

    def action_hoard(self) -> None:
        """Hoard the object with all below it; or no longer, if it has an entry of its own."""
        if self.place.path:
            self.ask(self._hoard, self.place)

    async def _hoard(self, place: Place) -> None:
        entries = await self.link.entries("hoard.list")
        if any(one["path"].strip("/") == place.path and not one["profile"] for one in entries):
            await self.link.call("hoard.remove", path=place.path)
            self.notify(f"/{place.path}", title="No longer hoarded", markup=False)
        else:
            attributes = HOARDED + (":d+" if place.is_directory else "")
            await self.link.call("hoard.add", path=place.path, attributes=attributes)
            text = f"/{place.path}: {attributes}; it comes with the next walk (w in Hoard)"
            self.notify(text, title="Hoarded", markup=False)
        self.mark_stale()

    def action_go(self) -> None:
        """Ask for a path, of a realm perhaps that was never reached, and go there."""

        def answered(answer: tuple[str, ...] | None) -> None:
            if answer is not None and answer[0]:
                self.ask(self._go, answer[0])

        field = ("Path, as example.org/alice", "")
        self.app.push_screen(Form("Go to a realm, directory or file", [field]), answered)

    async def _go(self, path: str) -> None:
        path = path.strip().removeprefix("/coda/").strip("/")
        await self.link.call("path.stat", path=path)
        if not await self.files.reveal(path):
            self.notify(f"/{path}", title="Not in the tree", severity="warning", markup=False)

    def action_copy_path(self) -> None:
        """Copy the path to the clipboard of the terminal."""
        path = self._real_path(self.place)
        self.app.copy_to_clipboard(path)
        self.notify(path, title="Copied", markup=False)

    def action_shell(self) -> None:
        """Open a shell in the directory."""
        if self._mount_point is None:
            self.notify("The daemon serves without a mount.", severity="warning")
            return
        path = self._real_path(self.place)
        directory = path if self.place.is_directory else os.path.dirname(path)
        shell = os.environ.get("SHELL", "/bin/sh")
        try:
            with self.app.suspend():
                print(f"\n{shell} in {shlex.quote(directory)}; exit brings you back.")
                subprocess.run([shell], cwd=directory, check=False)
        except SuspendNotSupported:
            self.notify("There is no terminal here for a shell.", severity="warning")
        except OSError as error:
            self.notify(f"{directory}: {error.strerror}", severity="error", markup=False)

    def _real_path(self, place: Place) -> str:
        return f"{self._mount_point or '/coda'}/{place.path}".rstrip("/")

    def action_cursor(self, step: int) -> None:
        """Move."""
        if step > 0:
            self.files.action_cursor_down()
        else:
            self.files.action_cursor_up()

    def action_cursor_in(self) -> None:
        """Open what is under the cursor."""
        node = self.files.cursor_node
        if node is not None and node.allow_expand:
            node.expand()

    def action_cursor_out(self) -> None:
        """Close the directory, or go to the one above."""
        node = self.files.cursor_node
        if node is None:
            return
        if node.is_expanded and not node.is_root:
            node.collapse()
        elif node.parent is not None:
            self.files.move_cursor(node.parent)
