"""What the clients of a simulation have in their caches, looked at after every operation."""

from __future__ import annotations

from realmfs.cache.objects import Flags, ObjectRow
from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.vice.directory import Directory
from realmfs.vice.types import Fid, Order, VersionVector
from tests.promises.simulated import MARK, Ledger


def names_in(core: Core, number: int) -> list[tuple[bytes, int, int]] | None:
    """Return the names that a client has of a directory by its inode number, if it has them."""
    image = core.cache.directories.load(number)
    return None if image is None else sorted(Directory.parse(image).items())


class Holdings:
    """One client's: what it has is of the version that it believes to have, and no directory goes back."""

    def __init__(self, client: str, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._listed: dict[Fid, VersionVector] = {}
        """The versions of the directories that it has."""

    def check(self, core: Core) -> None:
        """Fail unless it is so for each object."""
        before, self._listed = self._listed, {}
        for ino, _ in core.cache.objects.hoard_after(0, 1 << 30):
            node = core.nodes.in_memory(ino)
            row = core.cache.objects.load(ino) if node is None else None
            known = node or row
            if (node is not None and node.ours) or (row is not None and row.flags & Flags.DIRTY):
                continue  # it is of no version yet
            if node is not None and node.content is not None and node.content.filling:
                continue  # of which it is comes at the end of the fetch
            if known is None or known.status is None:
                continue
            vv, what = known.status.vv, f"{self._client} has of {known.name!r} {known.fid} {known.status.vv}"
            if known.fid.is_directory:
                self._listed[known.fid] = vv
                old = before.get(known.fid, vv)
                older = vv.compare(old, ignore_inconsistent=True) is Order.SUBMITS
                assert not older or vv.store_id == old.store_id, f"{what}, had {old}"
            data = names_in(core, ino) if known.fid.is_directory else _contents(core, node, row)
            if data is not None:
                self._ledger.holds(known.fid, vv, data, what)


def _contents(core: Core, node: Node | None, row: ObjectRow | None) -> bytes | None:
    container = node.container if node is not None else row.container if row is not None else None
    if node is not None and node.content is not None:
        content = node.content.share()
    elif container is not None:
        content = core.cache.containers.open(container)
    else:
        return None
    with content:
        return content.read(0, MARK) if content.whole else None
