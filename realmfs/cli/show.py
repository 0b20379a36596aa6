"""How things are printed: standard output is a contract, all else goes to standard error."""

import json
import stat
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2))


def printable(name: str) -> str:
    """Return a file name as it can be printed: bytes that are no text and control characters are escaped."""
    return "".join(
        char
        if char.isprintable()
        else char.encode("utf-8", "surrogateescape")
        .decode("latin-1")
        .encode("unicode_escape")
        .decode("ascii")
        for char in name
    )


def size(number: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def age(seconds: float | None) -> str:
    """Return a span of time in its largest unit; a dash for None."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(mtime_ns: int) -> str:
    """Return a file's time in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mtime_ns / 1e9))


def mode(attributes: dict[str, Any]) -> str:
    """Return type and permissions as ls does."""
    return stat.filemode(_TYPES.get(attributes["type"], 0) | attributes["mode"])


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under a heading, columns as wide as needed; `empty` to stderr if there are none."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        click.echo(empty, err=True)
        return
    widths = [max(len(line[column]) for line in [list(head), *lines]) for column in range(len(head))]
    for line in [list(head), *lines]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
