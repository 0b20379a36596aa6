"""Catching up: in the background, replicas that were away are brought to what the others have.

Six things lead to work; all work is `Resolver.resolve` of one object after the other, directories first:

    a server is up (again)     the lowest-numbered server that is up compares, volume by volume, its survey
                               with the returned one's, and resolves what differs
    shells                     objects that resolution made without contents get them
    SWEEP seconds have passed  the same with all that are up, for what a client left half done
    a second phase is missing  for PENDING_FOR seconds: somebody may not have executed the update
    there is no mark of that   for PENDING_FOR seconds: the next update has overtaken the second phase, or it
                               does not name everybody
    a replica is JOINING       it is new, or its server has lost its disk: off line for clients until filled

A joining replica starts as the shell of a root. It resolves the root, then every shell that this has made,
until none is left and its survey is that of a replica on line; then it goes on line. Where all replicas are
shells and nothing else, the volume is new, and each goes on line with the same empty root. Fids that an
earlier life of the replica may have given away are skipped.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

import trio

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink
from realmfs.server.locations import Location
from realmfs.server.peercalls import MAX_BULK, GetSurvey
from realmfs.server.peers import Peers
from realmfs.server.peerservice import is_virgin
from realmfs.server.resolver import Resolver
from realmfs.server.state import ServerState
from realmfs.server.survey import differences, digest, survey
from realmfs.server.views import Node
from realmfs.server.volumes import JOINED_LEEWAY, JOINING, Volume
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import ROOT, Fid, VersionFlags

log = logging.getLogger(__name__)

TICK: Final = 5.0
"""Seconds between looks at joining replicas and missing second phases."""
PENDING_FOR: Final = 60.0
"""Seconds that a second phase may be missing."""
SWEEP: Final = 180.0
"""Seconds between comparisons with servers that are up all the time."""
WORKERS: Final = 8
MAX_QUEUE: Final = 200_000
_AT_ONCE: Final = 200
_MAX_PENDING: Final = 10_000
_HARMLESS: Final = frozenset({Code.VNOVNODE, Code.EINCONS, Code.VNOVOL})
_TRIES: Final = 3
_PASSES: Final = 5
"""How often a joining replica looks for what was changed while it was filled; the rest is settled on line."""


class CatchUp:
    """The background work of one server."""

    def __init__(self, state: ServerState, peers: Peers, resolver: Resolver) -> None:
        self._state = state
        self._store = state.store
        self._peers = peers
        self._resolver = resolver
        self._queue: OrderedDict[tuple[int, Node], int] = OrderedDict()
        self._arrived = trio.Event()
        self._returned: set[int] = set()
        self._wake = trio.Event()
        self._pending: dict[Fid, float] = {}
        self._uneven: set[Fid] = set()
        self._busy = 0
        self._next_sweep = 0.0
        self._comparing = False
        self._drained = trio.Event()
        self._realm_is_new = False
        peers.on_up = self.returned
        peers.on_realm = self.realm_changed
        resolver.to_follow = self.add
        state.store.vnodes.on_uneven = self._note_uneven

    async def run(self) -> None:
        """Work for ever."""
        self.realm_changed()
        for volume in self._store.volumes.all():
            if not volume.filling:
                self._add_shells(volume)
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)
            while True:
                if self._realm_is_new:
                    self._realm_is_new = False
                    await self._state.hosts.break_everything()
                if trio.current_time() >= self._next_sweep:
                    self._compare_with_all()
                await self._compare_all()
                for volume in self._store.volumes.all():
                    if volume.filling == JOINING:
                        await self._join(volume)
                self._look_for_pending()
                if not self._returned:
                    self._wake = trio.Event()
                    with trio.move_on_after(TICK):
                        await self._wake.wait()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do now."""
        joining = any(volume.filling == JOINING for volume in self._store.volumes.all())
        return not (self._queue or self._busy or self._returned or joining)

    def add(self, group: int, node: Node) -> None:
        """Have an object resolved some time."""
        if len(self._queue) < MAX_QUEUE:
            self._queue.setdefault((group, node), 0)
            self._arrived.set()

    def returned(self, server: int) -> None:
        """A server is up: have everything compared with it."""
        self._returned.add(server)
        self._wake.set()

    def changed_outside(self) -> None:
        """An administrator's program has changed the store: tell everybody."""
        self._peers.news()
        self._compare_with_all()
        self._wake.set()

    def _compare_with_all(self) -> None:
        self._next_sweep = trio.current_time() + SWEEP
        self._returned |= {number for number, up in self._peers.known().items() if up}

    def realm_changed(self) -> None:
        """Make the replicas that are to be here and are not, and greet everybody with the news."""
        with self._store.transaction():
            for location in self._store.locations.all():
                if location.at(self._store.number) and self._store.volumes.find(location.group_id) is None:
                    log.info("volume %s: its replica here is to be filled by the others", location.name)
                    self._store.make_replica(location, JOINING)
        self._realm_is_new = True
        self._wake.set()

    # the queue

    async def _work(self) -> None:
        while True:
            if not self._queue:
                self._arrived = trio.Event()
                await self._arrived.wait()
                continue
            (group, node), tries = self._queue.popitem(last=False)
            self._busy += 1
            try:
                if not self._was_filled(group, node):
                    await self._resolver.resolve(group, node)
            except CodaError as error:
                if error.code not in _HARMLESS and tries < _TRIES:
                    await trio.sleep(0.2 * (tries + 1))
                    self._queue.setdefault((group, node), tries + 1)
                elif error.code not in _HARMLESS:
                    log.info("volume %x: %s stays unresolved: %s", group, node, error)
            finally:
                self._busy -= 1
                if not (self._queue or self._busy):
                    self._drained.set()

    def _was_filled(self, group: int, node: Node) -> bool:
        """Whether a shell of a joining replica has got its contents while it waited in the queue."""
        volume = self._store.volumes.find(group)
        if volume is None or volume.filling != JOINING or self._comparing:
            return False
        vnode = self._store.vnodes.find(Fid(volume.id, *node))
        return vnode is not None and not vnode.vv.flags & VersionFlags.BARREN

    async def _drain(self) -> None:
        """Wait until the queue has been worked off."""
        while self._queue or self._busy:
            self._drained = trio.Event()
            await self._drained.wait()

    # comparing

    async def _compare_all(self) -> None:
        returned, self._returned = sorted(self._returned), set()
        for server in returned:
            for location in self._store.locations.all():
                volume = self._store.volumes.find(location.group_id)
                shared = location.at(server) and volume is not None and not volume.filling
                if shared and volume is not None and self._leads(location):
                    await self._compare(volume, server)

    def _leads(self, location: Location) -> bool:
        """Whether this is the server that compares: the first of those that are up."""
        ours = self._store.number
        return all(place.server >= ours or not self._peers.up(place.server) for place in location.replicas)

    async def _compare(self, volume: Volume, server: int) -> bool:
        """Have resolved what differs between our replica and another; whether nothing does."""
        ours = survey(self._store, volume)
        try:
            answer, theirs = await self._survey(volume, server, digest(ours))
            if not theirs:
                return True
            found = differences(ours, theirs)
        except (CodaError, BadPacket) as error:
            log.info("volume %s cannot be compared with server %d: %s", volume.name, server, error)
            return False
        if not answer.online and not volume.filling:
            return True  # it fills itself
        log.info("volume %s: %d objects differ at server %d", volume.name, len(found), server)
        for node in found:
            self.add(volume.group_id, node)
        return not found

    async def _survey(self, volume: Volume, server: int, known: bytes) -> tuple[GetSurvey.Reply, bytes]:
        sink = BytesSink(MAX_BULK)
        answer = await self._peers.call(server, GetSurvey(volume=volume.group_id, digest=known), sink=sink)
        return answer, sink.data

    # what is incomplete here

    def _add_shells(self, volume: Volume) -> int:
        """Have the shells of a replica resolved, directories first; return how many there are at most.

        Replicas of odd slots begin at the other end: of two that join at once, each fills the other, too.
        """
        order = "DESC" if volume.slot % 2 else "ASC"
        rows = self._store.database.rows(
            "SELECT vnode, uniq FROM vnode WHERE volume = ? AND flags & 5 = 4 "
            f"ORDER BY type != 2, vnode {order} LIMIT ?",
            volume.id, _AT_ONCE,
        )  # fmt: skip
        for vnode, unique in rows:
            self.add(volume.group_id, (vnode, unique))
        return len(rows)

    def _look_for_pending(self) -> None:
        """Have objects resolved whose second phase, or the last but one, has been missing for long."""
        rows = self._store.database.rows(
            "SELECT volume, vnode, uniq FROM vnode WHERE flags & 8 LIMIT ?", _MAX_PENDING
        )
        now, before = trio.current_time(), self._pending
        self._pending = {fid: before.get(fid, now) for fid in (*(Fid(*row) for row in rows), *self._uneven)}
        for fid, since in list(self._pending.items()):
            if now - since > PENDING_FOR:
                self._pending[fid] = now
                self._uneven.discard(fid)
                volume = self._store.volumes.find(fid.volume)
                if volume is not None and self._store.volumes.replicas(volume) > 1:
                    self.add(volume.group_id, fid[1:])

    def _note_uneven(self, fid: Fid) -> None:
        if len(self._uneven) < _MAX_PENDING:
            self._uneven.add(fid)

    # joining

    async def _join(self, volume: Volume) -> None:
        """Fill a replica from the others, if there is one on line; see the module's theory."""
        location = self._store.locations.find(volume.group_id)
        if location is None:
            return
        online, virgins, answers = [], 0, 0
        for place in location.replicas:
            if place.server == self._store.number:
                continue
            try:
                answer, _ = await self._survey(volume, place.server, b"")
            except CodaError as error:
                if error.code == Code.VNOVOL:  # it has not heard of the volume yet
                    log.debug("server %d: %s", place.server, error)
                continue
            answers, virgins = answers + 1, virgins + answer.virgin
            if answer.online:
                online.append(place.server)
                unique = answer.next_unique + JOINED_LEEWAY
                with self._store.transaction():
                    slots = answer.next_file, answer.next_directory
                    self._store.volumes.note_marks(volume.id, unique, *slots)
        if online:
            await self._fill(volume, online[0])
        elif virgins == answers == len(location.replicas) - 1 and is_virgin(self._state, volume):
            self._go_online(volume)

    async def _fill(self, volume: Volume, server: int) -> None:
        self.add(volume.group_id, ROOT)
        await self._drain()
        left = 0
        while (found := self._add_shells(volume)) and self._peers.up(server):
            await self._drain()
            left = left + 1 if self._shells(volume) >= found else 0
            if left > _TRIES:
                return  # nobody has their contents now
        self._comparing = True
        for _ in range(_PASSES):
            if await self._compare(volume, server):
                break
            await self._drain()
        self._comparing = False
        if not self._shells(volume):
            self._go_online(volume)

    def _shells(self, volume: Volume) -> int:
        sql = "SELECT count(*) FROM vnode WHERE volume = ? AND flags & 5 = 4"
        return int(self._store.database.row(sql, volume.id)[0])

    def _go_online(self, volume: Volume) -> None:
        root = self._store.vnodes.find(self._store.root_of(volume))
        assert root is not None
        with self._store.transaction():
            self._store.vnodes.set_vector(root.fid, root.vv.with_flags(root.vv.flags & ~VersionFlags.BARREN))
            self._store.volumes.filled(volume.id)
        log.info("volume %s: the replica here is complete and on line", volume.name)
        self._peers.news()
        self._compare_with_all()
