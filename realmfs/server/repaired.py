"""Whether a directory in conflict has been repaired: the same entries and attributes everywhere (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from realmfs.server.merge import MergedDirectory, digest, maximum, tomb_order
from realmfs.server.views import ATTRIBUTES, DirectoryView, Node, Tomb
from realmfs.vice.types import StoreId


def settle_repaired(node: Node, views: Sequence[DirectoryView]) -> MergedDirectory | None:
    """Return the directory that all replicas have, to be unmarked at all of them; None if they differ.

    Entries may have been put there by different changes: the latest stamp goes for all, and a tomb that says
    that such an entry is gone is void.
    """
    rows = [view.row for view in views if view.row is not None and view.is_whole]
    if len(rows) < len(views):
        return None
    names = [{name: child for name, (child, _) in view.entries.items()} for view in views]
    status = [
        (view.acl, row.mode, row.owner, row.parent, row.links) for view, row in zip(views, rows, strict=True)
    ]
    if any(one != names[0] for one in names) or any(one != status[0] for one in status):
        return None
    entries: dict[bytes, tuple[Node, StoreId]] = {}
    for view in views:
        for name, (child, stamp) in view.entries.items():
            entries[name] = (child, max(stamp, entries[name][1]) if name in entries else stamp)
    living = {(name, child, stamp) for name, (child, stamp) in entries.items()}
    tombs: dict[tuple[bytes, Node, StoreId], Tomb] = {}
    for tomb in (tomb for view in views for tomb in view.tombs):
        key = (tomb.name, tomb.child, tomb.stamp)
        if key not in living:
            tombs[key] = min(tomb, tombs.get(key, tomb), key=tomb_order)
    latest = max(rows, key=lambda row: (row.mtime, row.author))
    vv = maximum(row.vv for row in rows)
    stamps = {name: max(view.stamp(name) for view in views) for name in ATTRIBUTES}
    return MergedDirectory(
        node, rows[0].parent, entries, stamps, tuple(tombs[key] for key in sorted(tombs)), views[0].acl,
        rows[0].mode, rows[0].owner, latest.mtime, latest.author,
        vv.with_store_id(digest("repaired", node, vv.versions, sorted(entries.items()))), views[0].image,
    )  # fmt: skip
