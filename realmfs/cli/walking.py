"""Directory by directory through the tree by the control socket, as find(1) goes through a mount."""

from collections.abc import Iterator
from typing import Any

import click

from realmfs.cli.progress import Bar
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.control.words import printable

_DEEPEST = 500
"""Levels; a volume may be mounted below itself."""


class Walker:
    """One walk; what cannot be listed is told on standard error, counted in `failed`, and passed by."""

    def __init__(self, client: Client, bar: Bar, *, across: bool, fetch: bool = True) -> None:
        """`across` mount points, too; without `fetch` only what is here, and no server is asked."""
        self.failed = 0
        self._client = client
        self._bar = bar
        self._across = across
        self._fetch = fetch
        self._seen = 0

    def directories(self, top: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield directories, relative to `top`, each before those below it, with their entries by name."""
        waiting = [""]
        while waiting:
            below = waiting.pop()
            try:
                entries = self._entries(joined(top, below))
            except ControlError as error:
                self.fail(error.text)
                continue
            yield below, entries
            if below.count("/") < _DEEPEST:
                waiting += [joined(below, one["name"]) for one in reversed(entries) if self._goes_into(one)]

    def fail(self, text: str) -> None:
        """Tell what went wrong, and go on."""
        self.failed += 1
        click.echo(printable(text), err=True)

    def _goes_into(self, entry: dict[str, Any]) -> bool:
        if entry["kind"] != "directory" or entry["state"] == "conflict":
            return False
        if not self._fetch and entry["state"] == "absent":
            return False
        return self._across or not entry["volume"]

    def _entries(self, path: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        position: int | None = 0
        while position is not None:
            piece = self._client.call(
                "path.list", path=path, position=position, attributes=self._fetch, states=True
            )
            entries += piece["entries"]
            self._seen += len(piece["entries"])
            self._bar.tell(self._seen, None, is_bytes=False)
            position = piece["position"]
        return sorted(entries, key=lambda entry: str(entry["name"]))


def joined(top: str, name: str) -> str:
    """Return a path below another; either may be empty."""
    return f"{top}/{name}" if top and name else top or name
