"""Merging the replicas of directories: what the group shall have, from what each member says (pure).

A directory is a set of *elements* (name, child, stamp); the stamp is the store id of the change that put the
entry there. Who takes an entry away leaves a *tomb* with the same stamp. The merge of any replicas is then

    (union of all elements)  -  (union of all tombs)

An element that one replica lacks without having buried it is one that it never heard of: it is added. One
that some replica has buried is gone, unless it was put there anew, for then its stamp is another. So the
result does not depend on order or grouping, and merging twice changes nothing: no name that was acknowledged
anywhere is lost. A rename is a tomb here, with a pointer to the directory there, and an element there; the
directories it ties together are merged as one set:

    start with one directory ──> children that not all replicas have at the same places
      ──> all directories where a replica has such a child, or has moved it to
      ──> directories that are about to be removed (must turn out empty), parents of what is missing somewhere

What cannot be merged is a conflict. Of the directories tied together, if afterwards
    a name has two children, a child two homes, a directory is inside itself, two access lists were set;
of a single child, which stays and is marked, if it was
    removed here and changed, moved or filled there.

A merged directory has the slot-wise maximum of all vectors. That is unique to the merge: a slot counts what
its server has executed, so nobody else reaches the same numbers without having executed the same updates. The
store id is that of a replica which has the result already, else a digest of it: servers that merge the same
replicas make the same version. Only where vectors do not tell the truth (a replica that has the maximum lacks
something), or where the result is not what those updates make (a child stays that was removed: the client who
removed it counts to the maximum, too, and has the names without it), does the merging server count one more
update of its own, and must then be the first to execute it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from realmfs.server.views import ACL, ATTRIBUTES, NOWHERE, DirectoryView, Node, ObjectView, ReplicaViews, Tomb
from realmfs.vice.directory import Directory
from realmfs.vice.types import Order, StoreId, VersionVector

_DEEPEST = 4096
"""Directories on the way to the root; more is a loop."""

Place = tuple[Node, bytes]
"""A directory and a name in it."""
Element = tuple[Node, bytes, Node, StoreId]


@dataclass(frozen=True, slots=True)
class Lacking:
    """What must be known before there can be a result."""

    directories: frozenset[Node]
    objects: frozenset[Node]


@dataclass(frozen=True, slots=True)
class MergedDirectory:
    """A directory as all replicas shall have it."""

    node: Node
    parent: Node
    entries: dict[bytes, tuple[Node, StoreId]]
    attributes: dict[bytes, StoreId]
    """The stamps of ACL, MODE and OWNER."""
    tombs: tuple[Tomb, ...]
    acl: bytes
    mode: int
    owner: int
    mtime: int
    author: int
    vv: VersionVector
    image: bytes

    @property
    def links(self) -> int:
        """Two, and one for each subdirectory."""
        return 2 + sum(child[0] & 1 for child, _ in self.entries.values())


@dataclass(slots=True)
class Merged:
    """What the group shall have."""

    directories: dict[Node, MergedDirectory] = field(default_factory=dict)
    children: dict[Node, tuple[Node, int]] = field(default_factory=dict)
    """Parent, and number of names, of each child that not all replicas had at the same places."""
    dead: set[Node] = field(default_factory=set)
    conflicts: dict[Node, VersionVector] = field(default_factory=dict)
    """What is to be marked, with the vector that it gets."""
    raised: bool = False
    """Whether the merging server counts an update of its own."""


def merge(views: Sequence[ReplicaViews], tied: set[Node], slot: int) -> Lacking | Merged:
    """Merge the directories `tied`, which must be in all `views`; `slot` is the merging server's.

    Raises BadPacket if an image cannot be read.
    """
    return _Merge(views, tied, slot).run()


def maximum(vectors: Iterable[VersionVector]) -> VersionVector:
    """Return the slot-wise maximum, with no store id and no flags."""
    top = VersionVector()
    for vector in vectors:
        top = top.maximum(vector)
    return top


def covers(tomb: Tomb, row: ObjectView) -> bool:
    """Whether what was removed was at least as new as this replica of it."""
    order = row.vv.compare(tomb.vv)
    known = {tomb.vv.store_id, *tomb.past}
    return row.is_shell or row.vv.store_id in known or order in (Order.EQUAL, Order.SUBMITS)


class _Merge:
    def __init__(self, views: Sequence[ReplicaViews], tied: set[Node], slot: int) -> None:
        self._views = views
        self._tied = tied
        self._slot = slot
        self._live: set[Element] = set()
        self._tombs: dict[Element, list[Tomb]] = defaultdict(list)
        self._of_child: dict[Node, list[tuple[Node, Tomb]]] = defaultdict(list)
        self._homes: dict[Node, set[Place]] = defaultdict(set)
        self._at: dict[int, dict[Node, set[Place]]] = {}
        self._troubled: set[Node] = set()
        self._kept_in: set[Node] = set()
        """Directories where a child stays although it was removed."""
        self._result = Merged()

    def run(self) -> Lacking | Merged:
        self._collect()
        disputed = self._disputed()
        lacking = self._lacking(disputed)
        if lacking.directories or lacking.objects:
            return lacking
        for child in sorted(disputed):
            self._decide(child)
        self._check_names()
        self._check_loops(disputed)
        for node in sorted(self._tied - self._result.dead):
            if any(row.vv.inconsistent for row in self._rows(node)):
                self._troubled.add(node)
            self._merge_directory(node)
        if self._troubled:
            return self._in_conflict()
        for child in sorted(disputed & set(self._result.conflicts)):
            self._result.conflicts[child] = maximum(row.vv for row in self._rows(child))
        self._count_names(disputed)
        return self._result

    # elements

    def _collect(self) -> None:
        for view in self._views:
            places: dict[Node, set[Place]] = defaultdict(set)
            for node in self._tied:
                directory = view.directories[node]
                for name, (child, stamp) in directory.entries.items():
                    self._live.add((node, name, child, stamp))
                    places[child].add((node, name))
                for tomb in directory.tombs:
                    self._tombs[node, tomb.name, tomb.child, tomb.stamp].append(tomb)
                    if tomb.name not in ATTRIBUTES:
                        self._of_child[tomb.child].append((node, tomb))
            self._at[view.slot] = places
        self._live -= self._tombs.keys()
        for node, name, child, _ in self._live:
            self._homes[child].add((node, name))

    def _places(self, child: Node) -> set[Place]:
        return self._homes.get(child, set())

    def _disputed(self) -> set[Node]:
        """Return the children that not all replicas have at the same places."""
        children = {child for places in self._at.values() for child in places}
        disputed = set()
        for child in children:
            places = [at.get(child, set()) for at in self._at.values()]
            if any(found != places[0] for found in places):
                disputed.add(child)
        return disputed

    def _rows(self, node: Node) -> list[ObjectView]:
        return [row for view in self._views if (row := view.objects.get(node)) is not None]

    def _lacking(self, disputed: set[Node]) -> Lacking:
        """Follow every tie that is not yet in the set."""
        objects = {child for child in disputed if any(child not in view.objects for view in self._views)}
        wanted: set[Node] = set()
        for child in disputed - objects:
            wanted |= {row.parent for row in self._rows(child)}
            wanted |= {tomb.to for _, tomb in self._of_child[child]}
            if child[0] & 1 and not self._places(child):
                wanted.add(child)
        for node in self._tied:
            rows = self._rows(node)
            parents = {row.parent for row in rows}
            if 0 < len(rows) < len(self._views) or len(parents) > 1:
                wanted |= parents
        return Lacking(frozenset(wanted - self._tied - {NOWHERE}), frozenset(objects))

    # children

    def _decide(self, child: Node) -> None:
        """Settle what becomes of a child."""
        places, rows = self._places(child), self._rows(child)
        removals = [tomb for _, tomb in self._of_child[child] if tomb.to == NOWHERE]
        if not rows:
            self._drop(child)
        elif not places:
            self._bury(child, rows, removals)
        else:
            self._check_homes(child, places)
            if len(rows) < len(self._views) and self._was_removed(child):
                self._result.conflicts[child] = VersionVector()

    def _drop(self, child: Node) -> None:
        self._live = {element for element in self._live if element[2] != child}
        self._homes.pop(child, None)
        self._result.dead.add(child)

    def _was_removed(self, child: Node) -> bool:
        """Whether a replica that does not have the child has removed it, though it lives elsewhere."""
        for view in self._views:
            if view.objects.get(child) is not None:
                continue
            tombs = [tomb for node in self._tied for tomb in view.directories[node].tombs]
            if any(tomb.child == child and tomb.to == NOWHERE for tomb in tombs):
                return True
        return False

    def _bury(self, child: Node, rows: list[ObjectView], removals: list[Tomb]) -> None:
        """Let a child die that has no name left, if all that is in it was known to who removed it."""
        if child[0] & 1:
            filled = any(node == child for node, *_ in self._live)
            safe = bool(removals) and not filled
        else:
            safe = all(any(covers(tomb, row) for tomb in removals) for row in rows)
        if safe and not any(row.vv.inconsistent for row in rows):
            self._result.dead.add(child)
            return
        self._result.conflicts[child] = VersionVector()
        places = sorted(place for at in self._at.values() for place in at.get(child, ()))
        node, name = places[0]
        self._live.add((node, name, child, digest("kept", node, name, child)))
        self._homes[child].add((node, name))
        self._kept_in.add(node)

    def _check_homes(self, child: Node, places: set[Place]) -> None:
        homes = {node for node, _ in places}
        if len(homes) > 1 or (child[0] & 1 and len(places) > 1):
            self._troubled |= homes
        moves: dict[Element, set[StoreId]] = defaultdict(set)
        for node, tomb in self._of_child[child]:
            if tomb.to != NOWHERE:
                moves[node, tomb.name, child, tomb.stamp].add(tomb.op)
        for element, ops in moves.items():
            if len(ops) > 1 and len(places) > 1:
                self._troubled |= homes | {element[0]}

    def _check_names(self) -> None:
        taken: dict[Place, Node] = {}
        for node, name, child, _ in self._live:
            if taken.setdefault((node, name), child) != child:
                self._troubled.add(node)

    def _check_loops(self, disputed: set[Node]) -> None:
        """Look for directories that two moves have put inside each other."""
        above: dict[Node, Node] = {}
        for view in self._views:
            for node, directory in view.directories.items():
                chain = (node, *directory.above)
                above.update(itertools.pairwise(chain))
        moved = {
            child: min(self._places(child))[0]
            for child in disputed - self._result.dead
            if child[0] & 1 and self._places(child)
        }
        above |= moved
        for child, home in moved.items():
            node, steps = above.get(child, NOWHERE), 0
            while node not in (NOWHERE, child) and steps < _DEEPEST:
                node, steps = above.get(node, NOWHERE), steps + 1
            if node == child or steps == _DEEPEST:
                self._troubled.add(home)

    def _count_names(self, disputed: set[Node]) -> None:
        for child in disputed - self._result.dead:
            places = self._places(child)
            self._result.children[child] = (min(places)[0], len(places))

    # directories

    def _merge_directory(self, node: Node) -> None:
        whole = [view.directories[node] for view in self._views if view.directories[node].is_whole]
        if not whole:
            return
        rows = [view.row for view in whole if view.row is not None]
        top = maximum(row.vv for row in rows)
        newest = [view for view in whole if view.row is not None and view.row.vv.versions == top.versions]
        entries: dict[bytes, tuple[Node, StoreId]] = {}
        for _, name, child, stamp in sorted(element for element in self._live if element[0] == node):
            entries[name] = (child, stamp)
        values, stamps = self._attributes(node, whole, newest)
        latest = max(
            (view.row for view in newest or whole if view.row), key=lambda row: (row.mtime, row.author)
        )
        parents = {parent for parent, _ in self._places(node)} or {rows[0].parent}
        merged = MergedDirectory(
            node, min(parents), entries, stamps, self._all_tombs(node), values[0], values[1], values[2],
            latest.mtime, latest.author, top, b"",
        )  # fmt: skip
        self._result.directories[node] = self._with_version(merged, whole, newest)

    def _attributes(
        self, node: Node, whole: list[DirectoryView], newest: list[DirectoryView]
    ) -> tuple[tuple[bytes, int, int], dict[bytes, StoreId]]:
        """Choose access list, mode and owner: those that were set last."""
        chosen: list[tuple[StoreId, object]] = []
        for name in ATTRIBUTES:
            buried = {stamp for where, what, _, stamp in self._tombs if (where, what) == (node, name)}
            found = [(view.stamp(name), view) for view in newest or whole]
            alive = [(stamp, view) for stamp, view in found if stamp not in buried] or found
            values = {_value(name, view): (stamp, view) for stamp, view in sorted(alive, key=_age)}
            if len(values) > 1 and name == ACL:
                self._troubled.add(node)
            value, (stamp, _) = list(values.items())[-1]
            chosen.append((stamp, value))
        (_, acl), (_, mode), (_, owner) = chosen
        stamps = {name: stamp for name, (stamp, _) in zip(ATTRIBUTES, chosen, strict=True)}
        assert isinstance(acl, bytes) and isinstance(mode, int) and isinstance(owner, int)  # noqa: PT018
        return (acl, mode, owner), stamps

    def _all_tombs(self, node: Node) -> tuple[Tomb, ...]:
        """Return the tombs of all replicas, of each element one."""
        buried = [_one(tombs) for key, tombs in self._tombs.items() if key[0] == node]
        return tuple(sorted(buried, key=lambda tomb: (tomb.name, tomb.child, tomb.stamp)))

    def _with_version(
        self, merged: MergedDirectory, whole: list[DirectoryView], newest: list[DirectoryView]
    ) -> MergedDirectory:
        """Give the result its vector, store id and pages.

        What a replica has already keeps its store id, by which a client knows what was executed.
        """
        same = [view for view in newest or whole if is_merged(view, merged)]
        known = max((view.row.vv.store_id for view in same if view.row is not None), default=None)
        vv = merged.vv
        if known is None:
            if newest or merged.node in self._kept_in:
                vv = vv.raised([self._slot])
                self._result.raised = True
            known = digest(merged.node, vv.versions, sorted(merged.entries.items()), merged.acl, merged.mode)
        version, image = (
            vv.with_store_id(known),
            _image(merged, newest) or _image(merged, whole) or _new_image(merged),
        )
        return dataclasses.replace(merged, vv=version, image=image)

    def _in_conflict(self) -> Merged:
        """Mark the directories in trouble, and those tied to them that are not the same everywhere."""
        result = Merged()
        for node in self._tied:
            rows = self._rows(node)
            whole = [view.directories[node] for view in self._views if view.directories[node].is_whole]
            differs = any(view.entries != whole[0].entries for view in whole[1:])
            if rows and (node in self._troubled or differs):
                result.conflicts[node] = maximum(row.vv for row in rows)
        return result


def is_merged(view: DirectoryView, merged: MergedDirectory) -> bool:
    """Whether a replica has just the contents and attributes of a merged directory."""
    row = view.row
    if row is None or not view.is_whole or view.entries != merged.entries or view.acl != merged.acl:
        return False
    shown = (row.parent, row.mode, row.owner, row.mtime, row.author)
    return shown == (merged.parent, merged.mode, merged.owner, merged.mtime, merged.author)


def _image(merged: MergedDirectory, views: list[DirectoryView]) -> bytes:
    """Return a replica's pages, if one has just the merged entries; none otherwise."""
    wanted = {name: child for name, (child, _) in merged.entries.items()}
    found = [
        view.image
        for view in views
        if view.row is not None and view.row.parent == merged.parent
        if {name: child for name, (child, _) in view.entries.items()} == wanted
    ]
    if found:
        return min(found)
    return b""


def _new_image(merged: MergedDirectory) -> bytes:
    """Return fresh pages, filled in the order of names."""
    parent = merged.parent if merged.parent != NOWHERE else merged.node
    made = Directory.new(merged.node, parent)
    for name, (child, _) in sorted(merged.entries.items()):
        made.insert(name, *child)
    return made.image


def _value(name: bytes, view: DirectoryView) -> object:
    assert view.row is not None
    return {ACL: view.acl, ATTRIBUTES[1]: view.row.mode, ATTRIBUTES[2]: view.row.owner}[name]


def _age(stamped: tuple[StoreId, DirectoryView]) -> tuple[int, StoreId]:
    stamp, view = stamped
    return (view.row.mtime if view.row is not None else 0, stamp)


def _one(tombs: list[Tomb]) -> Tomb:
    past = {version for tomb in tombs for version in tomb.past}
    return dataclasses.replace(min(tombs, key=tomb_order), past=tuple(sorted(past)))


def tomb_order(tomb: Tomb) -> tuple[object, ...]:
    """Which of several tombs of one element stays: any, as long as all servers choose the same."""
    return (tomb.op, tomb.batch, tomb.to, tomb.vv.versions, tomb.vv.store_id)


def digest(*parts: object) -> StoreId:
    """Return a store id that all servers make of the same parts."""
    digest = hashlib.sha1(repr(parts).encode(), usedforsecurity=False).digest()
    return StoreId(int.from_bytes(digest[:4], "big") | 0x80000000, int.from_bytes(digest[4:8], "big"))
