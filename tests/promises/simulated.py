"""What a simulation remembers: which contents and names were acknowledged, and what took their place.

Every write has contents of its own, every created thing a name of its own: its mark. A client that changes
a file has read it through the same handle, so its new mark stands for all that it has seen there. A mark
that nothing has replaced must be found in the end: at a server, or in the log of a client.

A file keeps its number however it is renamed. What a client was shown of a file it may not be shown older,
until an event says that its cache has let go of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1

import trio

from realmfs.vice.types import Fid, VersionVector

MARK = 9
"""Bytes of a mark."""


@dataclass
class Ledger:
    """Marks, from the first acknowledged one on."""

    acknowledged: set[bytes] = field(default_factory=set)
    replaced: set[bytes] = field(default_factory=set)
    before: dict[bytes, bytes] = field(default_factory=dict)
    """The mark that a version was written over."""
    files: dict[bytes, int] = field(default_factory=dict)
    """Which file has or had a name."""
    seen: dict[tuple[int, int], set[bytes]] = field(default_factory=dict)
    """By client and file: what came before the versions that the client has seen, too old for it."""
    revived: set[bytes] = field(default_factory=set)
    """Versions that were chosen from: they may come after later ones."""
    evictions: int = 0
    journals: dict[int, list[str]] = field(default_factory=dict)
    """By file: what was done to it and seen of it, for whoever has to find out why a run failed."""
    versions: dict[tuple[object, ...], object] = field(default_factory=dict)
    """The contents or names of each version of an object, as whoever was looked at first has them."""
    _count: int = 0

    def mark(self, kind: str) -> bytes:
        """Make a new mark."""
        self._count += 1
        return b"%c%08d" % (kind.encode(), self._count)

    def made(self, name: bytes) -> None:
        """Note that a file of this name may be seen from now on."""
        self.files[name] = len(self.files)

    def tell(self, name: bytes, what: str) -> None:
        """Note in a file's journal what happened to it."""
        if (number := self.files.get(name)) is not None:
            self.journals.setdefault(number, []).append(f"{trio.current_time():.3f} {name.decode()} {what}")

    def done(self, mark: bytes, instead_of: bytes = b"") -> None:
        """Note an acknowledged change."""
        self.acknowledged.add(mark)
        self.replaced.add(instead_of)

    def gone(self, mark: bytes) -> None:
        """Note an acknowledged removal."""
        self.replaced.add(mark)

    def decided(self, marks: set[bytes]) -> None:
        """Note that of these versions some were given up, perhaps the later ones."""
        self.replaced |= marks
        self.revived |= marks

    def moved(self, old: bytes, new: bytes) -> None:
        """Note that a file may be seen under another name."""
        self.files[new] = self.files[old]

    def opened(self, client: int, name: bytes, mark: bytes) -> None:
        """Note what a client was shown; fail if it has already seen a later version, and has it still."""
        if name not in self.files:  # a version that was kept beside the other
            self.made(name)
        too_old = self.seen.setdefault((client, self.files[name]), set())
        self.tell(name, f"client {client} opened {mark!r}")
        journal = "\n".join(self.journals[self.files[name]])
        fresh = mark not in too_old or mark in self.revived
        assert fresh, f"client {client} opened {mark!r}, and had seen later:\n{journal}"
        while mark := self.before.get(mark, b""):
            too_old.add(mark)

    def evicted(self, client: int, label: str) -> None:
        """Note that a client says that it has let go of an object."""
        name = label.rpartition("/")[2].encode()
        number = self.files.get(name)
        self.tell(name, f"client {client} says that its cache has let go of it")
        if number is not None and self.seen.pop((client, number), None) is not None:
            self.evictions += 1

    def holds(self, fid: Fid, version: VersionVector, data: object, what: str) -> None:
        """Note what somebody has of a version; fail if others have something else of it.

        A file's last update names it. A directory may lack others' while its own last one stands.
        """
        key = (fid, version.store_id, version.versions if fid.is_directory else ())
        known = self.versions.setdefault(key, data)
        assert data == known, f"{what} {data!r}, but that version is {known!r}"

    def digest(self) -> str:
        """Return what is the same if and only if all went the same way."""
        return sha1(repr(self.journals).encode(), usedforsecurity=False).hexdigest()

    def stories(self, marks: list[bytes]) -> str:
        """Return the journals in which marks are spoken of."""
        told = ["\n".join(journal) for journal in self.journals.values()]
        return "\n\n".join(one for one in told if any(mark.decode() in one for mark in marks))

    def missing(self, found: bytes) -> list[bytes]:
        """Return the acknowledged marks that are nowhere in all that was found."""
        return sorted(mark for mark in self.acknowledged - self.replaced if mark not in found)
