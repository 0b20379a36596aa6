"""Resolution: making the replicas of an object equal, or marking them all as being in conflict.

    look      at the object at every member that can be reached, and at all that it is tied to (merge.py)
    decide    what the group shall have: a pure function of what was seen
    act       each member does its part in one transaction, if it is still as it was; else all starts again

Nothing is locked meanwhile, and nobody has to be told that a resolution is over. A server that dies between
two members' parts leaves them unequal in a way that the next resolution, by whomever, brings to the same end.

A file or symbolic link has no parts, so there is nothing to merge: whoever has a version above all the others
wins, the same last update under different counters is the same version, equal contents are no conflict, and
everything else is one. Vectors do not tell all: a server that executed an update and died before it could
answer has counted what nobody else knows of, and the next update goes to the others. So each replica
remembers the store ids of the versions that its own was made from (`past`); who has one of those is behind.
Missing replicas are made by resolving the directories that name them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final

import trio

from realmfs.rpc2.errors import BadPacket
from realmfs.server.members import Member, OtherMember, OurMember
from realmfs.server.merge import Lacking, Merged, MergedDirectory, maximum, merge
from realmfs.server.peers import Peers
from realmfs.server.planning import mark, plan
from realmfs.server.repaired import settle_repaired
from realmfs.server.replica import LocalReplica
from realmfs.server.state import ServerState
from realmfs.server.views import (
    ATTRIBUTES,
    NOWHERE,
    Change,
    Guard,
    Node,
    ObjectView,
    Plan,
    ReplicaViews,
    Tomb,
)
from realmfs.server.volumes import JOINING
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ObjectType, Order, VersionVector

log = logging.getLogger(__name__)

ROUNDS: Final = 8
"""How often a resolution starts again because something was changed meanwhile."""
MAX_TIED: Final = 500
"""Directories that may have to be merged as one set."""
MAX_SETTLED: Final = 2000


class Resolver:
    """Resolves objects of the volumes that this server has replicas of."""

    def __init__(self, state: ServerState, peers: Peers) -> None:
        self._state = state
        self._peers = peers
        self._locks: dict[int, trio.Lock] = {}
        self.to_follow: Callable[[int, Node], None] = lambda group, node: None
        """Told of children that are not the same everywhere yet: made as shells, or of different versions."""

    async def resolve(self, group: int, node: Node) -> None:
        """Make all reachable replicas of an object equal.

        Raises CodaError: EINCONS (a conflict, marked at all), VNOVNODE (there is no such object), EWOULDBLOCK
        (changed too often meanwhile), ETIMEDOUT (whoever has its contents is not reachable).
        """
        lock = self._locks.setdefault(group, trio.Lock())
        async with (
            lock if node[0] & 1 else contextlib.nullcontext()
        ):  # files have nothing to do with each other
            for attempt in range(ROUNDS):
                try:
                    return await _Resolution(self, group, self.members(group), self._slot(group)).run(node)
                except BadPacket as error:
                    raise CodaError(Code.VSALVAGE, f"{node} is damaged: {error}") from error
                except CodaError as error:
                    if error.code not in (Code.EAGAIN, Code.ETIMEDOUT, Code.EWOULDBLOCK):
                        raise
                    log.debug("resolution of %s in %x starts again: %s", node, group, error)
                await trio.sleep(0.02 * attempt)
        raise CodaError(Code.EWOULDBLOCK, "the object was changed again and again")

    def members(self, group: int) -> list[Member]:
        """Return the replicas that can be reached, ours included, in the order of slots."""
        location = self._state.store.locations.find(group)
        volume = self._state.store.volumes.find(group)
        if location is None or volume is None or volume.filling not in (0, JOINING):
            raise CodaError(Code.VNOVOL)
        found: list[Member] = []
        for place in location.replicas:
            if place.server == self._state.store.number:
                found.append(OurMember(place, LocalReplica(self._state, volume), self._peers, group))
            elif self._peers.up(place.server):
                found.append(OtherMember(place, self._peers, group))
        return found

    def is_complete(self, group: int, members: Sequence[Member]) -> bool:
        """Whether these are all replicas."""
        location = self._state.store.locations.find(group)
        return location is not None and len(location.replicas) == len(members)

    def _slot(self, group: int) -> int:
        volume = self._state.store.volumes.find(group)
        assert volume is not None
        return volume.slot


class _Resolution:
    """One attempt."""

    def __init__(self, resolver: Resolver, group: int, members: list[Member], slot: int) -> None:
        self._resolver = resolver
        self._group = group
        self._members = members
        self._slot = slot
        self._views = {member.place.slot: ReplicaViews(member.place.slot) for member in members}

    async def run(self, node: Node) -> None:
        await self._look((), (node,))
        if node[0] & 1:
            await self._resolve_directories(node, {node})
        else:
            await self._resolve_leaf(node)

    # looking

    async def _look(self, directories: Sequence[Node], objects: Sequence[Node]) -> None:
        """Ask every member; one that cannot be reached is no member any more."""
        found: dict[int, object] = {}

        async def ask(member: Member) -> None:
            try:
                found[member.place.slot] = await member.look(directories, objects)
            except CodaError as error:
                if error.code not in (Code.ETIMEDOUT, Code.VNOVOL):
                    raise
                log.debug("server %d is left out: %s", member.place.server, error)

        await _all(self._members, ask)
        self._members = [member for member in self._members if member.place.slot in found]
        for slot in set(self._views) - set(found):
            del self._views[slot]
        for slot, views in found.items():
            self._views[slot].add(tuple(directories), tuple(objects), views)  # type: ignore[arg-type]  # a Views

    async def _confirm(self) -> None:
        """Look once more at all that was looked at piece by piece. Raises CodaError EAGAIN if it has changed.

        What was moved from a directory seen late to one seen early would be in neither, or in both: a
        conflict that nobody made. What is the same twice was all of that at one time in between.
        """
        before = {slot: view.versions for slot, view in self._views.items()}
        self._views = {slot: ReplicaViews(slot) for slot in self._views}
        directories = {node for versions in before.values() for node, whole in versions if whole}
        objects = {node for versions in before.values() for node, whole in versions if not whole}
        await self._look(sorted(directories), sorted(objects))
        if {slot: view.versions for slot, view in self._views.items()} != before:
            raise CodaError(Code.EAGAIN, "it was changed meanwhile")

    def _rows(self, node: Node) -> dict[int, ObjectView]:
        return {
            slot: row for slot, view in self._views.items() if (row := view.objects.get(node)) is not None
        }

    # directories

    async def _resolve_directories(self, start: Node, tied: set[Node]) -> None:
        await self._look(sorted(tied), ())
        if any(row.vv.inconsistent for row in self._rows(start).values()):
            await self._settle_marked(start)
            return
        whole = True
        while isinstance(merged := merge(list(self._views.values()), tied, self._slot), Lacking):
            tied |= merged.directories
            if len(tied) > MAX_TIED:
                log.warning("%d directories are tied together by renames; left as they are", len(tied))
                raise CodaError(Code.EINCONS)
            await self._look(sorted(merged.directories), sorted(merged.objects))
            whole = False
        if not whole:
            await self._confirm()
        await self._install(merged)
        if start in merged.conflicts:
            raise CodaError(Code.EINCONS)
        if not self._rows(start) or start in merged.dead:
            raise CodaError(Code.VNOVNODE)
        if start not in merged.directories and start[0] & 1:
            raise CodaError(Code.ETIMEDOUT, "no reachable replica has the contents")

    async def _install(self, merged: Merged) -> None:
        views = list(self._views.values())
        plans = {view.slot: plan(view, merged, views) for view in views}
        if all(one.is_empty for one in plans.values()):
            await self._forget(merged)
            return
        await self._execute(plans)
        for node in merged.conflicts:
            log.warning("volume %x: the replicas of %s cannot be merged: a conflict", self._group, node)
        for node in set(merged.children) - set(merged.directories):
            if len({row.vv if (row := view.objects.get(node)) is not None else None for view in views}) > 1:
                self._resolver.to_follow(self._group, node)
        await self._forget(merged)

    async def _execute(self, plans: dict[int, Plan]) -> None:
        """Have every member do its part, this server first."""

        async def install(member: Member) -> None:
            if not plans[member.place.slot].is_empty:
                await member.install(plans[member.place.slot])

        ours = [member for member in self._members if member.place.slot == self._slot]
        others = [member for member in self._members if member.place.slot != self._slot]
        await _all(ours, install)
        await _all(others, install)

    async def _forget(self, merged: Merged) -> None:
        """If that were all replicas, nobody needs the tombs any more, but for what is elsewhere still."""
        if merged.conflicts or not self._resolver.is_complete(self._group, self._members):
            return
        buried = {node: one for node, one in merged.directories.items() if one.tombs}
        stragglers = await self._stragglers(buried.values()) if buried else set()
        settled = [(node, one.vv) for node, one in buried.items() if node not in stragglers][:MAX_SETTLED]
        if settled and self._resolver.is_complete(self._group, self._members):
            await _all(self._members, lambda member: member.forget(settled))

    async def _stragglers(self, directories: Collection[MergedDirectory]) -> set[Node]:
        """Return the directories from which something was removed that a replica still has at another place.

        It was moved here before, of which that replica has not heard, either. Who resolves the other place
        is led here by the tomb of the move, and needs that of the removal. What was removed from a directory
        that was removed itself counts for where that was.
        """
        found: set[Node] = set()
        level = _removed((one.node, one.tombs) for one in directories)
        seen: set[Node] = set()
        while level:
            seen |= level.keys()
            here, self._views = self._views, {slot: ReplicaViews(slot) for slot in self._views}
            await self._look(sorted(n for n in level if n[0] & 1), sorted(n for n in level if not n[0] & 1))
            views, self._views = list(self._views.values()), here
            below: list[tuple[Node, tuple[Tomb, ...]]] = []
            for node, tops in level.items():
                rows = [view.objects.get(node) for view in views]
                if len({row and (row.parent, row.links) for row in rows}) > 1:
                    found |= tops
                elif rows[0] is None and node[0] & 1:
                    below += [(top, view.directories[node].tombs) for view in views for top in tops]
            level = {node: tops for node, tops in _removed(below).items() if node not in seen}
        return found

    async def _settle_marked(self, node: Node) -> None:
        """A directory in conflict: usable again if its replicas have been made equal, else marked at all."""
        rows = self._rows(node)
        views = [view.directories[node] for view in self._views.values()]
        repaired = settle_repaired(node, views) if len(rows) == len(views) else None
        if repaired is not None:
            await self._install(Merged(directories={node: repaired}))
            for child, _ in repaired.entries.values():
                self._resolver.to_follow(self._group, child)
            return
        await self._mark(node, rows)
        raise CodaError(Code.EINCONS)

    async def _mark(self, node: Node, rows: dict[int, ObjectView]) -> None:
        top = maximum(row.vv for row in rows.values())
        plans = {slot: Plan() for slot in self._views}
        for slot, row in rows.items():
            marked = mark(row, top)
            if marked.vv != row.vv:
                guard = Guard(node=node, rows=(row.vv,))
                plans[slot] = Plan(guards=(guard,), objects=(Change(row=marked),))
        if not all(one.is_empty for one in plans.values()):
            log.warning("volume %x: the replicas of %s differ: a conflict", self._group, node)
        await self._execute(plans)

    # files and symbolic links

    async def _resolve_leaf(self, node: Node) -> None:
        rows = self._rows(node)
        if not rows:
            raise CodaError(Code.VNOVNODE)
        places = {(row.parent, row.links) for row in rows.values()}
        if len(rows) < len(self._members) or len(places) > 1:
            await self._resolve_directories(min(row.parent for row in rows.values()), await self._homes(node))
            self._views = {member.place.slot: ReplicaViews(member.place.slot) for member in self._members}
            await self._look((), (node,))
            rows = self._rows(node)
            if not rows:
                raise CodaError(Code.VNOVNODE)
        if all(row.is_shell for row in rows.values()):
            raise CodaError(Code.ETIMEDOUT, "no reachable replica has the contents")
        best = _best(list(rows.values()))
        if best is None:
            await self._mark(node, rows)
            raise CodaError(Code.EINCONS)
        await self._spread(best, rows)

    async def _homes(self, node: Node) -> set[Node]:
        return {row.parent for row in self._rows(node).values() if row.parent != NOWHERE}

    async def _spread(self, best: ObjectView, rows: dict[int, ObjectView]) -> None:
        """Give every member the contents or, where it has them, the version."""
        whole = {slot: row for slot, row in rows.items() if not row.is_shell}
        sources = [slot for slot, row in whole.items() if row.vv.store_id == best.vv.store_id]
        source = next(member for member in self._members if member.place.slot == sources[0])
        version = rows[sources[0]].vv

        async def spread(member: Member) -> None:
            row = rows[member.place.slot]
            guard = Guard(node=best.node, rows=(row.vv,))
            if row.vv == best.vv and not row.is_shell:
                return
            if member.place.slot in sources:
                changed = Change(row=dataclasses.replace(row, vv=best.vv, past=best.past))
                await member.install(Plan(guards=(guard,), objects=(changed,)))
            else:
                await member.take(guard, best, source.place.server, version)

        await _all([member for member in self._members if member.place.slot not in sources], spread)
        await _all([member for member in self._members if member.place.slot in sources], spread)


def _removed(buried: Iterable[tuple[Node, Sequence[Tomb]]]) -> dict[Node, set[Node]]:
    """Return what tombs say was removed, each with those that the tombs were given with."""
    removed: dict[Node, set[Node]] = {}
    for top, tombs in buried:
        for tomb in tombs:
            if tomb.to == NOWHERE and tomb.name not in ATTRIBUTES:
                removed.setdefault(tomb.child, set()).add(top)
    return removed


def _best(rows: list[ObjectView]) -> ObjectView | None:
    """Return the replica that all others shall be like, with the version that they get; None: a conflict.

    A mark goes away only by a version above all the marked ones: a repair.
    """
    whole = [row for row in rows if not row.is_shell]
    top = maximum(row.vv for row in rows)
    for row in (one for one in whole if not one.vv.inconsistent):
        others = [other for other in rows if other.vv.inconsistent or not same_contents(row, other)]
        others = [other for other in others if other.vv.inconsistent or not other.is_shell]
        if all(_is_above(row, other) for other in others):
            same = [other for other in whole if other not in others]
            base = max(_latest(same), key=lambda other: other.vv.store_id)
            past = dict.fromkeys(version for one in rows for version in (*one.past, one.vv.store_id))
            past.pop(base.vv.store_id, None)
            return dataclasses.replace(
                base, vv=VersionVector(top.versions, base.vv.store_id), past=tuple(past)
            )
    return None


def _is_above(row: ObjectView, other: ObjectView) -> bool:
    """Whether a version is later than another: by its vector, or because it was made from it."""
    made_from_it = other.vv.store_id in row.past and not other.vv.inconsistent
    return made_from_it or row.vv.compare(other.vv, ignore_inconsistent=True) is Order.DOMINATES


def _latest(rows: list[ObjectView]) -> list[ObjectView]:
    """Return those that no other is above: by its store id a client knows what it has sent.

    (Of several the one with the greatest store id is taken: of one client's, that is the last.)
    """
    return [row for row in rows if not any(_is_above(other, row) for other in rows)] or rows


def same_contents(one: ObjectView, other: ObjectView) -> bool:
    """Whether two replicas are the same but for their counters: by their last update, or by all they hold."""
    if one.vv.store_id == other.vv.store_id:
        return True
    if one.is_shell or other.is_shell:
        return False
    status = [(row.type, row.length, row.mode, row.owner, row.target) for row in (one, other)]
    known = one.type is ObjectType.SYMLINK or not one.length or (one.sha and one.sha == other.sha)
    return status[0] == status[1] and bool(known)


async def _all(members: Sequence[Member], do: Callable[[Member], Awaitable[None]]) -> None:
    """Do something at all members at once; the first CodaError is raised when all have ended."""
    failures: list[CodaError] = []

    async def one(member: Member) -> None:
        try:
            await do(member)
        except CodaError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(one, member)
    if failures:
        raise failures[0]
