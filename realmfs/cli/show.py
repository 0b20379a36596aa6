"""How things are printed: standard output is a contract, all else goes to standard error.

Tables are Rich's on a terminal: in colour (NO_COLOR is heeded) and folded to its width. In a pipe they are
plain columns of full length, and Rich is not even imported.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

_GOOD = ("up", "reachable", "valid", "cached", "yes")
_BAD = ("down", "unreachable", "conflict", "expired", "refused", "missing", "absent", "indigent")


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under a heading, columns as wide as needed; `empty` to stderr if there are none."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        click.echo(empty, err=True)
    elif sys.stdout.isatty():
        _print_rich(head, lines)
    else:
        widths = [max(len(line[column]) for line in [list(head), *lines]) for column in range(len(head))]
        for line in [list(head), *lines]:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            click.echo("  ".join(cells).rstrip())


def _print_rich(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in line))
    Console(file=sys.stdout, highlight=False).print(table)


def _style(cell: str) -> str:
    word = cell.partition(" ")[0].rstrip(":,")
    return "green" if word in _GOOD else "red" if word in _BAD else ""
