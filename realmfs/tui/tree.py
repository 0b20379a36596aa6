"""The tree of realms, volumes, directories and files: loaded where it is opened, a piece at a time.

A directory is asked for when it is expanded, with what of each entry is on this machine but without calls to
servers for the status of entries; where few are unknown, they are asked for once the names are shown (until
then a volume that nobody has looked into cannot be told from a file). Pieces come in the daemon's order; when
all are here they are sorted and shown, a thousand names a turn of the loop, so that a directory of ten
thousand never stops the keys.
Asked again, only what differs is changed: what was open stays open, and the cursor stays.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from realmfs.control.words import printable, size
from realmfs.tui.link import Link

PIECE = 1000
FEW = 200
"""Entries of unknown status that are asked for at once."""
AT_A_TURN = 1000
TRIES = 5

_STATES = {
    "absent": ("○", "dim"),
    "partial": ("◐", "cyan"),
    "cached": ("●", "green"),
    "dirty": ("✎", "yellow"),
    "conflict": ("!", "bold red"),
}
LOADING = "  loading…"
_SIZE_WIDTH = 12
LEGEND = "○ absent  ◐ partial  ● cached  ✎ pending  ! conflict  ★ hoarded"


@dataclass(slots=True)
class Place:
    """An object in the tree. `entries` of a directory by name, once they are here."""

    path: str
    name: str
    kind: str
    state: str = ""
    hoard: str = ""
    volume: str = ""
    size: int | None = None
    entries: dict[str, "Place"] | None = None
    filter: str = field(default="", compare=False)

    @property
    def width(self) -> int:
        """Columns that the label takes at most, without making it."""
        width = 2 + cell_len(self.name) + (0 if self.name else len("/coda"))
        width += (2 if self.is_hoarded else 0) + (_SIZE_WIDTH if self.size is not None else 0)
        width += cell_len(self._mounted)
        return width + (len(self.filter) + 12 if self.filter else 0)

    @property
    def _mounted(self) -> str:
        """What is mounted here: a realm at the top, else a volume, with its name if that is another."""
        if not self.volume:
            return ""
        if "/" not in self.path:
            return "  realm"
        return "  volume" if self.volume == self.name else f"  volume {printable(self.volume)}"

    @property
    def is_hoarded(self) -> bool:
        """Whether a hoard entry wants it."""
        return self.hoard not in ("", "0", "no")

    @property
    def is_directory(self) -> bool:
        """Whether it can be opened."""
        return self.kind == "directory"

    def label(self) -> Text:
        """Return what is shown of it."""
        mark, style = _STATES.get(self.state, (" ", ""))
        name = printable(self.name) or "/coda"
        text = Text.assemble((mark, style), " ", (name, "bold" if self.is_directory else ""))
        if self.is_hoarded:
            text.append(" ★", "yellow")
        if self.volume:
            text.append(self._mounted, "cyan")
        if self.filter:
            text.append(f"  [filter: {self.filter}]", "reverse")
        if self.size is not None and not self.is_directory:
            text.append(f"  {size(self.size)}", "dim")
        return text


Node = TreeNode[Place]


class TreeOfRealms(Tree[Place]):
    """The tree. `load` brings one directory; the pane decides when."""

    def __init__(self, link: Link, *, id: str) -> None:  # noqa: A002 - Textual's own word
        super().__init__("/coda", Place("", "", "directory"), id=id)
        self._link = link
        self._loading: set[str] = set()
        self.guide_depth = 2

    def render_label(self, node: Node, base_style: Style, style: Style) -> Text:
        """Show the mark of its state before each name."""
        label = Text(
            "▸ " if node.allow_expand and not node.is_expanded else "▾ " if node.allow_expand else "  "
        )
        text = label + (node.data.label() if node.data is not None else Text(str(node.label)))
        if node.data is not None and node.data.path in self._loading:
            text.append(LOADING, "dim")
        text.stylize(style)
        return text

    def get_label_width(self, node: Node) -> int:
        """Return at most how wide a line is: rendering ten thousand only to measure them stops the keys."""
        if node.data is None:
            return super().get_label_width(node)
        return 2 + node.data.width + (len(LOADING) if node.data.path in self._loading else 0)

    async def load(self, node: Node) -> None:
        """Ask for the entries of a directory and show them. Raises ControlError and NoDaemonError."""
        place = node.data
        if place is None or place.path in self._loading:
            return
        self._loading.add(place.path)
        node.refresh()
        try:
            place.entries = _sorted(_with_what_was_known(await self._entries(place), place.entries or {}))
            await self.show_entries(node)
            if 0 < sum(each.size is None for each in place.entries.values()) <= FEW:
                place.entries = _sorted(await self._entries(place, attributes=True))
                await self.show_entries(node)
        finally:
            self._loading.discard(place.path)
            node.refresh()

    async def reveal(self, path: str) -> bool:
        """Open the directories on the way to an object and go there; tell whether it was found.

        Raises ControlError and NoDaemonError.
        """
        names = [name for name in path.split("/") if name]
        for depth in range(len(names)):
            if not await self._bring(names[: depth + 1]):
                return False
        found = self.node_at(names)
        if found is not None:
            self.call_after_refresh(self.move_cursor, found)
        return found is not None

    async def _bring(self, names: Sequence[str]) -> bool:
        """Open the directory of an object; tell whether the object is in the tree then.

        Tried again, for others may fill the tree anew meanwhile.
        """
        for _ in range(TRIES):
            above = self.node_at(names[:-1])
            if above is None:
                return False
            if self.node_at(names) is not None:
                above.expand()
                return True
            await self.filter(above, "")
            await self._load_at_last(above)
        return False

    def node_at(self, names: Sequence[str]) -> Node | None:
        """Return the node of an object by the names that lead to it, if it is in the tree."""
        node: Node | None = self.root
        for name in names:
            if node is None:
                return None
            children = (child for child in node.children if child.data is not None)
            node = next((child for child in children if child.data and child.data.name == name), None)
        return node

    def node_of(self, place: Place) -> Node | None:
        """Return the node of a place, if it is in the tree."""
        return self.node_at([name for name in place.path.split("/") if name])

    async def filter(self, node: Node, part: str) -> None:
        """Show of a directory the names only that hold `part`."""
        if node.data is not None:
            node.data.filter = part
            node.refresh()
            await self.show_entries(node)

    async def _load_at_last(self, node: Node) -> None:
        """Load a directory, after whoever loads it already."""
        while node.data is not None and node.data.path in self._loading:  # noqa: ASYNC110 - rarely, briefly
            await asyncio.sleep(0.05)
        await self.load(node)

    def learn(self, place: Place, told: Mapping[str, Any]) -> None:
        """Take what `path.stat` has told of an object under the cursor."""
        node = self.cursor_node
        details = told["details"]
        place.kind, place.size = told["attributes"]["type"], told["attributes"]["size"]
        place.state, place.hoard = details.get("state", ""), details.get("hoard", "")
        if node is not None and node.data is place:
            node.allow_expand = place.is_directory
            node.refresh()

    async def _entries(self, place: Place, *, attributes: bool = False) -> dict[str, Place]:
        found: dict[str, Place] = {}
        position: int | None = 0
        while position is not None:
            piece = await self._link.call(
                "path.list",
                path=place.path,
                position=position,
                limit=PIECE,
                attributes=attributes,
                states=True,
            )
            for entry in piece["entries"]:
                found[entry["name"]] = _place(place.path, entry)
            position = piece["position"]
        return found

    async def show_entries(self, node: Node) -> None:
        """Make the children of a node those entries that its filter lets through, changing what differs."""
        place = node.data
        if place is None or place.entries is None:
            return
        wanted = [each for each in place.entries.values() if place.filter.casefold() in each.name.casefold()]
        old = {child.data.name: child for child in node.children if child.data is not None}
        names = {each.name for each in wanted}
        in_order = [name for name in old if name in names]
        same = in_order == [each.name for each in wanted][: len(in_order)]
        if not same or len(in_order) != len(old):
            await self._rebuild(node, wanted, old)
            return
        for number, each in enumerate(wanted):
            child = old.get(each.name)
            if child is None:
                self._add(node, each)
            elif child.data is not None:
                _renew(child.data, each)
                if child.allow_expand != each.is_directory:
                    child.allow_expand = each.is_directory
                child.refresh()
            if number % AT_A_TURN == AT_A_TURN - 1:
                await asyncio.sleep(0)

    async def _rebuild(self, node: Node, wanted: Sequence[Place], old: Mapping[str, Node]) -> None:
        """Fill the node anew; directories that were open are opened again."""
        opened = {name for name, child in old.items() if child.is_expanded}
        kept = {name: child.data for name, child in old.items() if child.data is not None}
        chosen = self.cursor_node.data.path if self.cursor_node and self.cursor_node.data else None
        node.remove_children()
        for number, each in enumerate(wanted):
            before = kept.get(each.name)
            if before is not None and each.kind == before.kind:
                _renew(before, each)
                each = before
            child = self._add(node, each)
            if each.name in opened and each.entries is not None:
                await self.show_entries(child)
                child.expand()
            if each.path == chosen:
                self.call_after_refresh(self.move_cursor, child)
            if number % AT_A_TURN == AT_A_TURN - 1:
                await asyncio.sleep(0)

    def _add(self, node: Node, place: Place) -> Node:
        return node.add(place.name, place, allow_expand=place.is_directory)


def _sorted(entries: Mapping[str, Place]) -> dict[str, Place]:
    """Return directories before files, each by name."""
    return dict(
        sorted(entries.items(), key=lambda item: (not item[1].is_directory, item[0].casefold(), item[0]))
    )


def _with_what_was_known(entries: dict[str, Place], before: Mapping[str, Place]) -> dict[str, Place]:
    """Keep kind and size of entries whose status is not told again: else lines would jump to and fro."""
    for name, each in entries.items():
        old = before.get(name)
        if each.size is None and old is not None and old.size is not None:
            each.kind, each.size, each.volume = old.kind, old.size, each.volume or old.volume
    return entries


def _place(parent: str, entry: Mapping[str, Any]) -> Place:
    name = entry["name"]
    known = entry["attributes"]
    return Place(
        f"{parent}/{name}".lstrip("/"),
        name,
        entry["kind"],
        entry["state"],
        entry["hoard"],
        entry.get("volume", ""),
        None if known is None else known["size"],
    )


def _renew(place: Place, new: Place) -> None:
    """Take what was told anew; what is loaded below stays."""
    place.kind, place.state, place.hoard = new.kind, new.state, new.hoard
    place.volume, place.size = new.volume, new.size
