"""What the interface remembers from one start to the next: the theme."""

import json
from pathlib import Path

FILE = "tui.json"


def remembered_theme(directory: Path | None) -> str | None:
    """Return the theme chosen last, if there was one."""
    if directory is None:
        return None
    try:
        theme = json.loads((directory / FILE).read_text())["theme"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return theme if isinstance(theme, str) else None


def remember_theme(directory: Path | None, theme: str) -> str | None:
    """Keep a theme; returns why that was not possible."""
    if directory is None:
        return None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FILE).write_text(json.dumps({"theme": theme}) + "\n")
    except OSError as error:
        return f"{directory / FILE}: {error.strerror}"
    return None
