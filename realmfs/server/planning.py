"""From what the group shall have (merge.py) to what each replica has to do for it (pure).

A replica does its part in one transaction, and only if everything it was asked about is still as it was when
it was asked: that is what the guards are for. So a resolution needs no lock across the network; whoever comes
between makes it start again, and a replica that did its part alone has a version above all the others.

What a replica lacks comes into being as a *shell*, marked BARREN and with a vector of zeros: clients get
EIO for it, never a wrong emptiness, until its contents have been fetched. Symbolic links and empty files are
made whole at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from realmfs.server.merge import Merged, MergedDirectory, digest, is_merged
from realmfs.server.views import (
    Change,
    DirectoryChange,
    Guard,
    Node,
    ObjectView,
    Plan,
    ReplicaViews,
    Stamp,
)
from realmfs.vice.types import ObjectType, Order, VersionFlags, VersionVector

_SHELL = VersionVector().with_flags(VersionFlags.BARREN)


def plan(view: ReplicaViews, merged: Merged, views: Sequence[ReplicaViews]) -> Plan:
    """Return what one replica has to do."""
    nodes = sorted(view.objects)
    guards = tuple(_guard(node, view.objects[node]) for node in nodes)
    if merged.conflicts and not merged.directories:
        return Plan(guards=guards, objects=tuple(_marks(view, merged, views)))
    directories = []
    for node, directory in sorted(merged.directories.items()):
        if node not in merged.conflicts and not _is_done(view, directory):
            directories.append(_directory(view, directory))
    objects = [
        Change(row=row)
        for node in sorted(merged.children)
        if node not in merged.directories and node not in merged.conflicts
        for row in _child(view, node, merged, views)
    ]
    gone = tuple(node for node in sorted(merged.dead) if view.objects.get(node) is not None)
    marks = _marks(view, merged, views)
    return Plan(guards=guards, directories=tuple(directories), objects=(*objects, *marks), gone=gone)


def mark(row: ObjectView, vv: VersionVector) -> ObjectView:
    """Return the object marked as being in conflict, under a vector that none of the others exceeds."""
    flags = row.vv.flags & ~VersionFlags.COP2PENDING | VersionFlags.INCON
    return dataclasses.replace(row, vv=VersionVector(vv.versions, row.vv.store_id, flags))


def _guard(node: Node, row: ObjectView | None) -> Guard:
    return Guard(node=node, rows=(row.vv,) if row is not None else ())


def _is_done(view: ReplicaViews, merged: MergedDirectory) -> bool:
    present = view.directories[merged.node]
    row = present.row
    return row is not None and is_merged(present, merged) and row.vv == merged.vv


def _directory(view: ReplicaViews, merged: MergedDirectory) -> DirectoryChange:
    present = view.directories[merged.node]
    row = present.row
    version = row.data_version if row is not None else 0
    changed = ObjectView(
        node=merged.node, type=ObjectType.DIRECTORY, links=merged.links, length=len(merged.image),
        data_version=version + (not is_merged(present, merged)), vv=merged.vv, mtime=merged.mtime,
        author=merged.author, owner=merged.owner, mode=merged.mode, parent=merged.parent,
    )  # fmt: skip
    stamps = {name: stamp for name, (_, stamp) in merged.entries.items()} | merged.attributes
    known = tuple(Stamp(name=name, id=stamp) for name, stamp in sorted(stamps.items()) if any(stamp))
    return DirectoryChange(row=changed, acl=merged.acl, image=merged.image, stamps=known, tombs=merged.tombs)


def _child(view: ReplicaViews, node: Node, merged: Merged, views: Sequence[ReplicaViews]) -> list[ObjectView]:
    """Return what becomes of a child's row here, if anything."""
    parent, names = merged.children[node]
    row = view.objects.get(node)
    if row is None:
        return [_shell(newest(node, views), parent, names)]
    links = row.links if row.is_directory else names
    if (row.parent, row.links) == (parent, links):
        return []
    vv = row.vv
    if row.is_directory and row.parent != parent:  # its ".." is another, and its replicas are not merged yet
        vv = vv.with_store_id(digest("moved", node, vv.store_id, parent))
    return [dataclasses.replace(row, parent=parent, links=links, vv=vv)]


def newest(node: Node, views: Sequence[ReplicaViews]) -> ObjectView:
    """Return the replica of an object to start from: whole if possible, not older than another."""
    rows = [row for view in views if (row := view.objects.get(node)) is not None]
    best = rows[0]
    for row in rows[1:]:
        if best.is_shell or (not row.is_shell and row.vv.compare(best.vv) is Order.DOMINATES):
            best = row
    return best


def _shell(row: ObjectView, parent: Node, names: int) -> ObjectView:
    links = 2 if row.is_directory else names
    complete = row.type is ObjectType.SYMLINK or (row.type is ObjectType.FILE and not row.length)
    if complete and not row.is_shell and not row.vv.inconsistent:
        return dataclasses.replace(row, parent=parent, links=links)
    return dataclasses.replace(
        row, parent=parent, links=links, length=0, data_version=0, vv=_SHELL, target=b"", sha=b""
    )


def _marks(view: ReplicaViews, merged: Merged, views: Sequence[ReplicaViews]) -> list[Change]:
    marks = []
    for node, vv in sorted(merged.conflicts.items()):
        row = view.objects.get(node)
        if node in merged.children:
            parent, names = merged.children[node]
            if row is None:
                row = _shell(newest(node, views), parent, names)
                row = dataclasses.replace(row, vv=row.vv.with_flags(VersionFlags.BARREN))
            links = row.links if row.is_directory else names
            row = dataclasses.replace(row, parent=parent, links=links)
        if row is not None and (marked := mark(row, vv)) != view.objects.get(node):
            marks.append(Change(row=marked))
    return marks
