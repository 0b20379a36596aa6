"""The versions of an object in conflict: what its view holds (conflicts.py).

Our own is the object itself. That of a server is read from its replica alone, through the replica's own
volume: a volume like any other to the ring below, not replicated and read-only, whose servers are asked not
to mind conflicts. So all that fetches, lists and caches serves replicas as well.

What a name is at a server need not be the same object as here: two clients may have made one each. Then the
server's version is what it has under the name.
"""

from dataclasses import dataclass

from realmfs.realms.volume import Replica
from realmfs.venus.conflicts import LOCAL
from realmfs.venus.core import Core
from realmfs.venus.face import Caller
from realmfs.venus.fetch import Fetcher
from realmfs.venus.node import Node
from realmfs.venus.validity import Validator
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import Create, MakeDir, Remove, RemoveDir, SymLink
from realmfs.vice.types import Fid, VolumeType

_MAKES = frozenset(kind.OPCODE for kind in (Create, MakeDir, SymLink))
_REMOVALS = frozenset(kind.OPCODE for kind in (Remove, RemoveDir))
_ABSENT = frozenset({Code.ENOENT, Code.VNOVNODE, Code.ENOTDIR})


@dataclass(frozen=True, slots=True)
class Version:
    """One version: the name it has in the view, and its node; `replica` is None for our own."""

    name: bytes
    node: Node
    replica: Replica | None


class Versions:
    """Finds them."""

    def __init__(self, core: Core, validator: Validator, fetcher: Fetcher) -> None:
        self._core = core
        self._validator = validator
        self._fetcher = fetcher

    async def all(self, caller: Caller, node: Node) -> list[Version]:
        """Return what there is now: ours first, then those of the servers that are up, by slot."""
        versions = []
        ours = self.ours(node)
        if ours is not None:
            versions.append(Version(LOCAL, ours, None))
        for name, replica in self._replicas(node).items():
            if not replica.server.available:
                continue
            try:
                theirs = await self._theirs(node, replica, name, caller.uid)
            except CodaError as error:
                if error.code is not Code.ETIMEDOUT:
                    raise
                continue
            if theirs is not None:
                versions.append(Version(name, theirs, replica))
        return versions

    async def names(self, caller: Caller, node: Node) -> list[bytes]:
        """Return the names of all versions."""
        return [version.name for version in await self.all(caller, node)]

    async def named(self, caller: Caller, node: Node, name: bytes) -> Node | None:
        """Return the version of that name; None if there is none. Raises CodaError: ETIMEDOUT."""
        if name == LOCAL:
            return self.ours(node)
        replica = self._replicas(node).get(name)
        if replica is None:
            return None
        if not replica.server.available:
            raise CodaError(Code.ETIMEDOUT, f"{replica.server} does not answer")
        return await self._theirs(node, replica, name, caller.uid)

    def ours(self, node: Node) -> Node | None:
        """Return the object as it is here, if changes of it were refused and it was not removed."""
        heir = self._core.conflicts.heir(node.ino)
        if heir is not None:
            return heir[0]
        held = self._core.conflicts.held(node.ino)
        if not held or any(entry.opcode in _REMOVALS for entry in held):
            return None
        return node

    def is_made_here(self, node: Node) -> bool:
        """Tell whether no server has the object yet."""
        return any(entry.opcode in _MAKES for entry in self._core.conflicts.about(node.ino))

    def _replicas(self, node: Node) -> dict[bytes, Replica]:
        """Return the replicas by the names of their servers, each unique."""
        place = node.volume.place
        if place is None or place.type is not VolumeType.REPLICATED:
            return {}
        names = [str(replica.server) for replica in place.replicas]
        found = {}
        for replica, name in zip(place.replicas, names, strict=True):
            if names.count(name) > 1:
                name = "{}:{}".format(*replica.server.address)
            found[name.encode()] = replica
        return found

    async def _theirs(self, node: Node, replica: Replica, name: bytes, uid: int) -> Node | None:
        """Return the version at one server; None if it has none."""
        try:
            volume = await self.replica_volume(node.volume, replica)
            other = self.is_made_here(node) or self._core.conflicts.heir(node.ino) is not None
            found = None if other else await self._by_fid(volume, node.fid, uid)
            if found is None:
                found = await self._by_name(volume, node, uid)
        except CodaError as error:
            if error.code in _ABSENT:
                return None
            raise
        if found is not None:
            found.parent, found.name = 0, name
        return found

    async def replica_volume(self, volume: VolumeState, replica: Replica) -> VolumeState:
        """Return the volume that is one replica of another. Raises CodaError ETIMEDOUT."""
        realm = volume.place.realm if volume.place is not None else None
        if realm is None:
            raise CodaError(Code.ETIMEDOUT, volume.name)
        return self._core.volumes.found(volume.realm, await realm.volume_by_id(replica.volume_id))

    async def _by_fid(self, volume: VolumeState, fid: Fid, uid: int) -> Node | None:
        node = self._core.nodes.get(volume, Fid(volume.id, *fid[1:]))
        try:
            await self._validator.status(node, uid)
        except CodaError as error:
            if error.code in _ABSENT:
                return None
            raise
        # It may have changed while somebody has it open: then the fid means another node now.
        return (
            self._core.nodes.get(volume, Fid(volume.id, *fid[1:])) if node.replaced or not node.gone else None
        )

    async def _by_name(self, volume: VolumeState, node: Node, uid: int) -> Node | None:
        view = self._core.conflicts.shown(node)
        number, name = (view.parent, view.name) if view.parent else (node.parent, node.name)
        if not number:
            return None
        above = self._core.nodes.by_number(number)
        if above.volume is not node.volume:
            return None
        parent = await self._by_fid(volume, above.fid, uid)
        if parent is None:
            return None
        found = (await self._fetcher.directory(parent, uid)).lookup(name)
        return None if found is None else await self._by_fid(volume, Fid(volume.id, *found), uid)
