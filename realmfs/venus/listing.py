"""Directory listings.

A listing never waits for the status of its entries. Those whose status is known and valid come with
attributes, the others with their inode number alone; the kernel then asks for each when a program stats it
(see readahead.py).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from realmfs.venus.access import Access
from realmfs.venus.attributes import attr_of
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

    async def read(self, handle: int, position: int, limit: int = AT_ONCE) -> Sequence[Entry]:
        """Return the next entries after `position`, at most `limit`."""
        listing = self.directory(handle)
        if position == 0 and not listing.entries:
            await self._fill(listing)
        chunk = listing.entries[position : position + min(limit, AT_ONCE)]
        if listing.node.ino == ROOT_INODE:
            return self._realm_entries(chunk, position)
        damaged = (
            self._core.cache.damage is not None
        )  # then nothing new gets a number, but what is here is listed
        with nullcontext() if damaged else self._core.cache.transaction():
            return [self._entry(listing.node, entry, position + i + 1) for i, entry in enumerate(chunk)]

    def _entry(self, parent: Node, entry: tuple[bytes, int, int], position: int) -> Entry:
        name, vnode, unique = entry
        if parent.shows is not None:  # no number: programs must look it up
            return Entry(name, parent.ino, None, position)
        held = self._core.conflicts.at(parent.ino, name)
        if held is None and not vnode:
            held = self._core.conflicts.way(parent.ino, name)
        if held is not None:
            return Entry(name, held.ino, None, position)
        if not vnode:  # the conflict is over since the listing began
            return Entry(name, parent.ino, None, position)
        volume = parent.volume
        fid = Fid(volume.id, vnode, unique)
        node = volume.nodes.get((vnode, unique))
        if node is None and not volume.reachable:
            node = self._core.nodes.get(volume, fid)
        if node is None:
            return Entry(name, self._core.nodes.number(volume, fid), None, position)
        if not node.valid or may_be_mount_link(node) or node.conflict:
            return Entry(name, self._core.conflicts.shown(node).ino, None, position)
        parent.kernel_names.add(name)
        node.parent, node.name = parent.ino, name
        return Entry(name, node.ino, attr_of(node, self._core.settings, parent), position)

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
