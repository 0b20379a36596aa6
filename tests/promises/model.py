"""What was acknowledged: a realm as it must look, kept beside the client by simple means.

A tree of dictionaries. A change that returned 0 is applied; one that got an errno is not; of one that was
under way at a crash both results are allowed, and the first look afterwards tells which it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class File:
    """A file; several names may mean the same one."""

    data: bytes = b""
    mode: int = 0o644


@dataclass(eq=False)
class Link:
    """A symbolic link."""

    text: bytes


Tree = dict[str, Any]
"""Names to Tree, File, or Link."""


class Model:
    """The tree, and where paths lead in it."""

    def __init__(self) -> None:
        self.root: Tree = {}

    def place(self, path: str) -> tuple[Tree, str] | None:
        """Return the directory that a path's last name is in; None if there is none."""
        *above, name = path.split("/")
        where: Any = self.root
        for part in above:
            where = where.get(part)
            if not isinstance(where, dict):
                return None
        return where, name

    def find(self, path: str) -> Any:
        """Return what a path means, None if nothing."""
        place = self.place(path)
        return place[0].get(place[1]) if place is not None else None

    def links(self, file: File) -> int:
        """Count the names of a file."""
        return sum(found is file for found in _files(self.root))

    def looks(self) -> dict[str, Any]:
        """Return the tree in the form in which clients are looked at."""
        return self._look(self.root)

    def _look(self, tree: Tree) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, node in tree.items():
            if isinstance(node, dict):
                found[name] = self._look(node)
            elif isinstance(node, Link):
                found[name] = node.text
            else:
                found[name] = (node.data, self.links(node), node.mode)
        return found


def _files(tree: Tree) -> list[File]:
    found: list[File] = []
    for node in tree.values():
        if isinstance(node, dict):
            found += _files(node)
        elif isinstance(node, File):
            found.append(node)
    return found
