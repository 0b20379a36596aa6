"""Hoarding over the control socket: the methods `hoard.*`, for the owner of the daemon."""

import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from realmfs.cache.hoard import HoardEntry
from realmfs.control.messages import Nothing
from realmfs.control.messages import hoard as messages
from realmfs.control.messages.pages import EvictedPage, HoardPage, Paged, ProblemPage, ProfilePage
from realmfs.control.pages import Lists, breathe, numbers_of, size_of
from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.control.service import Method
from realmfs.venus.hoard import Hoard
from realmfs.venus.hoardcontext import Census
from realmfs.venus.hoardlanguage import Wish, parse_wish
from realmfs.venus.hoardsurvey import NOT_BOUND, Lack, Survey
from realmfs.venus.venus import Venus
from realmfs.vice.errors import CodaError

T = TypeVar("T")


class HoardMethods:
    """The methods."""

    def __init__(self, venus: Venus) -> None:
        self._venus = venus
        self._hoard: Hoard = venus.hoard
        self._lacks: Lists[Lack] = Lists()
        self._evicted: Lists[tuple[str, int]] = Lists()
        self._profiles: Lists[messages.Profile] = Lists()

    def methods(self) -> dict[str, Method]:
        """Return the methods by name."""
        table: dict[str, tuple[type[Any], Callable[[Any], Awaitable[Any]]]] = {
            "hoard.list": (Paged, self.entries),
            "hoard.add": (messages.Add, self.add),
            "hoard.remove": (messages.Path, self.remove),
            "hoard.clear": (messages.Clear, self.clear),
            "hoard.walk": (Nothing, self.walk),
            "hoard.stop": (Nothing, self.stop),
            "hoard.status": (Nothing, self.status),
            "hoard.plan": (messages.Limited, self.plan),
            "hoard.verify": (messages.Limited, self.verify),
            "hoard.switch": (messages.Switch, self.switch),
            "hoard.problems": (Paged, self.problems),
            "hoard.evicted": (Paged, self.evicted),
            "hoard.profiles": (Paged, self.profiles),
            "hoard.profile": (messages.ProfileSwitch, self.profile),
            "hoard.learn.begin": (messages.Group, self.learn),
            "hoard.learn.end": (messages.Group, self.learned),
        }
        return {name: Method(shape, telling(run), owner_only=True) for name, (shape, run) in table.items()}

    # -- entries ---------------------------------------------------------------------------------------

    async def entries(self, params: Paged) -> HoardPage:
        """Return entries."""
        page: list[messages.Entry] = []
        limit = size_of(params.limit)
        for entry in self._venus.cache.hoard.after(numbers_of(params.cursor)[0], limit):
            page.append(self._entry(entry))
            await breathe(len(page))
        return HoardPage(page, str(page[-1].id) if len(page) == limit else None)

    def _entry(self, entry: HoardEntry) -> messages.Entry:
        volume = self._venus.core.volumes.by_key(entry.volume)
        context = self._hoard.contexts.roots.get(entry.id)
        survey = self._hoard.survey
        tally = survey.tallies.get(entry.id) if survey is not None else None
        place = entry.path.decode("utf-8", "surrogateescape")
        return messages.Entry(
            id=entry.id,
            path=self._hoard.path_of(entry),
            volume=f"{volume.id:x}",
            realm=volume.realm,
            place=f"./{place}" if place else ".",
            uid=entry.uid,
            priority=entry.priority,
            attributes=str(Wish(entry.priority, entry.expand)),
            profile=entry.profile,
            state=context.state.value if context is not None else "suspect",
            trouble=context.trouble if context is not None else "",
            bound=bool(context.number if context is not None else entry.bound),
            objects=tally.objects if tally is not None else None,
            bytes=tally.bytes if tally is not None else None,
            present=tally.present if tally is not None else None,
            present_bytes=tally.present_bytes if tally is not None else None,
        )

    async def add(self, params: messages.Add) -> list[messages.Entry]:
        """Hoard an object."""
        try:
            wish = parse_wish(params.attributes)
        except ValueError as error:
            raise ControlError(INVALID_PARAMS, f"{params.path}: {error}") from None
        made = await self._hoard.add(_uid(params.uid), params.path, wish)
        return [self._entry(entry) for entry in made]

    async def remove(self, params: messages.Path) -> messages.Removed:
        """Remove the entry of an object."""
        return messages.Removed(await self._hoard.remove(os.geteuid(), params.path))

    async def clear(self, params: messages.Clear) -> messages.Removed:
        """Remove the entries of a user, or all."""
        return messages.Removed(await self._hoard.clear(params.uid))

    # -- walks -----------------------------------------------------------------------------------------

    async def walk(self, params: Nothing) -> messages.Status:
        """Have a walk begin now; `hoard.status` tells how far it is."""
        self._hoard.demand()
        return self._status()

    async def stop(self, params: Nothing) -> messages.Status:
        """End the walk under way."""
        self._hoard.stop()
        return self._status()

    async def status(self, params: Nothing) -> messages.Status:
        """Tell how the hoard is."""
        return self._status()

    def _status(self) -> messages.Status:
        hoard = self._hoard
        progress, survey, last = hoard.progress, hoard.survey, hoard.last
        census = survey.census if survey is not None else Census()
        return messages.Status(
            on=hoard.on,
            hindrance=hoard.hindrance(),
            entries=self._venus.cache.hoard.count,
            walking=hoard.walking,
            walks=hoard.walks,
            phase=progress.phase if progress is not None else "",
            percent=progress.percent if progress is not None else 0,
            files=progress.files if progress is not None else 0,
            bytes=progress.fetched + progress.arriving if progress is not None else 0,
            files_left=progress.files_left if progress is not None else 0,
            bytes_left=progress.bytes_left if progress is not None else 0,
            eta=progress.eta if progress is not None else None,
            seconds=progress.seconds if progress is not None else 0.0,
            current=[self._venus.core.path(node) for node in progress.current.values()] if progress else [],
            last=None
            if last is None or hoard.last_walk is None
            else messages.Outcome(
                last.files, last.bytes, last.seconds, last.complete, trio.current_time() - hoard.last_walk
            ),
            ready=survey.ready if survey is not None else None,
            missing=len(survey.lacks) if survey is not None else 0,
            missing_bytes=survey.missing_bytes if survey is not None else 0,
            reasons=[f"{why} ({count})" for why, count in survey.reasons()] if survey is not None else [],
            valid=census.valid,
            suspect=census.suspect,
            indigent=census.indigent,
            inconsistent=census.inconsistent,
        )

    async def switch(self, params: messages.Switch) -> messages.Status:
        """Let walks begin by themselves, or not."""
        self._hoard.on = params.on
        return self._status()

    # -- what is missing -------------------------------------------------------------------------------

    async def plan(self, params: messages.Limited) -> messages.Plan:
        """Say what a walk would bring, and what would go."""
        plan = await self._hoard.plan()
        fetch, fetch_cursor = self._lacks.begin(plan.fetch, params.limit)
        short, short_cursor = self._lacks.begin(plan.short, params.limit)
        evict, evict_cursor = self._evicted.begin(plan.evict, params.limit)
        return messages.Plan(
            fetch=[_problem(lack) for lack in fetch],
            evict=[messages.Evicted(*one) for one in evict],
            short=[_problem(lack) for lack in short],
            fetched=_sum(plan.fetch),
            evicted=messages.Sum(len(plan.evict), sum(size for _, size in plan.evict)),
            lacking=_sum(plan.short),
            unknown=sum(lack.size is None for lack in plan.fetch),
            free=plan.free,
            fetch_cursor=fetch_cursor,
            evict_cursor=evict_cursor,
            short_cursor=short_cursor,
        )

    async def verify(self, params: messages.Limited) -> messages.Verified:
        """Say whether everything hoarded is here, and what is not."""
        survey = await self._hoard.look()
        keys = {context.entry.volume for context in self._hoard.contexts.roots.values()}
        volumes = [self._venus.core.volumes.by_key(key) for key in keys]
        missing = self._missing(survey)
        problems, cursor = self._lacks.begin(missing, params.limit)
        return messages.Verified(
            ready=survey.ready and not self._hoard.mistaken(),
            reachable=all(volume.reachable for volume in volumes),
            objects=survey.total.objects,
            bytes=survey.total.bytes,
            present=survey.total.present,
            present_bytes=survey.total.present_bytes,
            problems=[_problem(lack) for lack in problems],
            count=len(missing),
            cursor=cursor,
        )

    def _missing(self, survey: Survey) -> list[Lack]:
        mistakes = self._hoard.mistaken()
        return [Lack(str(one), 0, 0, NOT_BOUND, one.text, None) for one in mistakes] + survey.lacks

    async def problems(self, params: Paged) -> ProblemPage:
        """Return what is missing: as of the last survey, or the rest of what an answer has begun."""
        if params.cursor is not None:
            lacks, cursor = self._lacks.go_on(params.cursor, params.limit)
        else:
            survey = self._hoard.survey
            lacks, cursor = self._lacks.begin([] if survey is None else self._missing(survey), params.limit)
        return ProblemPage([_problem(lack) for lack in lacks], cursor)

    async def evicted(self, params: Paged) -> EvictedPage:
        """Return the rest of what would go by a plan."""
        if params.cursor is None:
            raise ControlError(INVALID_PARAMS, "this continues `hoard.plan`: give its `evict_cursor`")
        found, cursor = self._evicted.go_on(params.cursor, params.limit)
        return EvictedPage([messages.Evicted(*one) for one in found], cursor)

    # -- profiles and learning -------------------------------------------------------------------------

    async def profiles(self, params: Paged) -> ProfilePage:
        """Return profiles."""
        if params.cursor is not None:
            return ProfilePage(*self._profiles.go_on(params.cursor, params.limit))
        return ProfilePage(*self._profiles.begin(self._all_profiles(), params.limit))

    def _all_profiles(self) -> list[messages.Profile]:
        return [
            messages.Profile(
                one.name, one.path, one.enabled, one.entries, [str(each) for each in one.mistakes]
            )
            for one in self._hoard.profiles.all()
        ]

    async def profile(self, params: messages.ProfileSwitch) -> ProfilePage:
        """Enable or disable a profile; return the profiles."""
        await self._hoard.switch_profile(params.name, _uid(params.uid), params.enabled)
        return await self.profiles(Paged())

    async def learn(self, params: messages.Group) -> Nothing:
        """Watch what the processes of a session or group open."""
        self._hoard.learner.begin(params.group)
        return Nothing()

    async def learned(self, params: messages.Group) -> list[messages.Proposal]:
        """Watch no more, and propose what to hoard."""
        return [
            messages.Proposal(one.path, str(one.wish), one.files, one.size)
            for one in self._hoard.learner.end(params.group)
        ]


def telling(run: Callable[[Any], Awaitable[T]]) -> Callable[[Any], Awaitable[T]]:
    """Let errors say what they are about, not only their number."""

    @functools.wraps(run)
    async def told(params: Any) -> T:
        try:
            return await run(params)
        except CodaError as error:
            text = f"{error.text}: {os.strerror(error.errno)}" if error.text else os.strerror(error.errno)
            text = error.text if error.text.startswith("there is no ") else text
            raise ControlError.of_errno(error.errno, text) from error

    return told


def _uid(uid: int | None) -> int:
    return os.geteuid() if uid is None else uid


def _problem(lack: Lack) -> messages.Problem:
    return messages.Problem(lack.path, lack.priority, lack.verdict, lack.why, lack.size)


def _sum(lacks: list[Lack]) -> messages.Sum:
    return messages.Sum(len(lacks), sum(lack.size or 0 for lack in lacks))
