"""Which objects are in conflict, and the directories that show them (conflicts.md §3).

There are two kinds, and an object may be of both:

    local/global    the servers refuse a change made here. Known from the log alone: a record is BLOCKED.
                    Nobody else knows of it; the object stays as it was changed here
    server/server   the servers' replicas went apart, and they could not merge them. The servers say so
                    (EINCONS); the object carries the flag CONFLICT in the cache, lest it be replaced

In the tree the *name* of an object in conflict leads to a made-up directory instead, read-only, with one
entry for each version. The names in it are the reference's (conflicts.md §3.2); nobody else can put names
there, so they collide with none:

    report/                 `user.coda.state` = conflict
      _localcache           the object itself, as it was changed here; it may be edited. Only local/global
      s1.rig.test           that server's replica, read-only
      s2.rig.test

              refused by the servers               settled here, sent, accepted
    ordinary ───────────────────────► held ────────────────────────────────────► ordinary
       ▲  │                            │ ▲ refused again                          ▲
       │  │ EINCONS from all servers   │ └──────────────────────────────────┐     │
       │  └────────────► diverged ◄────┘ EINCONS                            │     │
       │                    │ repaired here or elsewhere, resolved          │     │
       └────────────────────┴───────────────────────────────────────────────┴─────┘

A refused change of a directory's own attributes hides no directory: it is only listed.

A file that was saved by renaming another one onto its name is removed, as the log has it. If that is refused,
the other one is our version (`heir`).

A held object may have no place of its own any more: it was removed here, and the servers refuse that; or the
servers have let go of its name. So held objects are also found by directory and name (`at`), which comes
before what the directory itself says. And where others have removed the directory of a held object, it is
still found as long as the servers have nothing else under its name (`way`).

Views have numbers above all inode numbers: bit 62 and the number of the object. They live here, and go when
the conflict is over.
"""

from collections.abc import Iterator

from realmfs.cache.cache import Cache
from realmfs.cache.errors import CacheFull
from realmfs.cache.log import LogEntry, Role, State
from realmfs.realms.types import ANYUSER
from realmfs.venus.node import Node
from realmfs.venus.nodes import Nodes
from realmfs.venus.volume import TOP_REALM, VolumeState
from realmfs.vice.log import Chmod, Chown, Remove, RemoveDir, Rename, Utimes, unpack_log
from realmfs.vice.types import Fid, ObjectType, Rights, Status, VersionVector

VIEW_BIT = 1 << 62
REPAIR_VOLUME = 0xFFFFFFFF  # the fabricated volume of the views, and the vnode of what is in it
VIEW_VNODE = 0xFFFFFFFD  # odd: a directory
LOCAL = b"_localcache"

_ATTRIBUTES = frozenset(kind.OPCODE for kind in (Chmod, Chown, Utimes))
_REMOVALS = frozenset(kind.OPCODE for kind in (Remove, RemoveDir))


class Conflicts:
    """The table of conflicts. Nothing here waits."""

    def __init__(self, nodes: Nodes, cache: Cache) -> None:
        self._nodes = nodes
        self._cache = cache
        self._volume = VolumeState(0, TOP_REALM, REPAIR_VOLUME, "Repair")
        self._views: dict[int, Node] = {}  # by the number of the object
        self._places: dict[tuple[int, bytes], int] = {}  # of held objects: directory and name
        self._ways: dict[tuple[int, bytes], Node] = {}  # to them, where the servers have let go of them
        self._serial = 0

    def load(self) -> None:
        """Find again what was in conflict when the cache manager last ran."""
        for number in self._cache.objects.in_conflict():
            self._open(self._nodes.by_number(number))
        for number in {object_of(entry) for entry in self._cache.log.blocked()}:
            self.refused(self._nodes.by_number(number))

    # -- what there is ---------------------------------------------------------------------------------

    def held(self, number: int) -> list[LogEntry]:
        """Return the refused records about an object, oldest first."""
        return [entry for entry in self.about(number) if entry.state & State.BLOCKED]

    def about(self, number: int) -> list[LogEntry]:
        """Return all records that make, change, move or remove an object, oldest first."""
        entries = [entry for entry, role in self._cache.log.about(number) if role & Role.OBJECT]
        return entries[::-1]

    def heir(self, number: int) -> tuple[Node, LogEntry] | None:
        """Return what has the name that a refused removal takes, and the waiting change that gives it.

        That is how programs save a file: they write another one and rename it onto the old name, which the
        log has as a removal and a rename. The new file is our version of the name.
        """
        removal = next((entry for entry in self.held(number) if entry.opcode in _REMOVALS), None)
        if removal is None:
            return None
        above, name = place_of(removal)
        for entry, role in self._cache.log.about(above):  # newest first
            if entry.sequence <= removal.sequence:
                break
            if role & Role.PARENT:
                given = _given(entry, above, name)
                if given is not None:
                    return (self._nodes.by_number(object_of(entry)), entry) if given else None
        return None

    def all(self) -> list[Node]:
        """Return every object in conflict, shown or not, in the order of their numbers."""
        return [self._nodes.by_number(number) for number in sorted(set(self.each()))]

    def each(self) -> Iterator[int]:
        """Yield the numbers of those objects, in no order, some twice; more can come and go meanwhile."""
        yield from [number for number, view in self._views.items() if _shown(view).conflict]
        for volume in self._cache.log.volumes():
            yield from self._cache.log.refused(volume)

    def count(self) -> int:
        """Return how many objects are in conflict."""
        numbers = {object_of(entry) for entry in self._cache.log.blocked()}
        return len(numbers | {number for number, view in self._views.items() if _shown(view).conflict})

    def kind(self, node: Node) -> str:
        """Say which kind of conflict an object is in: `no`, `local`, `server` or `both`."""
        held = bool(node.dirty and self.held(node.ino))
        if node.conflict:
            return "both" if held else "server"
        return "local" if held else "no"

    def shown(self, node: Node) -> Node:
        """Return what the name of an object leads to: its view if it is in conflict, else itself."""
        if node.conflict:
            return self._open(node)
        view = self._views.get(node.ino)
        return node if view is None or self._is_over(node.ino) else view

    def at(self, directory: int, name: bytes) -> Node | None:
        """Return the view of the held object that is found under this name."""
        number = self._places.get((directory, name)) if self._places else None
        return None if number is None or self._is_over(number) else self._views[number]

    def _is_over(self, number: int) -> bool:
        """Tell whether the servers have taken after all what they refused: someone had it sent again."""
        view = self._views[number]
        if _shown(view).conflict or self.held(number):
            return False
        self.settled(_shown(view))
        return True

    def way(self, directory: int, name: bytes) -> Node | None:
        """Return the directory of that name on the way to a held object, for one who does not find it."""
        return self._ways.get((directory, name))

    def names_in(self, directory: int) -> set[bytes]:
        """Return the names in a directory under which held objects are found."""
        return {name for parent, name in (*self._places, *self._ways) if parent == directory}

    # -- what becomes of it ----------------------------------------------------------------------------

    def diverged(self, node: Node) -> None:
        """Show an object that the servers cannot agree on, and remember it over a restart."""
        self._open(node)
        try:
            with self._cache.transaction():
                self._nodes.save(node)
                self._cache.objects.mark_conflict(node.ino, True)
        except CacheFull:
            return  # it is found out again when it is looked at again

    def refused(self, node: Node) -> Node | None:
        """Show an object of which a change was refused; None if it stays as it is."""
        entries = self.held(node.ino)
        if not entries or (node.is_directory and all(entry.opcode in _ATTRIBUTES for entry in entries)):
            return None
        view = self._open(node)
        removal = next((entry for entry in entries if entry.opcode in _REMOVALS), None)
        if removal is not None:
            view.parent, view.name = place_of(removal)
        if view.parent:
            self._places[view.parent, view.name] = node.ino
            self._find_ways()
        return view

    def _find_ways(self) -> None:
        """Note the directories between held objects and the roots of their volumes."""
        self._ways.clear()
        for number, _ in self._places:
            above = self._nodes.by_number(number)
            while above.parent and not above.fid.is_root and (above.parent, above.name) not in self._ways:
                self._ways[above.parent, above.name] = above
                above = self._nodes.by_number(above.parent)

    def settled(self, node: Node) -> Node | None:
        """Note that an object is not marked any more; return its view if that has ended with it."""
        if node.conflict:
            node.conflict = False
            with self._cache.transaction():
                self._cache.objects.mark_conflict(node.ino, False)
        if self.held(node.ino):
            return None
        for place in [place for place, number in self._places.items() if number == node.ino]:
            del self._places[place]
        self._find_ways()
        view = self._views.pop(node.ino, None)
        if view is not None:
            self._nodes.leave(view)
        return view

    def _open(self, node: Node) -> Node:
        view = self._views.get(node.ino)
        if view is None:
            self._serial += 1
            fid = Fid(REPAIR_VOLUME, VIEW_VNODE, self._serial)
            view = self._views[node.ino] = Node(self._volume, fid, VIEW_BIT | node.ino)
            rights = int(Rights.LOOKUP | Rights.READ)
            date = node.status.date if node.status is not None else 0
            view.status = Status(
                ObjectType.DIRECTORY, 2, 2048, 1, VersionVector(), date, 0, 0, False, rights, rights, 0o555,
                (0, 0),
            )  # fmt: skip
            view.rights[ANYUSER] = rights
            view.parent, view.name = node.parent, node.name
            self._nodes.enter(view)
        view.shows = node
        if not view.parent:
            view.parent, view.name = node.parent, node.name
        return view


def _shown(view: Node) -> Node:
    assert view.shows is not None
    return view.shows


def object_of(entry: LogEntry) -> int:
    """Return the inode number of what a record makes, changes, moves or removes."""
    return next(number for number, role in entry.about if role & Role.OBJECT)


def place_of(entry: LogEntry) -> tuple[int, bytes]:
    """Return the inode number of the directory, and the name in it, that a removal takes."""
    (record,) = unpack_log(entry.record)
    assert isinstance(record, Remove | RemoveDir)
    return next(number for number, role in entry.about if role & Role.PARENT), record.name


def _given(entry: LogEntry, above: int, name: bytes) -> bool | None:
    """Tell whether a record gives a name to an object or takes it away; None: it is about other names."""
    (record,) = unpack_log(entry.record)
    if not isinstance(record, Rename):
        if getattr(record, "name", None) != name:
            return None
        return not isinstance(record, Remove | RemoveDir)
    parents = [number for number, role in entry.about if role & Role.PARENT]
    if (parents[-1], record.new_name) == (above, name):
        return True
    return False if (parents[0], record.old_name) == (above, name) else None
