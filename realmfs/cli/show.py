"""How things are printed: standard output is a contract, all else goes to standard error."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under a heading, columns as wide as needed; `empty` to stderr if there are none."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        click.echo(empty, err=True)
        return
    widths = [max(len(line[column]) for line in [list(head), *lines]) for column in range(len(head))]
    for line in [list(head), *lines]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
