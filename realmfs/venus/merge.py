"""What makes the replicas of a directory equal: one of them as the model, or all that any has. Pure.

The result is a list of edits for each replica (conflicts.md §5.1, `comparedirs`):

    removals, then renames, then creations, then attributes

A reference server checks all edits of one Repair against the directory as it was *before* the first of them,
and does not survive a rename of a name that is not there. So edits that build on one another go in several
Repairs (`rounds`), one after the other; the directory stays marked meanwhile.

One name may mean different objects at different servers: two clients have made one each. In a union the
object at the first of them keeps the name, and each other gets one of its own. An object with different names
at different servers has been renamed in two ways: the first one's name is taken. What one server lacks it
gets; contents come by the resolution of each object afterwards, since a fresh one is empty and nobody's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from realmfs.vice.acl import AccessList
from realmfs.vice.repair import RepairCommand, RepairOp, ReplicaRepair
from realmfs.vice.types import ObjectType

Names = Mapping[bytes, tuple[int, int]]
"""What a name means: vnode and unique."""
_CREATE = {
    ObjectType.FILE: RepairOp.CREATE_FILE,
    ObjectType.DIRECTORY: RepairOp.CREATE_DIRECTORY,
    ObjectType.SYMLINK: RepairOp.CREATE_SYMLINK,
}

_ATTRIBUTES = frozenset(
    {RepairOp.SET_ACL, RepairOp.SET_NEGATIVE_ACL, RepairOp.SET_MODE, RepairOp.SET_OWNER, RepairOp.SET_MTIME}
)


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """A directory at one server; `tag` goes into new names, `names` are without the dots."""

    volume: int
    tag: bytes
    names: Names
    mode: int
    owner: int
    acl: AccessList


@dataclass(frozen=True, slots=True)
class Merge:
    """The edits of each replica, and the objects that some replica gets empty."""

    sections: tuple[ReplicaRepair, ...]
    created: tuple[tuple[int, int], ...]

    @property
    def changes_names(self) -> bool:
        """Whether there is anything to be done at all."""
        return any(section.commands for section in self.sections)


def union(views: list[ReplicaView], fresh: Callable[[bytes, bytes, set[bytes]], bytes]) -> Names:
    """Return all names that any replica has; `fresh(name, tag, taken)` invents one where two collide."""
    target: dict[bytes, tuple[int, int]] = {}
    placed: dict[tuple[int, int], int] = {}
    taken = {name for view in views for name in view.names}
    for index, view in enumerate(views):
        for name, fid in view.names.items():
            if target.get(name) == fid or placed.get(fid, index) != index:
                continue  # it is there; or an earlier replica has named it
            if name in target:
                name = fresh(name, view.tag, taken)
                taken.add(name)
            target[name] = fid
            placed[fid] = index
    return target


def merge(
    views: list[ReplicaView],
    target: Names,
    model: ReplicaView,
    types: Mapping[tuple[int, int], ObjectType],
    volume: int,
    directory: tuple[int, int],
) -> Merge:
    """Return what makes every replica have the names of `target`, and else be as `model`.

    `volume` is the replicated volume, `directory` the vnode and unique of what is repaired.
    """
    created: dict[tuple[int, int], None] = {}
    sections = []
    for view in views:
        names = _name_edits(view.names, target, types, volume, directory)
        created |= dict.fromkeys(
            (command.fid.vnode, command.fid.unique) for command in names if command.op in _CREATE.values()
        )
        commands = (*names, *_attribute_edits(view, model))
        sections.append(ReplicaRepair(view.volume, commands))
    return Merge(tuple(sections), tuple(created))


def _name_edits(
    current: Names,
    target: Names,
    types: Mapping[tuple[int, int], ObjectType],
    volume: int,
    directory: tuple[int, int],
) -> list[RepairCommand]:
    kept = {name for name, fid in current.items() if target.get(name) == fid}
    wanted = {name: fid for name, fid in target.items() if name not in kept}
    moves: dict[bytes, bytes] = {}
    removals = []
    present = {current[name] for name in kept}
    for name, fid in current.items():
        if name in kept:
            continue
        new = next(
            (other for other, its in wanted.items() if its == fid and other not in moves.values()), None
        )
        if new is None:
            kind = RepairOp.REMOVE_DIRECTORY if fid[0] % 2 else RepairOp.REMOVE
            removals.append(RepairCommand(kind, name))
        else:
            moves[name] = new
            present.add(fid)
    commands = removals + _ordered(moves, volume, directory)
    for name, fid in wanted.items():
        if name in moves.values():
            continue
        kind = RepairOp.CREATE_LINK if fid in present else _CREATE[types[fid]]
        present.add(fid)
        commands.append(RepairCommand(kind, name, parameters=(volume, *fid, 0, 0)))
    return commands


def _ordered(moves: Mapping[bytes, bytes], volume: int, directory: tuple[int, int]) -> list[RepairCommand]:
    """Return renames in an order in which every new name is free; a ring goes by a name in between."""
    left, commands = dict(moves), []

    def move(old: bytes, new: bytes) -> None:
        parameters = (volume, *directory, *directory)
        commands.append(RepairCommand(RepairOp.MOVE, old, new, parameters))

    while left:
        free = next((old for old, new in left.items() if new not in left), None)
        if free is None:
            old, new = next(iter(left.items()))
            between = old[:240] + b".between"
            move(old, between)
            del left[old]
            left[between] = new
        else:
            move(free, left.pop(free))
    return commands


def _attribute_edits(view: ReplicaView, model: ReplicaView) -> list[RepairCommand]:
    commands = []
    for op, ours, theirs in (
        (RepairOp.SET_ACL, view.acl.positive, model.acl.positive),
        (RepairOp.SET_NEGATIVE_ACL, view.acl.negative, model.acl.negative),
    ):
        old, new = dict(ours), dict(theirs)
        for name in sorted(old.keys() | new.keys()):
            if old.get(name, 0) != new.get(name, 0):
                rights = (new.get(name, 0), 0, 0, 0, 0)
                commands.append(RepairCommand(op, name.encode("utf-8", "surrogateescape"), parameters=rights))
    if view.mode != model.mode:
        commands.append(RepairCommand(RepairOp.SET_MODE, parameters=(model.mode, 0, 0, 0, 0)))
    if view.owner != model.owner:
        commands.append(RepairCommand(RepairOp.SET_OWNER, parameters=(model.owner, 0, 0, 0, 0)))
    return commands


class MisfitError(ValueError):
    """An edit that does not fit the directory it is for; the text says which."""


def rounds(
    views: list[ReplicaView], sections: Sequence[ReplicaRepair], directory: tuple[int, int]
) -> list[list[ReplicaRepair]]:
    """Return the edits in as many Repairs as they need, each with a section for every replica.

    Raises MisfitError for what a server would refuse, or die of.
    """
    known = {view.volume: view for view in views}
    split = {}
    for section in sections:
        view = known.get(section.volume)
        if view is None:
            raise MisfitError(f"no server that is up has the replica {section.volume:x}")
        if section.volume in split:
            raise MisfitError(f"the replica {section.volume:x} has two sections")
        split[section.volume] = _split(view, section, directory)
    count = max((len(steps) for steps in split.values()), default=0)
    return [
        [
            ReplicaRepair(view.volume, tuple(steps[index]) if index < len(steps) else ())
            for view in views
            for steps in [split.get(view.volume, [])]
        ]
        for index in range(count)
    ]


def _split(
    view: ReplicaView, section: ReplicaRepair, directory: tuple[int, int]
) -> list[list[RepairCommand]]:
    names = dict(view.names)
    steps: list[list[RepairCommand]] = [[]]
    touched: set[object] = set()
    for command in section.commands:
        uses: set[object] = set()
        if command.op not in _ATTRIBUTES:
            uses |= {command.name, command.new_name} - {b""}
        if command.op in (*_CREATE.values(), RepairOp.CREATE_LINK):
            uses.add(command.fid[1:])
        if not uses.isdisjoint(touched):
            steps.append([])
            touched = set()
        _follow(names, command, directory)
        steps[-1].append(command)
        touched |= uses
    return steps if steps[-1] else steps[:-1]


def _follow(names: dict[bytes, tuple[int, int]], command: RepairCommand, directory: tuple[int, int]) -> None:
    """Do an edit to the names. Raises MisfitError."""
    op, name = command.op, command.name
    if op in (RepairOp.REMOVE, RepairOp.REMOVE_DIRECTORY, RepairOp.MOVE):
        if name not in names:
            raise MisfitError(f"there is no {name.decode(errors='replace')} to {op.name.lower()}")
        fid = names.pop(name)
        if op is not RepairOp.MOVE and fid[0] % 2 != (op is RepairOp.REMOVE_DIRECTORY):
            raise MisfitError(f"{name.decode(errors='replace')} is of the other kind")
        if op is RepairOp.MOVE:
            if command.parameters[1:] != (*directory, *directory):
                raise MisfitError("names are moved within the directory only")
            _take(names, command.new_name, fid)
    elif op not in _ATTRIBUTES:
        _take(names, name, (command.fid.vnode, command.fid.unique))


def _take(names: dict[bytes, tuple[int, int]], name: bytes, fid: tuple[int, int]) -> None:
    if name in names:
        raise MisfitError(f"{name.decode(errors='replace')} is there already")
    names[name] = fid
