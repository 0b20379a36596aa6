"""A table that is told its rows again and again, and changes only what differs: the cursor stays."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.widgets import DataTable

Cell = str | Text


class Rows(DataTable[Cell]):
    """A table of rows with keys."""

    def __init__(self, columns: Sequence[str], *, id: str) -> None:  # noqa: A002 - Textual's own word
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._heads = tuple(columns)
        self._rows: dict[str, tuple[Cell, ...]] = {}

    def on_mount(self) -> None:
        """Make the columns; a column's key is its place."""
        for place, head in enumerate(self._heads):
            self.add_column(head, key=str(place))

    def show_rows(self, rows: Mapping[str, Sequence[Cell]]) -> None:
        """Show these rows in this order, by key."""
        new = {key: tuple(cells) for key, cells in rows.items()}
        chosen = self.chosen
        kept = [key for key in self._rows if key in new]
        if kept + [key for key in new if key not in self._rows] == list(new):
            self._change(new)
        else:
            self.clear()
            for key, cells in new.items():
                self.add_row(*cells, key=key)
        self._rows = new
        if chosen is not None and chosen in new and chosen != self.chosen:
            self.move_cursor(row=list(new).index(chosen))

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        keys = list(self._rows)
        return keys[self.cursor_row] if 0 <= self.cursor_row < len(keys) else None

    def _change(self, new: Mapping[str, tuple[Cell, ...]]) -> None:
        """Go from the old rows to the new, which keep the order and add at the end."""
        for key in self._rows:
            if key not in new:
                self.remove_row(key)
        for key, cells in new.items():
            old = self._rows.get(key)
            if old is None:
                self.add_row(*cells, key=key)
                continue
            for place, (before, after) in enumerate(zip(old, cells, strict=True)):
                if before != after:
                    self.update_cell(key, str(place), after, update_width=True)
