"""Conflicts: both kinds in one list, the versions of one side by side, settled one by one or many at once."""

import difflib
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from realmfs.control.words import age, moment, printable, size
from realmfs.tui.contents import text_of
from realmfs.tui.dialogs import Confirm, Form
from realmfs.tui.link import Link
from realmfs.tui.pane import Pane
from realmfs.tui.table import Cell, Rows

MOST_LINES = 400
_KINDS = {"local": "ours and theirs", "server": "the servers'", "both": "ours and the servers'"}
_KEEP = {"local": "ours", "server": "the servers'", "both": "both"}
_DIFF = {"+": "green", "-": "red", "@": "cyan"}

Conflict = Mapping[str, Any]


class ConflictsPane(Pane):
    """The conflicts over the versions of the one under the cursor."""

    key = "conflicts"
    title = "Conflicts"
    watches = frozenset({"", "fsobj"})
    period = 5.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark"),
        Binding("a", "mark_all", "All"),
        Binding("o", "keep('local')", "Keep ours"),
        Binding("s", "keep('server')", "Keep theirs"),
        Binding("b", "keep('both')", "Keep both"),
    ]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._conflicts: dict[str, Conflict] = {}
        self._marked: set[str] = set()
        self._shown: tuple[str, str] | None = None

    def compose(self) -> ComposeResult:
        """Put the list over the versions."""
        yield Rows(
            ("", "path", "between", "refused", "since", "waiting"),
            id="conflicts-table",
            shrink=("path", "refused"),
            drop=("waiting", "since"),
            empty="No conflicts: all versions agree.",
        )
        with VerticalScroll(id="versions"):
            yield Static(id="versions-facts", markup=False)
            yield Static(id="versions-diff", markup=False)

    def shown(self) -> None:
        """Take the keys."""
        super().shown()
        self.screen.set_focus(self._table)

    @property
    def _table(self) -> Rows:
        return self.query_one("#conflicts-table", Rows)

    async def load(self) -> None:
        """Ask for the list, and for the versions of the one under the cursor if it is another one now."""
        found = await self.link.entries("conflicts.list")
        self._conflicts = {str(one["id"]): one for one in found}
        self._marked &= set(self._conflicts)
        self._show_rows()
        await self._show_versions()

    def _show_rows(self) -> None:
        self._table.show_rows(
            {key: self._row(one, key in self._marked) for key, one in self._conflicts.items()}
        )
        if not self._conflicts:
            hint = "When a file was changed here and elsewhere, both versions are shown here to choose from."
            self.query_one("#versions-facts", Static).update(Text(hint, "dim"))
            self.query_one("#versions-diff", Static).update("")

    def _row(self, one: Conflict, marked: bool) -> Sequence[Cell]:
        since = "-" if one["since"] is None else f"{age(max(0.0, time.time() - one['since']))} ago"
        return (
            Text("✓", "bold green") if marked else " ",
            f"/{printable(one['path'])}",
            _KINDS.get(str(one["kind"]), "?"),
            ", ".join(one["changes"]) or "-",
            since,
            f"{one['waiting']} more" if one["waiting"] else "-",
        )

    # versions

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        self.ask(self._show_versions, group="versions", alone=True)

    async def _show_versions(self) -> None:
        chosen = self._table.chosen
        one = self._conflicts.get(chosen or "")
        if one is None or chosen is None:
            self._shown = None
            return
        if self._shown == (chosen, str(one)):
            return
        told = await self.link.call("conflicts.show", id=int(chosen))
        self.query_one("#versions-facts", Static).update(versions(told))
        self.query_one("#versions-diff", Static).update(await self._difference(told["versions"]))
        self._shown = (chosen, str(one))

    async def _difference(self, found: Sequence[Mapping[str, Any]]) -> Text:
        """Compare the first two versions line by line, if they are text."""
        files = [one for one in found if one["type"] == "file"]
        if len(files) < 2:
            return Text()
        first, second = files[:2]
        old = await text_of(self.link, first["path"], first["size"])
        new = await text_of(self.link, second["path"], second["size"])
        if old is None or new is None:
            return Text("not text: no difference shown", "dim")
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), first["name"], second["name"], lineterm=""
        )
        return coloured(list(lines) or ["the beginnings are equal"])

    # actions

    def action_mark(self) -> None:
        """Mark the row, or take the mark away, and go on to the next."""
        if self._table.chosen is not None:
            self._marked ^= {self._table.chosen}
            self._show_rows()
            self._table.action_cursor_down()

    def action_mark_all(self) -> None:
        """Mark all, or none if all are."""
        self._marked = set() if len(self._marked) == len(self._conflicts) else set(self._conflicts)
        self._show_rows()

    def action_keep(self, keep: str) -> None:
        """Settle the marked ones, else the one under the cursor, after asking."""
        chosen = self._table.chosen
        keys = sorted(self._marked) or ([] if chosen is None else [chosen])
        if not keys:
            return
        if keep == "server" and any(self._conflicts[key]["kind"] != "local" for key in keys):
            self._ask_server(keys)
            return
        what = f"/{self._conflicts[keys[0]]['path']}" if len(keys) == 1 else f"{len(keys)} objects"

        def answered(answer: bool | None) -> None:
            if answer:
                self.ask(self._settle, keys, keep, None)

        question = f"Keep {_KEEP[keep]} of {what}? A copy of what is given up stays in the state directory."
        self.app.push_screen(Confirm(question, f"Keep {_KEEP[keep]}"), answered)

    def _ask_server(self, keys: Sequence[str]) -> None:
        """The servers differ: ask whose version it shall be."""

        def answered(answer: tuple[str, ...] | None) -> None:
            if answer is not None and answer[0]:
                self.ask(self._settle, keys, "server", answer[0])

        title = "Whose version? Servers are named in the list of versions."
        self.app.push_screen(Form(title, [("Server", "")]), answered)

    async def _settle(self, keys: Sequence[str], keep: str, server: str | None) -> None:
        for number, key in enumerate(keys, 1):
            one = self._conflicts.get(key)
            if one is None:
                continue
            await self.link.call("conflicts.settle", id=int(key), keep=keep, server=server)
            self._marked.discard(key)
            self.notify(f"/{one['path']} ({number} of {len(keys)})", title="Settled", markup=False)
        self.shown()


def versions(told: Conflict) -> Group:
    """Return the reason, and what is known of each version, one below the other."""
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "left", "right", "left", "left"):
        table.add_column(justify=justify, overflow="fold")
    for one in told["versions"]:
        table.add_row(
            Text(printable(one["name"]), "cyan"),
            "here" if one["server"] is None else one["server"],
            one["type"],
            size(one["size"]),
            moment(int(one["mtime"] * 1e9)),
            f"by {printable(one.get('by') or str(one['author']))}",
        )
    return Group(Text(str(told["reason"]), "bold"), table)


def coloured(lines: Sequence[str]) -> Text:
    """Return the lines of a unified diff in its colours."""
    text = Text()
    for line in lines[:MOST_LINES]:
        text.append(line + "\n", _DIFF.get(line[:1], ""))
    if len(lines) > MOST_LINES:
        text.append(f"… {len(lines) - MOST_LINES} more lines: realmfs conflicts diff", "dim")
    return text
