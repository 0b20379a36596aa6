"""Mount points of volumes: the methods `mountpoints.make`, `.show` and `.remove`.

A mount point is a symbolic link of mode 0644 (directories.md §4.1). On the way down the volume's root covers
it, so that it is looked up here uncovered, by the directory that holds it.
"""

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from realmfs.control import messages
from realmfs.control.messages import volumes
from realmfs.control.protocol import INVALID_PARAMS, ControlError
from realmfs.control.service import Method
from realmfs.control.walk import Walk
from realmfs.venus.face import Caller
from realmfs.venus.making import MakeSymlink
from realmfs.venus.node import Node
from realmfs.venus.removing import RemoveName
from realmfs.venus.resolve import may_be_mount_link
from realmfs.venus.venus import Venus
from realmfs.vice.errors import CodaError
from realmfs.vice.mountlink import MOUNT_MODE, VolumeMount, format_mount_link, parse_mount_link

_WITHIN = 30.0


class MountPoints:
    """The methods."""

    def __init__(self, venus: Venus) -> None:
        self._venus = venus

    def methods(self, caller: Caller) -> Mapping[str, Method]:
        """Return them for one caller, whose rights in the directory count."""

        async def make(params: volumes.MakeMountPoint) -> volumes.MountPoint:
            return await self._make(caller, params)

        async def show(params: messages.PathOf) -> volumes.MountPoint:
            async with self._place(caller, params.path) as (above, name):
                return await self._told(caller, above, name, params.path)

        async def remove(params: messages.PathOf) -> volumes.MountPoint:
            return await self._remove(caller, params)

        return {
            "mountpoints.make": Method(volumes.MakeMountPoint, make),
            "mountpoints.show": Method(messages.PathOf, show),
            "mountpoints.remove": Method(messages.PathOf, remove),
        }

    @asynccontextmanager
    async def _place(self, caller: Caller, path: str) -> AsyncIterator[tuple[Node, bytes]]:
        """Walk to the directory that holds a name, and bound in time what is done there."""
        walk = Walk(self._venus, caller)
        try:
            attr, name = await walk.to_parent(path)
            above = self._venus.core.nodes.by_number(attr.ino)
            if above is self._venus.core.top:
                raise ControlError(INVALID_PARAMS, "realms are mounted by themselves", number=errno.EINVAL)
            with trio.move_on_after(_WITHIN) as patience:
                yield above, name
            if patience.cancelled_caught:
                raise ControlError.of_errno(errno.ETIMEDOUT, f"/{path}: no answer in {_WITHIN:.0f} s")
        except CodaError as error:
            raise ControlError.of_errno(error.errno, f"/{path}: {os.strerror(error.errno)}") from error
        finally:
            walk.give_back()

    async def _told(self, caller: Caller, above: Node, name: bytes, path: str) -> volumes.MountPoint:
        node = await self._venus.resolver.entry(caller, above, name)
        if node is None:
            raise ControlError.of_errno(errno.ENOENT, f"/{path}: {os.strerror(errno.ENOENT)}")
        text = await self._venus.fetcher.link(node, caller.uid) if may_be_mount_link(node) else b""
        mount = parse_mount_link(text)
        if not isinstance(mount, VolumeMount):
            raise ControlError.of_errno(
                errno.EINVAL, f"/{path} is no mount point of a volume. See `realmfs stat`"
            )
        own = path.strip("/").partition("/")[2] if mount.is_own_path else ""
        realm = mount.realm or above.volume.realm
        return volumes.MountPoint(path, text.decode("utf-8", "replace"), mount.volume or own, realm)

    async def _make(self, caller: Caller, params: volumes.MakeMountPoint) -> volumes.MountPoint:
        """Make the link; the volume need not exist yet."""
        text = format_mount_link(VolumeMount(params.volume, ""))
        if "@" in params.volume or parse_mount_link(text) != VolumeMount(params.volume, ""):
            raise ControlError(INVALID_PARAMS, f"no volume can be named {params.volume[:40]!r}")
        async with self._place(caller, params.path) as (above, name):
            await MakeSymlink(self._venus.tools, caller, above, name, text, mode=MOUNT_MODE).run()
            return await self._told(caller, above, name, params.path)

    async def _remove(self, caller: Caller, params: messages.PathOf) -> volumes.MountPoint:
        """Remove the link, not the volume. Servers refuse that later to all but administrators."""
        async with self._place(caller, params.path) as (above, name):
            told = await self._told(caller, above, name, params.path)
            await RemoveName(self._venus.tools, caller, above, name, directory=False, mount_point=True).run()
            return told
