"""Version stamps of volumes: one call instead of one for every fifty objects after a restart (client.md §3).

A hoard walk that found every cached object of a volume valid asks the servers for the volume's stamps, and
for the promise to tell of any change in it. The stamps are kept on disk. The first walk after a restart shows
them to the servers: if nothing has changed there, every cached object is valid at once.

Such objects have no promise of their own. So when a server then tells of a change in the volume, all of them
are suspect; objects that were promised one by one are told of one by one. Any change voids the stamps.
"""

from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError

FEWEST = 2
"""Objects from which on stamps are worth while."""
ROUNDS = 3
"""How often servers are asked again because one of them came up meanwhile, as all do after a start."""


class VolumeStamps:
    """Gains, shows and voids stamps."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._held: dict[int, int] = {}  # volume key: its count of lost promises when ours was given
        self._derived: set[int] = set()  # volumes with objects that rest on the volume's promise alone

    def hold(self, volume: VolumeState) -> bool:
        """Tell whether servers have promised to tell of any change in the volume."""
        return self._held.get(volume.key) == volume.lost

    async def show(self, volume: VolumeState, uid: int) -> bool:
        """Show the stamps on disk; tell whether nothing has changed. Raises CodaError."""
        row = self._core.cache.volumes.get(volume.key)
        if row is None or not row.stamps:
            return False
        for _ in range(ROUNDS):
            lost = volume.lost
            with self._core.call("ValidateVols", f"{volume.name} [1]"):
                (flag,) = await self._core.group(volume).validate_volumes([(volume.id, row.stamps)], uid)
            if flag < 0:
                self._erase(volume)
            if flag <= 0:
                return False
            if volume.lost == lost:
                self._held[volume.key] = lost
                return True
        return False

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


async def shown(stamps: VolumeStamps, volume: VolumeState, uid: int) -> bool:
    """Show stamps; servers that cannot be asked have not confirmed them."""
    try:
        return stamps.hold(volume) or await stamps.show(volume, uid)
    except CodaError:
        return False
