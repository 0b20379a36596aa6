"""A hoard walk: from what was asked for to what is here (client.md §8.4).

1. *Status walk.* The status of every cached object is validated, fifty at a time. Then each entry's path is
   walked, its directory listed, and so on downward: new members get contexts, those gone lose theirs. What is
   new and small comes whole (gather.py), while nothing would have to go for it.
2. *Data walk.* What still lacks contents, or has old ones, from the highest priority down, until something
   does not fit: whatever is as large and no more important is given up with it (*indigent*).
3. *Settling.* Each object gets the highest priority that any context gives it, others lose theirs.

Contexts that need more than a look wait in a heap, the most important first, then those nearer to the root.
`AT_ONCE` of them are in work, each a task; how many of these may fetch is for the gate to say. Nothing here
waits for a user, and all of it may be cancelled at any checkpoint: what has come stays.
"""

import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from realmfs.cache.errors import CacheFull
from realmfs.cache.hoard import Expand
from realmfs.cache.replacement import STANDARD
from realmfs.venus.core import Core
from realmfs.venus.errand import errand
from realmfs.venus.face import ROOT_INODE
from realmfs.venus.fetch import Fetcher
from realmfs.venus.gather import SMALL, Gatherer, Ticket
from realmfs.venus.hoardbind import Binder
from realmfs.venus.hoardcontext import Context, Contexts, State
from realmfs.venus.node import Node
from realmfs.venus.resolve import may_be_mount_link
from realmfs.venus.stamps import VolumeStamps, shown
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, ObjectType

log = logging.getLogger(__name__)

AT_ONCE = 192
"""Contexts in work: so many that loads of fifty fill while others are being fetched."""
LARGE_AT_ONCE = 2
VOLUMES_AT_ONCE = 64
"""Volumes that are located and validated at once."""
PAUSES = (3.0, 5.0, 10.0, 20.0)
"""Seconds before each further attempt at what got no answer."""
LAST_LOOKS = 3
"""How often what was called back during the walk is looked at again."""
SLICE = 100
"""Members looked at between two pauses."""
SMALL_SLICE = 25
"""Objects that may have to come from the database first."""
MEDIUM_TERM = 75
"""What a point of hoard priority weighs in the priority of replacement (client.md §6)."""
_LATER = frozenset({Code.ENOENT, Code.ENOTDIR, Code.EACCES, Code.EPERM, Code.ETIMEDOUT, Code.ENXIO})


@dataclass(slots=True)
class Progress:
    """How far a walk is; sizes in bytes, times of trio's clock."""

    phase: str = "status"
    """status, data, or done."""
    contexts: int = 0
    """Names looked at."""
    files: int = 0
    """Objects whose contents came."""
    fetched: int = 0
    files_left: int = 0
    bytes_left: int = 0
    """Of what is known to be missing."""
    began: float = field(default_factory=trio.current_time)
    data_began: float = 0.0
    ended: float = 0.0
    current: dict[int, Node] = field(default_factory=dict)
    """Large files on their way."""

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return (self.ended or trio.current_time()) - self.began

    @property
    def arriving(self) -> int:
        """Bytes that are here of files on their way."""
        return sum(node.content.present.total for node in self.current.values() if node.content is not None)

    @property
    def percent(self) -> int:
        """How much of the bytes known to be wanted has come."""
        here = self.fetched + self.arriving
        whole = self.fetched + self.bytes_left
        return 100 * here // whole if whole else 100

    @property
    def eta(self) -> float | None:
        """Seconds to the end of the data walk, as far as one can tell."""
        elapsed = trio.current_time() - self.began
        here = self.fetched + self.arriving
        if self.phase != "data" or not here or elapsed < 0.5:
            return None
        return (self.fetched + self.bytes_left - here) * elapsed / here


@dataclass(frozen=True, slots=True)
class Means:
    """What a walk works with."""

    core: Core
    validator: Validator
    fetcher: Fetcher
    gatherer: Gatherer
    binder: Binder
    stamps: VolumeStamps


class Walk:
    """One walk. `fetch` False: only the status walk, for whoever wants to know what is missing."""

    def __init__(
        self, means: Means, contexts: Contexts, *, fetch: bool, tell: Callable[[Node], None]
    ) -> None:
        """`tell` hears of each object that has come."""
        self._core = means.core
        self._means = means
        self._contexts = contexts
        self._fetch = fetch
        self._tell = tell
        self._todo: list[tuple[int, int, int, Context]] = []
        self._serial = itertools.count()
        self._lacking: list[Context] = []
        self._busy = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._hopeless: tuple[int, int] | None = None  # priority and size of what did not fit
        self._unanswered = False
        self.confirmed: set[int] = set()
        """Numbers of objects that are current, as servers said during the walk, though no promise holds."""
        self._concluding = False
        self._seen = 0
        self.progress = Progress()
        self.settled = False
        """Whether it came to its end."""

    # -- the status walk -------------------------------------------------------------------------------

    async def status(self, *, validate: bool = True) -> None:
        """Bind everything; bring what is new and small. `validate`: all that is cached, first."""
        if validate:
            await self.validate()
        self._seen = self._lost()
        for index, context in enumerate(list(self._contexts.roots.values())):
            if not index % SLICE:
                await trio.lowlevel.checkpoint()
            context.state = State.SUSPECT
            self._push(context)
        await self._work(self._check)
        self.progress.phase = "data"

    async def validate(self) -> None:
        """Ask whether what is cached is still what the servers have.

        All volumes at once: each whose servers are away costs seconds the first time.
        """
        with errand(0):
            async with trio.open_nursery() as nursery:
                limit, volumes = trio.Semaphore(4), trio.Semaphore(VOLUMES_AT_ONCE)
                for row in self._core.cache.volumes.all():
                    await volumes.acquire()
                    volume = self._core.volumes.by_key(row.key)
                    nursery.start_soon(self._enter_and_validate, volume, nursery, limit, volumes)

    async def _enter_and_validate(
        self, volume: VolumeState, nursery: trio.Nursery, limit: trio.Semaphore, volumes: trio.Semaphore
    ) -> None:
        try:
            await self._core.enter(volume)
            if volume.reachable:
                await self._validate_volume(volume, nursery, limit)
        except CodaError as error:
            log.debug("%s cannot be located: %s", volume, error)
        finally:
            volumes.release()

    async def _validate_volume(
        self, volume: VolumeState, nursery: trio.Nursery, limit: trio.Semaphore
    ) -> None:
        size = self._core.settings.validate_batch
        batch: list[Node] = []
        covered = await shown(self._means.stamps, volume, self._means.binder.user_of(volume))
        for numbers in self._core.cache.objects.of_volume(volume.key, SMALL_SLICE):
            await trio.lowlevel.checkpoint()
            for number in numbers:
                node = self._core.nodes.cached(number)
                if node is not None and node.status is not None and not node.valid and not node.stale:
                    if covered and self._means.stamps.hold(volume):
                        self._means.stamps.cover(node)
                        continue
                    batch.append(node)
                if len(batch) == size:
                    await limit.acquire()
                    nursery.start_soon(self._renew, volume, batch, limit)
                    batch = []
        if batch:
            await limit.acquire()
            nursery.start_soon(self._renew, volume, batch, limit)

    async def _renew(self, volume: VolumeState, batch: Sequence[Node], limit: trio.Semaphore) -> None:
        try:
            await self._means.validator.renew(batch, self._means.binder.user_of(volume))
        except CodaError as error:
            log.debug("%s cannot be validated: %s", volume, error)
        finally:
            limit.release()

    # -- the work --------------------------------------------------------------------------------------

    def _push(self, context: Context) -> None:
        heapq.heappush(self._todo, (-context.priority, context.depth, next(self._serial), context))
        self._changed.unpark_all()

    async def _work(self, act: Callable[[Context], Awaitable[None]], at_once: int = AT_ONCE) -> None:
        """Work off the heap, which grows meanwhile."""
        async with trio.open_nursery() as nursery:
            while self._todo or self._busy:
                while self._todo and self._busy < at_once:
                    self._busy += 1
                    nursery.start_soon(self._one, heapq.heappop(self._todo)[3], act)
                await self._changed.park()

    async def _one(self, context: Context, act: Callable[[Context], Awaitable[None]]) -> None:
        try:
            # What somebody asked to have now, without hoarding it, has no priority of its own.
            with errand(MEDIUM_TERM * context.priority or STANDARD):
                await act(context)
            context.set(State.VALID)
        except CacheFull:
            self._no_room(context)
        except CodaError as error:
            self._failed(context, error)
        finally:
            self._busy -= 1
            self._changed.unpark_all()

    def _failed(self, context: Context, error: CodaError) -> None:
        if error.code in (Code.ETIMEDOUT, Code.EWOULDBLOCK, Code.EAGAIN):
            self._unanswered = True
        if error.code is Code.ENOSPC:
            self._no_room(context)
        elif error.code in _LATER:
            context.set(State.VALID, error.text or error.code.name)
        else:
            context.set(State.INCONSISTENT, error.text or error.code.name)

    def _no_room(self, context: Context) -> None:
        node = self._means.binder.node(context)
        size = node.status.length if node is not None and node.status is not None else 0
        self._hopeless = (context.priority, size)
        context.set(State.INDIGENT, "the cache is full of what is more important")

    def _claims(self, context: Context) -> Callable[[Node], None]:
        return partial(self._means.binder.claim, context)

    async def _check(self, context: Context) -> None:
        """Bind a context, and bring what is small."""
        self.progress.contexts += 1
        binder = self._means.binder
        node = await binder.bind(context) if context.above is None else binder.node(context)
        if node is None:
            return
        if node.is_directory:
            await self._directory(context, node)
        else:
            await self._file(context, node)
            node = binder.node(context)
            if node is not None and node.type is ObjectType.SYMLINK:
                await self._link(context, node)
        for number in (context.number, *context.along):
            await self._confirm(self._core.nodes.by_number(number), context.entry.uid)

    async def _directory(self, context: Context, node: Node) -> None:
        here = self._means.fetcher.present(node) is not None
        before = node.status.vv if here and node.status is not None else None
        directory = await self._means.fetcher.directory(node, context.entry.uid)
        self._means.binder.require_lookup(node, context.entry.uid)
        if node.status is not None and node.status.vv != before:
            self._came(node)
        with self._core.cache.transaction():
            self._means.binder.claim(context, node)
        if context.expand and self._core.path(node).count("/") < 256:
            await self._expand(context, node, directory)

    async def _expand(self, context: Context, node: Node, directory: Directory) -> None:
        """Have a context for each member, and look after those that need it."""
        old, context.members = context.members, {}
        items = [item for item in directory.items() if item[0] not in (b".", b"..")]
        for start in range(0, len(items), SLICE):
            await trio.lowlevel.checkpoint()
            with self._core.cache.transaction():
                for name, vnode, unique in items[start : start + SLICE]:
                    member = old.get(name) or Context(context.entry, name, context.inner, context)
                    member.entry, member.expand, member.above = context.entry, context.inner, context
                    context.members[name] = member
                    self._member(member, node, Fid(node.fid.volume, vnode, unique))

    def _member(self, member: Context, parent: Node, fid: Fid) -> None:
        """Look at a member; what is here and good needs no more. Inside a transaction."""
        node = self._core.nodes.get(parent.volume, fid)
        node.parent, node.name = parent.ino, member.name
        mounted = node.ino in member.along and member.number not in (0, node.ino)
        if not mounted:
            member.number = node.ino
        if mounted or node.is_directory or not self.complete(node) or node.type is ObjectType.SYMLINK:
            self._push(member)
            return
        self.progress.contexts += 1
        self._means.binder.claim(member, node)
        member.set(State.VALID)

    def complete(self, node: Node) -> bool:
        """Tell whether all of an object is here, of the servers' version as far as we can know."""
        return node.valid and self._means.binder.has_data(node)

    # -- files and links -------------------------------------------------------------------------------

    async def _file(self, context: Context, node: Node) -> None:
        if node.status is not None and not node.valid:
            await self._means.validator.status(node, context.entry.uid)
            node = self._core.nodes.get(node.volume, node.fid)
        if self._means.binder.has_data(node) or node.ours:
            with self._core.cache.transaction():
                self._means.binder.claim(context, node)
            return
        known = node.status is not None and not node.stale
        roomy = self._core.cache.replacement.fits(size=AT_ONCE * SMALL, objects=AT_ONCE)
        if self._fetch and roomy and not (known and node.valid):
            await self._bring(context, node)
        else:
            await self._means.validator.status(node, context.entry.uid)
            node = self._core.nodes.get(node.volume, node.fid)
            with self._core.cache.transaction():
                self._means.binder.claim(context, node)
        if node.status is not None and node.type is ObjectType.SYMLINK:
            await self._means.fetcher.link(node, context.entry.uid)
        elif not self._means.binder.has_data(node):
            self._lacks(context, node)

    async def _confirm(self, node: Node, uid: int) -> None:
        """Ask about what no promise covers, by itself: it may be current all the same. Raises CodaError.

        So is what one server has and others do not have yet, as the reference client leaves what it writes:
        until its replicas are made equal, for which we ask (`resolve_later`), nobody promises anything of it.
        """
        if node.ours or node.ino == ROOT_INODE:
            return
        if not node.valid and not node.current_since(self.progress.began):
            await self._means.validator.get_attr(node, uid)
        if self._concluding or not node.valid:
            self.confirmed.add(node.ino)

    def _lacks(self, context: Context, node: Node) -> None:
        self._lacking.append(context)
        self.progress.files_left += 1
        self.progress.bytes_left += node.status.length if node.status is not None else 0

    async def _bring(self, context: Context, node: Node) -> None:
        await self._means.gatherer.bring(node, context.entry.uid, self._claims(context))
        if self._means.binder.has_data(node):
            self._came(node)

    def _came(self, node: Node) -> None:
        self.progress.files += 1
        self.progress.fetched += node.status.length if node.status is not None else 0
        self._tell(node)

    async def _link(self, context: Context, node: Node) -> None:
        """Follow a link: what covers a mount link is hoarded in its stead, a link's target beside it."""
        binder, uid = self._means.binder, context.entry.uid
        parent = self._core.nodes.by_number(node.parent)
        if may_be_mount_link(node):
            root = await binder.covering(uid, parent, node)
            if root is not None:
                context.along = (*(context.along if context.above is None else ()), node.ino)
                context.number = root.ino
                await self._directory(context, root)
                return
        reached = await binder.follow(uid, parent, await self._means.fetcher.link(node, uid))
        context.along = tuple(other.ino for other in reached)
        with self._core.cache.transaction():
            for other in reached:
                binder.mark(other.ino, context)
        if reached and reached[-1].type is ObjectType.FILE and not self.complete(reached[-1]):
            target = Context(context.entry, context.name, Expand.NONE, context)
            target.number = reached[-1].ino
            self._lacks(target, reached[-1])

    # -- the data walk ---------------------------------------------------------------------------------

    async def data(self) -> None:
        """Bring what is missing, the most important first."""
        self.progress.phase, self.progress.data_began = "data", trio.current_time()
        lacking, self._lacking = sorted(self._lacking, key=lambda context: -context.priority), []
        for _, equals in itertools.groupby(lacking, key=lambda context: context.priority):
            parts: tuple[list[Context], list[Context]] = ([], [])
            for context in equals:
                node = self._means.binder.node(context)
                length = node.status.length if node is not None and node.status is not None else 0
                parts[length > SMALL].append(context)
            for part, at_once in zip(parts, (AT_ONCE, LARGE_AT_ONCE), strict=True):
                for context in part:
                    self._push(context)
                await self._work(self._data, at_once)

    async def again(self) -> None:
        """Go once more through everything while servers were too busy to answer, or came and went.

        What they had promised before they came up again has to be asked for anew.
        """
        for pause in PAUSES:
            if not self._unanswered and self._lost() == self._seen:
                return
            volumes = {context.entry.volume for context in self._contexts.roots.values()}
            if not any(self._core.volumes.by_key(key).reachable for key in volumes):
                return
            await trio.sleep(pause)
            self._unanswered = False
            self.confirmed.clear()
            await self.status()
            if self._fetch:
                await self.data()

    async def last_look(self) -> None:
        """Check again what was called back since it was looked at: resolving replicas does that, too.

        This is the moment of which a survey speaks. What holds a promise now is current, and what does not is
        asked for once more; that either is called back while this goes on makes it no less so.
        """
        self._concluding = True
        for _ in range(LAST_LOOKS):
            for index, context in enumerate(self._contexts.each()):
                if not index % SLICE:
                    await trio.lowlevel.checkpoint()
                node = self._means.binder.node(context)
                if node is not None and not all(map(self._is_current, (node.ino, *context.along))):
                    self._push(context)
            if not self._todo:
                return
            await self._work(self._check)
            if self._fetch:
                await self.data()

    def _is_current(self, number: int) -> bool:
        if number not in self.confirmed:
            node = self._core.nodes.by_number(number)
            if node.valid or node.ours or number == ROOT_INODE:
                self.confirmed.add(number)
        return number in self.confirmed

    def _lost(self) -> int:
        """Count how often all promises of a server were lost."""
        return sum(volume.lost for volume in self._core.volumes)

    async def _data(self, context: Context) -> None:
        node = self._means.binder.node(context)
        if node is None or node.gone:
            return
        length = node.status.length if node.status is not None else 0
        try:
            if self._means.binder.has_data(node):
                return
            if self._is_hopeless(context.priority, length):
                raise CacheFull("the cache is full of what is more important")
            if length <= SMALL:
                await self._bring(context, node)
            else:
                await self._large(context, node)
            await self._confirm(node, context.entry.uid)
        finally:
            self.progress.files_left -= 1
            self.progress.bytes_left -= length

    def _is_hopeless(self, priority: int, size: int) -> bool:
        return self._hopeless is not None and priority <= self._hopeless[0] and size >= self._hopeless[1]

    async def _large(self, context: Context, node: Node) -> None:
        gate = self._means.gatherer.gate
        await gate.enter(Ticket())
        self.progress.current[node.ino] = node
        try:
            await self._means.fetcher.whole(node, context.entry.uid)
        finally:
            gate.leave()
            del self.progress.current[node.ino]
            self._means.fetcher.settle(node)
        with self._core.cache.transaction():
            self._means.binder.claim(context, node)
        self._came(node)

    # -- settling --------------------------------------------------------------------------------------

    async def stamp(self) -> None:
        """Gain the stamps of volumes of which everything cached is valid."""
        for row in self._core.cache.volumes.all():
            volume = self._core.volumes.by_key(row.key)
            if volume.reachable:
                try:
                    await self._means.stamps.gain(volume, self._means.binder.user_of(volume))
                except CodaError as error:
                    log.debug("no stamps of %s: %s", volume, error)

    async def settle(self) -> None:
        """Give every object the priority that the contexts give it now."""
        await self._means.binder.settle(self._contexts)
        self.settled = True
        self.progress.phase, self.progress.ended = "done", trio.current_time()
