"""A table that is told its rows again and again, and changes only what differs: the cursor stays.

It fits its width. Every column has the width of its widest cell while there is room; else the columns that
may `shrink` share what is left, long texts losing their middle (the end of a path says most), and if that is
still too much the columns in `drop` are left out, the first of them first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.strip import Strip
from textual.widgets import DataTable
from textual.widgets.data_table import ColumnKey, RowKey

Cell = str | Text

MOST_SINGLY = 8
"""Rows that are taken out one by one; Textual counts all rows again for each."""
NARROWEST = 24
"""Columns are not shrunk below this before others are dropped."""
LEAST = 10
"""Columns are not shrunk below this at all."""


class Rows(DataTable[Text]):
    """A table of rows with keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("G", "scroll_bottom", "Last", show=False),
    ]

    def __init__(
        self,
        columns: Sequence[str],
        *,
        id: str,  # noqa: A002 - Textual's own word
        shrink: Sequence[str] = (),
        drop: Sequence[str] = (),
        empty: str = "",
    ) -> None:
        """`columns` are the heads; `shrink` and `drop` name those that give way (see the module).

        `empty` is what stands below the heads while there are no rows.
        """
        self._empty = empty
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._heads = tuple(columns)
        self._shrink = tuple(self._heads.index(head) for head in shrink)
        self._drop = tuple(self._heads.index(head) for head in drop)
        self._rows: dict[str, tuple[Cell, ...]] = {}
        self._widths: dict[int, int] = {}
        self._shown: dict[str, tuple[Text, ...]] = {}

    def on_mount(self) -> None:
        """Make the columns; a column's key is its place."""
        self._fit()

    def on_resize(self, event: Resize) -> None:
        """Fit the new width."""
        self.show_rows(self._rows)

    def show_rows(self, rows: Mapping[str, Sequence[Cell]]) -> None:
        """Show these rows in this order, by key."""
        chosen, row = self.chosen, self.cursor_row
        before, widths = self._rows, self._widths
        self._rows = {key: tuple(cells) for key, cells in rows.items()}
        self._fit()
        known = self._shown if self._widths == widths else {}
        new = {
            key: known[key] if key in known and before.get(key) == cells else self._fitted(cells)
            for key, cells in self._rows.items()
        }
        kept = [key for key in self._shown if key in new]
        gone = len(self._shown) - len(kept)
        if gone <= MOST_SINGLY and kept + [key for key in new if key not in self._shown] == list(new):
            self._change(new)
        else:
            self._replace(new)
        self._shown = new
        if chosen in new and chosen is not None:
            row = list(new).index(chosen)
        if new and row != self.cursor_row:
            self.move_cursor(row=min(row, len(new) - 1), animate=False)

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        keys = list(self._rows)
        return keys[self.cursor_row] if 0 <= self.cursor_row < len(keys) else None

    def _replace(self, new: Mapping[str, tuple[Text, ...]]) -> None:
        """Show other rows, scrolled as before."""
        scrolled = self.scroll_y
        self.clear()
        for key, cells in new.items():
            self.add_row(*cells, key=key)
        self.call_after_refresh(self.scroll_to, y=scrolled, animate=False)

    def _change(self, new: Mapping[str, tuple[Text, ...]]) -> None:
        """Go from the old rows to the new, which keep the order and add at the end."""
        for key in self._shown:
            if key not in new:
                self.remove_row(key)
        for key, cells in new.items():
            old = self._shown.get(key)
            if old is None:
                self.add_row(*cells, key=key)
                continue
            for place, before, after in zip(self._widths, old, cells, strict=True):
                if before != after:
                    self.update_cell(key, str(place), after)

    def render_line(self, y: int) -> Strip:
        """Say in place of the first row what it means that there is none."""
        if self._empty and y == self.header_height and not self._rows:
            style = self.rich_style + Style(dim=True)
            text = f" {self._empty}"
            return Strip([Segment(text, style)], cell_len(text)).adjust_cell_length(self.size.width, style)
        return super().render_line(y)

    # widths

    def _update_dimensions(self, new_rows: Iterable[RowKey]) -> None:
        """Measure nothing: widths and heights are known, and measuring a thousand rows takes 0.2 s."""
        super()._update_dimensions(())

    def _fit(self) -> None:
        """Give each column its width; make the columns anew if others are shown now."""
        wanted = [
            max([cell_len(head), *(_length(cells[place]) for cells in self._rows.values())])
            for place, head in enumerate(self._heads)
        ]
        room = self.scrollable_content_region.width or sum(wanted) + 2 * len(wanted)
        widths = widths_for(wanted, room, 2 * self.cell_padding, self._shrink, self._drop)
        if widths.keys() != self._widths.keys() or not self.columns:
            self.clear(columns=True)
            self._shown = {}
            for place, width in widths.items():
                self.add_column(self._heads[place], key=str(place), width=width)
        elif widths != self._widths:
            for place, width in widths.items():
                self.columns[ColumnKey(str(place))].width = width
            self._require_update_dimensions = True
            self._clear_caches()
            self.refresh(layout=True)
        self._widths = widths

    def _fitted(self, cells: Sequence[Cell]) -> tuple[Text, ...]:
        return tuple(_cut(cells[place], width) for place, width in self._widths.items())


def widths_for(
    wanted: Sequence[int], room: int, padding: int, shrink: Sequence[int], drop: Sequence[int]
) -> dict[int, int]:
    """Share `room` among columns of `wanted` widths; returns the widths of those shown, by place."""
    least = {place: min(width, NARROWEST) if place in shrink else width for place, width in enumerate(wanted)}
    for place in drop:
        if sum(least.values()) + padding * len(least) > room:
            del least[place]
    spare = room - sum(least.values()) - padding * len(least)
    for place in shrink:
        if place in least:
            width = max(min(least[place], LEAST), min(wanted[place], least[place] + spare))
            spare -= width - least[place]
            least[place] = width
    return least


def shortened(text: str, width: int) -> str:
    """Return the text in at most `width` columns; what is too long loses its middle, mostly of its front."""
    if cell_len(text) <= width or width < 3:
        return text
    front, back = text[: (width - 1) // 3], text[-(width - 1 - (width - 1) // 3) :]
    while cell_len(front) + cell_len(back) + 1 > width:  # wide characters
        front, back = front[:-1], back[1:]
    return f"{front}…{back}"


def _length(cell: Cell) -> int:
    return cell_len(cell) if isinstance(cell, str) else cell.cell_len


def _cut(cell: Cell, width: int) -> Text:
    if isinstance(cell, str):
        return Text(shortened(cell, width), no_wrap=True)
    if cell.cell_len > width:
        cell = cell.copy()
        cell.truncate(width, overflow="ellipsis")
    return cell
