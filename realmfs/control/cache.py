"""The cache over the control socket: the methods `cache.*`, for the owner of the daemon."""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing

from realmfs.control.hoard import telling
from realmfs.control.messages import Nothing, hoard
from realmfs.control.messages import cache as messages
from realmfs.control.messages.pages import CachePage
from realmfs.control.pages import breathe, numbers_of, size_of
from realmfs.control.protocol import FAILED, INVALID_PARAMS, ControlError, Kind
from realmfs.control.service import Method
from realmfs.control.walk import Walk
from realmfs.venus.custody import Custody
from realmfs.venus.face import Caller
from realmfs.venus.venus import Venus

_SMALLEST = 2 << 20


class CacheMethods:
    """The methods."""

    def __init__(self, venus: Venus) -> None:
        self._venus = venus
        self._custody = Custody(venus.core)

    def methods(self) -> dict[str, Method]:
        """Return the methods by name."""
        return {
            "cache.usage": Method(Nothing, self.usage),
            "cache.list": Method(messages.Listing, telling(self.list), owner_only=True),
            "cache.flush": Method(messages.Flush, telling(self.flush), owner_only=True),
            "cache.fetch": Method(messages.Fetch, telling(self.fetch), owner_only=True),
            "cache.limit": Method(messages.Limit, telling(self.limit), owner_only=True),
        }

    async def usage(self, params: Nothing) -> messages.Usage:
        """Tell how full the cache is."""
        cache = self._venus.cache
        hoarded = await self._custody.hoarded()
        return messages.Usage(
            size=cache.limits.bytes,
            used=cache.containers.used,
            free=cache.free(),
            objects=cache.objects.count,
            objects_limit=cache.limits.objects,
            pending=cache.log.count,
            pending_bytes=sum(cache.log.summary(key).bytes for key in cache.log.volumes()),
            pending_limit=cache.limits.log_records,
            hoarded=hoarded.objects,
            hoarded_bytes=hoarded.bytes,
            directory=str(cache.directory),
        )

    async def list(self, params: messages.Listing) -> CachePage:
        """List cached objects in order of their numbers."""
        found: list[messages.Cached] = []
        limit, seen = size_of(params.limit), 0
        async with aclosing(self._numbers(params)) as numbers:
            async for number in numbers:
                described = self._describe(number)
                if described is not None and params.validity in (None, described.valid):
                    found.append(described)
                if len(found) == limit:
                    return CachePage(found, str(number))
                seen += 1
                await breathe(seen)
        return CachePage(found, None)

    def _numbers(self, params: messages.Listing) -> AsyncGenerator[int, None]:
        return self._custody.numbers(self._volume(params.volume), numbers_of(params.cursor)[0])

    def _volume(self, name: str | None) -> int | None:
        if name is None:
            return None
        for row in self._venus.cache.volumes.all():
            realm = self._venus.cache.realms.get(row.realm).name
            if name in (f"{row.name}@{realm}", f"{row.id:x}@{realm}", row.name):
                return row.key
        raise ControlError(INVALID_PARAMS, f"there is no volume {name} in the cache. See `realmfs volumes`")

    def _describe(self, number: int) -> messages.Cached | None:
        core = self._venus.core
        row, node = core.cache.objects.load(number), core.nodes.cached(number)
        if row is None or node is None:
            return None
        return messages.Cached(
            number=number,
            path=core.path(node),
            fid=str(node.fid),
            volume=f"{node.volume.name}@{node.volume.realm}",
            type=self._custody.type_of(node),
            size=node.status.length if node.status is not None else 0,
            state=self._venus.xattrs.state(node),
            valid=node.valid and not node.dirty,
            hoard=row.hoard,
            priority=self._custody.priority(row),
        )

    async def flush(self, params: messages.Flush) -> hoard.Sum:
        """Drop what can be dropped."""
        volumes = [volume for volume in self._venus.core.volumes if volume.key]
        if not params.force and any(not volume.reachable for volume in volumes):
            text = "servers are away, so what is dropped could not be fetched again. Use --force"
            raise ControlError(FAILED, text, kind=Kind.UNREACHABLE)
        if params.path is None:
            dropped = await self._custody.drop_all()
            return hoard.Sum(dropped.objects, dropped.bytes)
        walk = Walk(self._venus, Caller(os.geteuid(), os.getegid(), 0, kernel=False))
        try:
            attr = await walk.to(params.path, follow=False)
        finally:
            walk.give_back()
        dropped = await self._custody.drop(self._venus.core.nodes.by_number(attr.ino))
        return hoard.Sum(dropped.objects, dropped.bytes)

    async def fetch(self, params: messages.Fetch) -> hoard.Verified:
        """Bring an object, or a tree, without hoarding it."""
        outcome = await self._venus.hoard.fetch(os.geteuid(), params.path, recursive=params.recursive)
        survey = outcome.survey
        return hoard.Verified(
            ready=survey.ready,
            reachable=True,
            objects=survey.total.objects,
            bytes=survey.total.bytes,
            present=survey.total.present,
            present_bytes=survey.total.present_bytes,
            problems=[
                hoard.Problem(lack.path, 0, lack.verdict, lack.why, lack.size) for lack in survey.lacks[:100]
            ],
            count=len(survey.lacks),
        )

    async def limit(self, params: messages.Limit) -> messages.Usage:
        """Give the cache another size until the daemon ends."""
        if params.size < _SMALLEST:
            raise ControlError(INVALID_PARAMS, "a cache has at least 2 MiB")
        await self._custody.resize(params.size)
        return await self.usage(Nothing())
