"""What a simulation remembers: which contents and names were acknowledged, and what took their place.

Every write has contents of its own, every created thing a name of its own: its mark. A client that changes
a file has read it through the same handle, so its new mark stands for all that it has seen there. A mark
that nothing has replaced must be found in the end: at a server, or in the log of a client.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MARK = 9
"""Bytes of a mark."""


@dataclass
class Ledger:
    """Marks, from the first acknowledged one on."""

    acknowledged: set[bytes] = field(default_factory=set)
    replaced: set[bytes] = field(default_factory=set)
    before: dict[bytes, bytes] = field(default_factory=dict)
    """The mark that a version was written over."""
    seen: dict[int, set[bytes]] = field(default_factory=dict)
    """Versions that a client has seen, with all that came before them, without the newest: too old for it."""
    _count: int = 0

    def mark(self, kind: str) -> bytes:
        """Make a new mark."""
        self._count += 1
        return b"%c%08d" % (kind.encode(), self._count)

    def done(self, mark: bytes, instead_of: bytes = b"") -> None:
        """Note an acknowledged change."""
        self.acknowledged.add(mark)
        self.replaced.add(instead_of)

    def gone(self, mark: bytes) -> None:
        """Note an acknowledged removal."""
        self.replaced.add(mark)

    def opened(self, client: int, mark: bytes) -> None:
        """Note what a client was shown; fail if it has already seen a later version."""
        too_old = self.seen.setdefault(client, set())
        assert mark not in too_old, f"client {client} opened {mark!r}, and had seen a later version"
        while mark := self.before.get(mark, b""):
            too_old.add(mark)

    def missing(self, found: bytes) -> list[bytes]:
        """Return the acknowledged marks that are nowhere in all that was found."""
        return sorted(mark for mark in self.acknowledged - self.replaced if mark not in found)
