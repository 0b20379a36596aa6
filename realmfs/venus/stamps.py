"""Version stamps of volumes: one call instead of one for every fifty objects after a restart (client.md §3).

When every cached object of a volume is valid, which a hoard walk sees to, the servers are asked for the
volume's stamps, and for the promise to tell of any change in it. The stamps are kept on disk. After a
restart, or when a server came back, the first who needs an object of the volume has them shown to the
servers, together with those of up to 50 volumes on the same servers: if nothing has changed there, every
cached object of theirs is valid at once. So a return costs one call for each group of servers.

Such objects have no promise of their own. So when a server then tells of a change in the volume, all of them
are suspect; objects that were promised one by one are told of one by one. Any change voids the stamps.
"""

from collections.abc import Hashable

import trio

from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError

FEWEST = 2
"""Objects from which on stamps are worth while."""
MOST = 50
"""Volumes in one call (client.md §3)."""
ROUNDS = 3
"""How often servers are asked again because one of them came up meanwhile, as all do after a start."""


class VolumeStamps:
    """Gains, shows and voids stamps."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._held: dict[int, int] = {}  # volume key: its count of lost promises when ours was given
        self._asked: dict[int, int] = {}  # the same count when the stamps were last shown
        self._showing: dict[Hashable, trio.Lock] = {}  # by servers: one call at a time
        self._derived: set[int] = set()  # volumes with objects that rest on the volume's promise alone

    def hold(self, volume: VolumeState) -> bool:
        """Tell whether servers have promised to tell of any change in the volume."""
        return self._held.get(volume.key) == volume.lost

    async def show(self, volume: VolumeState, uid: int) -> bool:
        """Show the stamps on disk, its neighbours' too; tell if nothing has changed. Raises CodaError."""
        async with self._showing.setdefault(_place(volume), trio.Lock()):
            if self.hold(volume):
                return True  # somebody has shown them while we waited
            await self._core.group(volume).meet()
            for _ in range(ROUNDS):
                batch = self._batch(volume)
                if not batch or batch[0][0] is not volume:
                    return False
                lost = [one.lost for one, _ in batch]
                with self._core.call("ValidateVols", f"{volume.name} [{len(batch)}]"):
                    known = [(one.id, stamps) for one, stamps in batch]
                    flags = await self._core.group(volume).validate_volumes(known, uid)
                for (one, _), before, flag in zip(batch, lost, flags, strict=True):
                    if flag < 0:
                        self._erase(one)
                    elif flag > 0 and one.lost == before:
                        self._held[one.key] = before
                if flags[0] <= 0 or self.hold(volume):
                    return flags[0] > 0
            return False

    def _batch(self, volume: VolumeState) -> list[tuple[VolumeState, tuple[int, ...]]]:
        """Return the volumes on the same servers with stamps to show, this one first, if it has any."""
        found = []
        for row in self._core.cache.volumes.all():
            one = self._core.volumes.by_key(row.key)
            if row.stamps and not self.hold(one) and one.place is not None and _place(one) == _place(volume):
                found.append((one, row.stamps))
        found.sort(key=lambda pair: pair[0] is not volume)
        return found[:MOST]

    async def covers(self, node: Node, uid: int) -> bool:
        """Take a cached object for valid if nothing has changed in its volume, and tell whether that is so.

        The servers are asked once after each time that promises were lost.
        """
        volume = node.volume
        if node.status is None or node.stale or node.newer or not node.stored or not volume.key:
            return False
        if not self.hold(volume):
            if self._asked.get(volume.key) == volume.lost or not self._has_stamps(volume):
                return False
            await shown(self, volume, uid)
            self._asked[volume.key] = volume.lost
        if not self.hold(volume):
            return False
        self.cover(node)
        return True

    def _has_stamps(self, volume: VolumeState) -> bool:
        row = self._core.cache.volumes.get(volume.key)
        return row is not None and bool(row.stamps)

    def cover(self, node: Node) -> None:
        """Take an object for valid because its volume is."""
        node.promise = node.sample()
        self._derived.add(node.volume.key)

    async def gain(self, volume: VolumeState, uid: int) -> bool:
        """Ask for stamps if every cached object is valid; tell whether we hold some. Raises CodaError."""
        if self.hold(volume):
            return True
        if not self._all_valid(volume):
            return False
        lost = volume.lost
        with self._core.call("GetVolVS", volume.name):
            stamps = await self._core.group(volume).volume_stamps(uid)
        if not stamps.promised or volume.lost != lost or not self._all_valid(volume):
            return False
        with self._core.cache.transaction():
            self._core.cache.volumes.set_stamps(volume.key, stamps.stamps)
        self._held[volume.key] = lost
        return True

    def _all_valid(self, volume: VolumeState) -> bool:
        count = self._core.cache.objects.count_in(volume.key)
        here = sum(node.stored for node in volume.in_memory())
        if count < FEWEST or here < count or self._core.cache.log.summary(volume.key).records:
            return False
        return all(node.valid for node in volume.in_memory() if node.stored)

    def broken(self, volume: VolumeState) -> None:
        """Something in the volume has changed: never waits."""
        if volume.key in self._derived:
            self._derived.discard(volume.key)
            volume.lost += 1
            for node in volume.in_memory():
                if not node.valid:
                    self._core.kernel_forget(node)
        if self._held.pop(volume.key, None) is not None:
            self._erase(volume)

    def _erase(self, volume: VolumeState) -> None:
        self._held.pop(volume.key, None)
        if self._core.cache.damage is None:
            with self._core.cache.transaction():
                self._core.cache.volumes.set_stamps(volume.key, ())


def _place(volume: VolumeState) -> Hashable:
    """Return what volumes on the same servers, in the same order, have in common."""
    if volume.place is None:
        return volume.key
    return volume.realm, tuple((one.slot, one.server.address) for one in volume.place.replicas)


async def shown(stamps: VolumeStamps, volume: VolumeState, uid: int) -> bool:
    """Show stamps; servers that cannot be asked have not confirmed them."""
    try:
        return stamps.hold(volume) or await stamps.show(volume, uid)
    except CodaError:
        return False
