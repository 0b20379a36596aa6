"""The keys, told: what `?` shows, what the command palette offers, and what the reference page is made of.

Everything comes from the BINDINGS and the first lines of the actions' docstrings, so that no key can be
forgotten here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.dom import DOMNode
from textual.keys import format_key
from textual.screen import ModalScreen
from textual.widgets import Static

from realmfs.tui.pane import Pane

MOVING = (
    ("↑ ↓ j k", "Up and down"),
    ("PgUp PgDn Home End G", "A page, the first, the last"),
    ("Enter", "Open or close what is under the cursor"),
    ("Tab", "To the next table or text of the pane"),
    ("Esc", "Back, no"),
    ("^p", "Command palette: every action by its name, and the themes"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key, or several, and what they do."""

    keys: str
    name: str
    action: str
    text: str


def keys_of(owner: type[DOMNode]) -> Iterator[Key]:
    """Yield what the BINDINGS of a class do."""
    for binding in owner.BINDINGS:
        assert isinstance(binding, Binding)
        keys = " ".join(format_key(key) for key in binding.key.split(","))
        method = getattr(owner, f"action_{binding.action.partition('(')[0]}")
        text = binding.tooltip or (method.__doc__ or "").strip().partition("\n")[0]
        yield Key(keys, binding.description, binding.action, text.rstrip("."))


class Help(ModalScreen[None]):
    """All keys of a pane, and those that work everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "leave", "Back")]

    def __init__(self, pane: type[Pane], app: type[App[None]]) -> None:
        super().__init__(classes="dialog")
        self._pane = pane
        self._app_class = app

    def compose(self) -> ComposeResult:
        """Put the keys of the pane first."""
        with VerticalScroll(id="help"):
            yield Static(f"{self._pane.title}", classes="heading")
            yield Static(_table([(key.keys, key.text) for key in keys_of(self._pane)]))
            yield Static("Moving", classes="heading")
            yield Static(_table(list(MOVING)))
            yield Static("Everywhere", classes="heading")
            yield Static(_table([(key.keys, key.text) for key in keys_of(self._app_class)]))

    def on_mount(self) -> None:
        """Let the arrows scroll."""
        self.query_one("#help").focus()

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss(None)


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", min_width=8)
    table.add_column(overflow="fold")
    for keys, text in rows:
        table.add_row(Text(keys, "bold"), text)
    return table
