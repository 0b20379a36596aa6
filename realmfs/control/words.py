"""How things are said to people: sizes, ages, names, modes. Both front ends use the same words."""

import stat
import time
from typing import Any

_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}


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


def to_log_in(realm: str, user: str) -> str:
    """Return the command that logs a user in; "": nobody knows under which name."""
    return f"realmfs login {user or 'USER'}@{realm}"


def waiting(number: int) -> str:
    """Return `1 change waits`, `2 changes wait`."""
    return f"{counted(number, 'change')} {'waits' if number == 1 else 'wait'}"


def counted(number: int, word: str) -> str:
    """Return `1 change`, `2 changes`, `1 200 changes`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}".replace(",", " ")
