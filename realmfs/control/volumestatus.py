"""What a volume's servers say about it and where it is mounted: `volumes.status`, `.path`, `.set_quota`."""

import errno
from collections.abc import Mapping

from realmfs.control import messages
from realmfs.control.messages import volumes
from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.control.service import Method
from realmfs.control.walk import Walk
from realmfs.venus.core import Core
from realmfs.venus.face import Caller, FileSystem
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError
from realmfs.vice.types import Fid


class VolumeStatuses:
    """The method; `core` knows which volume an object is of."""

    def __init__(self, files: FileSystem, core: Core) -> None:
        self._files = files
        self._core = core

    def methods(self, caller: Caller) -> Mapping[str, Method]:
        """Return it for one caller."""

        async def status(params: volumes.VolumeOf) -> volumes.VolumeStatus:
            return await self._status(caller, params)

        async def set_quota(params: volumes.SetQuota) -> volumes.VolumeStatus:
            return await self._set_quota(caller, params)

        async def path_of_fid(params: messages.FidOf) -> messages.PathOf:
            return await self._path_of_fid(caller, params)

        return {
            "volumes.set_quota": Method(volumes.SetQuota, set_quota),
            "volumes.status": Method(volumes.VolumeOf, status),
            "volumes.path": Method(volumes.VolumeId, self._path),
            "path.of_fid": Method(messages.FidOf, path_of_fid),
        }

    async def _path_of_fid(self, caller: Caller, params: messages.FidOf) -> messages.PathOf:
        """Tell where a cached object is, to who may look there."""
        text = f"{params.fid[:40]}@{params.realm[:80]}"
        try:
            fid = Fid(*(int(part, 16) for part in params.fid.split(".")))
        except (TypeError, ValueError):
            what = f"{text} is no fid. One looks like 7f000000.1.1, as `realmfs stat` shows it"
            raise ControlError(INVALID_PARAMS, what, number=errno.EINVAL) from None
        unknown = ControlError.of_errno(
            errno.ENOENT, f"{text} is not cached here, so its path is not known. Look at it by a path first"
        )
        row = self._core.cache.realms.find(params.realm)
        found = None if row is None else self._core.cache.objects.find(row.id, fid)
        node = None if found is None else self._core.nodes.cached(found.number)
        if node is None:
            raise unknown
        path = self._core.path(node).strip("/")
        walk = Walk(self._files, caller)
        try:
            seen = (await walk.to(path, follow=False)).ino
        finally:
            walk.give_back()
        if seen != node.ino:
            raise unknown
        return messages.PathOf(path)

    async def _path(self, params: volumes.VolumeId) -> messages.PathOf:
        """Tell the path of a volume's root."""
        for row in self._core.cache.volumes.all():
            if row.id == params.id and self._core.cache.realms.get(row.realm).name == params.realm:
                volume = self._core.volumes.by_key(row.key)
                root = self._core.nodes.get(volume, volume.root)
                return messages.PathOf(self._core.path(root).strip("/"))
        raise ControlError.of_errno(
            errno.ENOENT, f"volume {params.id:x} of {params.realm} is not known here. See `realmfs volumes`"
        )

    async def _volume(self, caller: Caller, path: str) -> VolumeState:
        """Return the volume that holds the object at a path."""
        walk = Walk(self._files, caller)
        try:
            return self._core.nodes.by_number((await walk.to(path)).ino).volume
        finally:
            walk.give_back()

    async def _set_quota(self, caller: Caller, params: volumes.SetQuota) -> volumes.VolumeStatus:
        """Set the quota at the servers, who judge whether the caller may; return what then stands there."""
        if not 0 <= params.max_quota < 1 << 31:
            raise ControlError(INVALID_PARAMS, "a quota is less than 2 TiB", number=errno.EINVAL)
        volume = await self._volume(caller, params.path)
        name = f"{volume.name}@{volume.realm}"
        if not volume.reachable:
            raise ControlError.of_errno(errno.ETIMEDOUT, f"{name}: no server of it answers")
        try:
            await self._core.group(volume).set_volume_status(
                self._core.cache.log.new_store_id(), caller.uid, max_quota=params.max_quota
            )
        except CodaError as error:
            denied = error.errno in (errno.EACCES, errno.EPERM)
            why = "only the realm's administrators set quotas. Are you logged in as one?" if denied else error
            raise ControlError.of_errno(error.errno, f"{name}: {why}") from error
        return await self._status(caller, volumes.VolumeOf(params.path))

    async def _status(self, caller: Caller, params: volumes.VolumeOf) -> volumes.VolumeStatus:
        """Tell of the volume that holds the object at a path; its servers are asked unless `local`."""
        volume = await self._volume(caller, params.path)
        waiting = self._core.cache.log.summary(volume.key)
        place = volume.place
        told = None
        if not params.local and volume.reachable:
            try:
                told = await self._core.group(volume).volume_status(caller.uid)
            except CodaError as error:
                raise ControlError.of_errno(error.errno, f"{volume.name}@{volume.realm}: {error}") from error
        quota = None if told is None else told.status
        return volumes.VolumeStatus(
            realm=volume.realm,
            name=volume.name,
            id=volume.id,
            type=0 if quota is None else quota.type,
            state=volume.state.value,
            pending=waiting.records,
            pending_bytes=waiting.bytes,
            conflict=any(each.volume is volume for each in self._core.conflicts.all()),
            offline="" if told is None else told.offline.decode("utf-8", "replace"),
            motd="" if told is None else told.motd.decode("utf-8", "replace"),
            max_quota=None if quota is None else quota.max_quota,
            blocks_used=None if quota is None else quota.blocks_in_use,
            partition_free=None if quota is None else quota.partition_available,
            partition_size=None if quota is None else quota.partition_blocks,
            replicas=[
                volumes.Replica(one.slot, f"{one.volume_id:x}", one.server.address[0])
                for one in (() if place is None else place.replicas)
            ],
        )
