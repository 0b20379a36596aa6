"""The reference page of keys (docs/reference/keys.md), made of the bindings; a test compares it."""

from collections.abc import Iterable

from realmfs.tui.app import PANES, RealmfsApp
from realmfs.tui.help import MOVING, keys_of

_HEAD = """# Keys of the interface

Made of the bindings by `scripts/record_tui.py`. `?` in `realmfs tui` shows the keys of the pane in front, and
the command palette (Ctrl+P) offers every action by its name.
"""


def keys_page() -> str:
    """Return the page."""
    parts = [_HEAD, _section("Everywhere", ((key.keys, key.text) for key in keys_of(RealmfsApp)))]
    parts.append(_section("Moving", MOVING))
    parts += [_section(pane.title, ((key.keys, key.text) for key in keys_of(pane))) for pane in PANES]
    return "\n".join(parts)


def _section(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"## {title}", "", "| key | does |", "| --- | --- |"]
    lines += [f"| `{keys}` | {text} |" for keys, text in rows]
    return "\n".join(lines) + "\n"
