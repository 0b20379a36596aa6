"""Directory listings.

A listing never waits for the status of its entries. Those whose status is known and valid come with
attributes, the others with their inode number alone; the kernel then asks for each when a program stats it
(see readahead.py).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from realmfs.venus.access import Access
from realmfs.venus.attributes import attr_of, name_timeout
from realmfs.venus.core import Core
from realmfs.venus.face import ROOT_INODE, Caller, Entry, Opened
from realmfs.venus.fetch import Fetcher
from realmfs.venus.node import Node
from realmfs.venus.resolve import may_be_mount_link
from realmfs.venus.versions import Versions
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, Rights

AT_ONCE = 256
DOTS = (b".", b"..")


@dataclass(slots=True, eq=False)
class OpenDirectory:
    """A listing as it was at opendir or rewinddir: positions in it stay what they are."""

    node: Node
    caller: Caller
    entries: list[tuple[bytes, int, int]] = field(default_factory=list)


class Listings:
    """The open directories."""

    def __init__(self, core: Core, fetcher: Fetcher, access: Access, versions: Versions) -> None:
        self._core = core
        self._versions = versions
        self._fetcher = fetcher
        self._access = access
        self._open: dict[int, OpenDirectory] = {}
        self._next = 1

    async def open(self, caller: Caller, node: Node) -> Opened:
        """Open a directory. Raises CodaError: ENOTDIR, EACCES, and what fetching it raises."""
        if not node.is_directory or node.conflict:
            raise CodaError(Code.ENOTDIR, node.label)
        listing = OpenDirectory(node, caller)
        await self._fill(listing)
        handle, self._next = self._next, self._next + 1
        self._open[handle] = listing
        return Opened(handle, keep_cache=False)

    async def _fill(self, listing: OpenDirectory) -> None:
        node = listing.node
        if node.ino == ROOT_INODE:
            listing.entries = [(name, 0, 0) for name in self._core.volumes.realm_names()]
            return
        if node.shows is not None:
            names = await self._versions.names(listing.caller, node.shows)
            listing.entries = [(name, 0, 0) for name in names]
            return
        directory = await self._fetcher.directory(node, listing.caller.uid)
        self._access.require(node, listing.caller, Rights.LOOKUP)
        listing.entries = [entry for entry in directory.items() if entry[0] not in DOTS]
        hidden = self._core.conflicts.names_in(node.ino) - {entry[0] for entry in listing.entries}
        listing.entries += [(name, 0, 0) for name in sorted(hidden)]

    async def fill(self, handle: int) -> None:
        """List an open directory anew, for one who found it empty. Raises CodaError as `open` does."""
        await self._fill(self.directory(handle))

    def read(self, handle: int, position: int, limit: int = AT_ONCE) -> Sequence[Entry]:
        """Return the next entries after `position`, at most `limit`."""
        listing = self.directory(handle)
        chunk = listing.entries[position : position + min(limit, AT_ONCE)]
        parent = listing.node
        if parent.ino == ROOT_INODE:
            return self._realm_entries(chunk, position)
        if parent.shows is not None:  # no numbers: programs must look them up
            return [Entry(name, parent.ino, None, position + i + 1) for i, (name, *_) in enumerate(chunk)]
        held = self._core.conflicts.names_in(parent.ino)
        lasts = name_timeout(parent, self._core.settings)
        # Where the cache is damaged nothing new gets a number, but what is here is listed.
        damaged = self._core.cache.damage is not None
        with nullcontext() if damaged else self._core.cache.transaction():
            return [
                (self._held(parent, entry, position + i + 1) if not entry[1] or entry[0] in held else None)
                or self._entry(parent, entry, lasts, position + i + 1)
                for i, entry in enumerate(chunk)
            ]

    def _held(self, parent: Node, entry: tuple[bytes, int, int], position: int) -> Entry | None:
        """Return what a held object, or a directory on the way to one, is found under, if it is one."""
        name, vnode, _ = entry
        found = self._core.conflicts.at(parent.ino, name)
        if found is None and not vnode:
            # Where there is nothing any more, the conflict is over since the listing began.
            found = self._core.conflicts.way(parent.ino, name) or parent
        return Entry(name, found.ino, None, position) if found is not None else None

    def _entry(self, parent: Node, entry: tuple[bytes, int, int], lasts: float, position: int) -> Entry:
        name, vnode, unique = entry
        volume, core = parent.volume, self._core
        node = volume.nodes.get((vnode, unique))
        if node is None:
            fid = Fid(volume.id, vnode, unique)
            if volume.reachable:
                return Entry(name, core.nodes.number(volume, fid), None, position)
            node = core.nodes.get(volume, fid)
        if not node.valid or node.conflict or may_be_mount_link(node):
            return Entry(name, core.conflicts.shown(node).ino, None, position)
        parent.kernel_names.add(name)
        node.parent, node.name = parent.ino, name
        return Entry(name, node.ino, attr_of(node, core.settings, lasts), position)

    def _realm_entries(self, chunk: list[tuple[bytes, int, int]], position: int) -> list[Entry]:
        entries = []
        for i, (name, _, _) in enumerate(chunk):
            root = self._core.volumes.known_root(name.decode())
            ino = self._core.nodes.get(root, root.root).ino if root is not None else ROOT_INODE
            entries.append(Entry(name, ino, None, position + i + 1))
        return entries

    def directory(self, handle: int) -> OpenDirectory:
        """Return what a handle stands for. Raises CodaError EBADF."""
        try:
            return self._open[handle]
        except KeyError:
            raise CodaError(Code.EBADF, f"directory handle {handle}") from None

    def close(self, handle: int) -> None:
        """Forget a handle."""
        self.directory(handle)
        del self._open[handle]
