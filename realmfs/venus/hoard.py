"""Hoarding: what people said must be here is brought, kept fresh, and honestly told about.

    entries (by command) ─┐                        ┌─► status walk ─► data walk ─► settling  `walk`
                          ├─► hoard database ──► contexts
    profiles (files) ─────┘                        └─► status walk ─► survey ─► plan    `plan`, `verify`

One walk at a time. It is begun by hand, every `hoard_interval` seconds, and soon after a server has come
(back) up; the last two only while `on`, and while `hindrance` names no reason against it: a metered link, a
low battery. Progress is published, and is there to be asked for.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from realmfs.cache.hoard import Expand, HoardEntry
from realmfs.venus.access import Access
from realmfs.venus.core import Core
from realmfs.venus.events import HoardFetched, HoardProgress, HoardWalk
from realmfs.venus.fetch import Fetcher
from realmfs.venus.gather import Gatherer
from realmfs.venus.hoardbind import Binder
from realmfs.venus.hoardcontext import Census, Contexts, State
from realmfs.venus.hoardlanguage import Command, Kind, Mistake, Wish, parse_wish
from realmfs.venus.hoardplaces import Place, Places
from realmfs.venus.hoardsurvey import Plan, Survey, Surveyor
from realmfs.venus.hoardwalk import Means, Progress, Walk
from realmfs.venus.learn import Learner
from realmfs.venus.node import Node
from realmfs.venus.profiles import Profiles, alone
from realmfs.venus.resolve import Resolver
from realmfs.venus.stamps import VolumeStamps
from realmfs.venus.validity import Validator
from realmfs.vice.errors import CodaError, Code

log = logging.getLogger(__name__)

TICK = 60.0
"""How often it is looked whether a walk is due."""
SETTLE = 5.0
"""Seconds from a server's coming up to the walk: others will come, too."""
PAUSE = 60.0
"""Least seconds between walks that nobody asked for."""
NAMED = 5
"""Objects missing after a walk that the log names."""
SLICE = 200
"""Entries taken in between two pauses."""
TELL = 0.5
"""Seconds between two events of progress."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a walk did: objects and bytes fetched, and what is still missing."""

    files: int
    bytes: int
    seconds: float
    complete: bool
    """False: it was stopped."""
    survey: Survey


class Hoard:
    """The hoard of one cache manager. `directory` holds the profiles; None: there are none."""

    def __init__(
        self, core: Core, validator: Validator, fetcher: Fetcher, resolver: Resolver, access: Access
    ) -> None:
        self._core = core
        self.binder = Binder(core, validator, fetcher, resolver, access)
        self.stamps = VolumeStamps(core)
        gatherer = Gatherer(core, validator, fetcher)
        self._means = Means(core, validator, fetcher, gatherer, self.binder, self.stamps)
        self._places = Places(core, fetcher, resolver)
        self._surveyor = Surveyor(core, self.binder)
        self.contexts = Contexts()
        self.profiles = Profiles(core.cache, None)
        self.learner = Learner(core)
        self.on = True
        """Whether walks begin by themselves."""
        self.hindrance: Callable[[], str] = lambda: ""
        """Why no walk should begin by itself now; "": nothing is against it."""
        self.progress: Progress | None = None
        """Of the walk under way, or of the last one."""
        self.survey: Survey | None = None
        """Of the last walk, plan or verification."""
        self.last_walk: float | None = None
        """When the last walk ended (trio's clock)."""
        self.last: Outcome | None = None
        """What the last walk did."""
        self.walks = 0
        """How many have ended."""
        self._asked = False
        self._put_off = False  # servers came up at a bad moment: a walk is due when that is over
        self._walking = trio.Lock()
        self._scope: trio.CancelScope | None = None
        self._better = trio.Event()

    def use_profiles(self, directory: Path) -> None:
        """Take profiles from a directory from now on."""
        self.profiles = Profiles(self._core.cache, directory)

    # -- the daemon ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Begin walks when they are due, for ever."""
        while True:
            with trio.move_on_after(TICK):
                await self._better.wait()
                if not self._asked:
                    await trio.sleep(SETTLE)
            better, self._better = self._better.is_set() or self._put_off, trio.Event()
            due = self._due(better)
            self._put_off = better and not (self._asked or due) and bool(self.hindrance())
            if self._asked or due:
                try:
                    await self.walk()
                except (CodaError, OSError) as error:
                    log.error("the hoard walk failed: %s", error)
                    self.walks += 1

    def demand(self) -> None:
        """Have a walk begin at once."""
        self._asked = True
        self._better.set()

    def server_up(self) -> None:
        """Connectivity is better than it was: a walk may bring what was missing."""
        if self._core.cache.hoard.count:
            self._better.set()

    def _due(self, better: bool) -> bool:
        if not self.on or self._walking.locked() or self._core.cache.damage is not None:
            return False
        if not (self._core.cache.hoard.count or self._core.cache.hoard.enabled()):
            return False
        since = trio.current_time() - self.last_walk if self.last_walk is not None else None
        interval = self._core.settings.hoard_interval
        due = (since is None or since >= PAUSE) if better else (since is not None and since >= interval)
        return due and not self.hindrance() and any(volume.reachable for volume in self._core.volumes)

    def signal(self, number: int) -> None:
        """Something about an object has changed: contexts bound to it are to be checked."""
        for context in self.contexts.roots.values():
            if number == context.number or number in context.along:
                context.state = State.SUSPECT

    # -- walks -----------------------------------------------------------------------------------------

    @property
    def walking(self) -> bool:
        """Whether a walk is under way, or was asked for and begins in a moment."""
        return self._asked or self._scope is not None

    def stop(self) -> bool:
        """End the walk under way, or asked for; tell whether there was one. What has come stays."""
        was, self._asked = self.walking, False
        if self._scope is not None:
            self._scope.cancel()
        return was

    async def walk(self) -> Outcome:
        """Bring everything hoarded; return when that is done, or stopped. Waits for a walk under way."""
        async with self._walking:
            self._scope, self._asked = trio.CancelScope(), False
            try:
                walk, survey = await self._prepare(fetch=True), None
                with self._scope:
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._publish, walk.progress)
                            survey = await self._phases(walk)
                            nursery.cancel_scope.cancel()
                    finally:
                        walk.progress.phase, walk.progress.ended = "done", trio.current_time()
                        self.last_walk = trio.current_time()
            finally:
                self._scope = None
            complete = walk.settled
            if survey is None:
                survey = await self._surveyor.survey(self.contexts, walk.confirmed)
            self.survey = survey
            progress = walk.progress
            self._core.events.publish(
                HoardProgress("done", progress.percent, progress.files, progress.fetched)
            )
            self.last = Outcome(progress.files, progress.fetched, progress.seconds, complete, survey)
            self.walks += 1
            return self.last

    async def _prepare(self, *, fetch: bool) -> Walk:
        await self.profiles.sync(self._find)
        await self._follow()
        walk = Walk(self._means, self.contexts, fetch=fetch, tell=self._fetched)
        if fetch:
            self.progress = walk.progress
        return walk

    async def _follow(self) -> None:
        """Have a context for each entry. A page is read and taken in at once: an entry may go any time."""
        table, foremost = self._core.cache.hoard, dict[int, HoardEntry]()
        last = 0
        while page := table.after(last, SLICE):
            self.contexts.take(page)
            for entry in page:
                before = foremost.get(entry.volume)
                if before is None or entry.priority > before.priority:
                    foremost[entry.volume] = entry
            last = page[-1].id
            await trio.lowlevel.checkpoint()
        if len(self.contexts.roots) != table.count:
            self.contexts.keep(table.ids())
        self.binder.employ(foremost)

    def _fetched(self, node: Node) -> None:
        if self._core.events.watched:
            size = node.status.length if node.status is not None else 0
            self._core.events.publish(HoardFetched(self._core.path(node), size))

    async def _phases(self, walk: Walk) -> Survey:
        publish, objects = self._core.events.publish, self._core.cache.objects
        publish(HoardWalk("BeginStatusWalk", f"[{objects.count}] {self.census()}"))
        await walk.status()
        publish(HoardWalk("EndStatusWalk", f"[{objects.count}] {self.census()}"))
        publish(HoardWalk("BeginDataWalk", f"[{(walk.progress.bytes_left + 1023) // 1024}]"))
        await walk.data()
        await walk.again()
        survey = await self._conclude(walk)
        progress = walk.progress
        publish(
            HoardWalk(
                "EndDataWalk",
                f"[{(progress.bytes_left + 1023) // 1024}] [1, {progress.files}, {progress.seconds:.0f}]"
                f" [{progress.files}, {(progress.fetched + 1023) // 1024}]",
            )
        )
        await walk.stamp()
        return survey

    async def _conclude(self, walk: Walk) -> Survey:
        """Look again at what was called back meanwhile, and survey what is here."""
        await walk.last_look()
        await walk.settle()
        survey = await self._surveyor.survey(self.contexts, walk.confirmed)
        for lack in survey.lacks[:NAMED]:
            log.info("%s is missing: %s", lack.path, lack.why)
        return survey

    async def _publish(self, progress: Progress) -> None:
        while True:
            await trio.sleep(TELL)
            self._core.events.publish(
                HoardProgress(
                    progress.phase,
                    progress.percent,
                    progress.files,
                    progress.fetched + progress.arriving,
                    progress.files_left,
                    progress.bytes_left,
                    progress.eta,
                )
            )

    def census(self) -> Census:
        """Count the contexts by state."""
        census = Census()
        for context in self.contexts.roots.values():
            census.count(context)
        return census

    async def look(self) -> Survey:
        """Find out what is missing, and bring nothing but directories and status."""
        async with self._walking:
            walk = await self._prepare(fetch=False)
            await walk.status()
            await walk.again()
            self.survey = await self._conclude(walk)
            return self.survey

    async def plan(self) -> Plan:
        """Say what a walk would bring, and what would go for it."""
        return await self._surveyor.plan(await self.look())

    # -- entries ---------------------------------------------------------------------------------------

    def entries(self) -> list[HoardEntry]:
        """Return the entries, the most important first."""
        return self._core.cache.hoard.all()

    def path_of(self, entry: HoardEntry) -> str:
        """Return where an entry stands, from the root of the tree."""
        volume = self._core.volumes.by_key(entry.volume)
        root = self._core.path(self._core.nodes.get(volume, volume.root))
        path = entry.path.decode("utf-8", "surrogateescape")
        return f"{root}/{path}" if path else root

    async def add(self, uid: int, path: str, wish: Wish) -> list[HoardEntry]:
        """Enter a place, and what its attributes and the links on its way ask for. Raises CodaError."""
        made = int(self._core.now())
        command = Command(Kind.ADD, 0, 0, path, wish)
        found = await self._find(uid, command)
        with self._core.cache.transaction():
            return [
                self._core.cache.hoard.add(place.volume, place.path, uid, one.priority, one.expand, made)
                for place, one in found
            ]

    async def remove(self, uid: int, path: str) -> int:
        """Remove exactly the entry of a place; return how many that were (profiles keep theirs)."""
        place, _ = await self._places.find(uid, self.tree_path(path))
        ids = [
            entry.id
            for entry in self.entries()
            if (entry.volume, entry.path, entry.profile) == (place.volume, place.path, "")
        ]
        await self._remove(ids)
        return len(ids)

    async def clear(self, uid: int | None) -> int:
        """Remove the entries of a user, or of all; those of profiles stay. Returns how many went."""
        ids = [entry.id for entry in self.entries() if not entry.profile and uid in (None, entry.uid)]
        await self._remove(ids)
        return len(ids)

    async def _remove(self, ids: Sequence[int]) -> None:
        with self._core.cache.transaction():
            self._core.cache.hoard.remove(ids)
        await self.release()

    async def release(self) -> None:
        """Take the priority from what no entry wants any more."""
        await self._follow()
        if not self._walking.locked():  # else the walk settles it
            await self.binder.settle(self.contexts)

    async def _find(self, uid: int, command: Command) -> list[tuple[Place, Wish]]:
        """Return the places that a line means."""
        place, links = await self._places.find(uid, self.tree_path(command.path))
        wish = command.wish
        found = alone(place, links, wish)
        if wish.now is not Expand.NONE:
            plain = Wish(wish.priority)
            found += [(below, plain) async for below in self._places.below(uid, place, wish.now)]
        return found

    async def switch_profile(self, name: str, uid: int, enabled: bool) -> None:
        """Enable a profile for a user, and take it in; or disable it. Raises CodaError."""
        if enabled:
            self.profiles.enable(name, uid)
            await self.profiles.sync(self._find)
        else:
            self.profiles.disable(name)
        await self.release()

    def mistaken(self) -> list[Mistake]:
        """Return what is wrong with enabled profiles: something wanted is not even known."""
        return [one for profile in self.profiles.all() if profile.enabled for one in profile.mistakes]

    async def fetch(self, uid: int, path: str, *, recursive: bool) -> Outcome:
        """Bring an object now, or all below it, without hoarding it. Raises CodaError."""
        place, _ = await self._places.find(uid, self.tree_path(path))
        expand = Expand.DESCENDANTS if recursive else Expand.NONE
        contexts = Contexts()
        contexts.take([HoardEntry(0, place.volume, place.path, uid, 0, expand)])
        walk = Walk(self._means, contexts, fetch=True, tell=self._fetched)
        await walk.status(validate=False)
        await walk.data()
        survey = await self._surveyor.survey(contexts, walk.confirmed)
        return Outcome(
            walk.progress.files, walk.progress.fetched, walk.progress.seconds, survey.ready, survey
        )

    def wish_of(self, node: Node) -> Wish | None:
        """Return the attributes of the entry that is bound to an object itself."""
        entry = self._core.cache.hoard.meant_by(node.ino, node.volume.key, self._path_within(node))
        return None if entry is None else Wish(entry.priority, entry.expand)

    def _path_within(self, node: Node) -> bytes:
        """Return the path of an object from its volume's root, as it was last found."""
        names: list[bytes] = []
        above: Node | None = node
        while above is not None and not above.fid.is_root:
            names.append(above.name)
            above = self._core.above(above)
        return b"/".join(reversed(names))

    async def set_wish(self, uid: int, node: Node, text: str) -> None:
        """Hoard an object as `600:d+` says, or no more for "" and "0". Raises CodaError EINVAL."""
        path = self._core.path(node)
        if text.strip() in ("", "0"):
            await self.remove(uid, path)
            return
        try:
            wish = parse_wish(text.strip())
        except ValueError as error:
            raise CodaError(Code.EINVAL, str(error)) from None
        await self.add(uid, path, wish)

    def tree_path(self, path: str) -> bytes:
        """Return a path from the root of the tree, written from there or from the mount point or `/coda`."""
        for top in (self.binder.mount_point, "/coda"):
            if top is not None and (path == top or path.startswith(top.rstrip("/") + "/")):
                path = path[len(top.rstrip("/")) :]
                break
        return path.encode("utf-8", "surrogateescape")
