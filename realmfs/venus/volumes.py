"""All volumes that have been entered, by key; and the way from realm and volume names to them.

What realms knows (from DNS, servers, its own memory) comes first. What the cache remembers serves when
realms cannot tell: a tree that was seen once can be entered without any network.
"""

from collections.abc import Iterator

from realmfs.cache.cache import Cache
from realmfs.cache.inodes import volume_key
from realmfs.cache.volumes import ReplicaRow, VolumeRow
from realmfs.realms.realms import Realms
from realmfs.realms.server import Server
from realmfs.realms.tokens import Held
from realmfs.realms.volume import Volume
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code


class Volumes:
    """The table. `realms` is None until the cache manager is attached to the servers."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._by_key: dict[int, VolumeState] = {}
        self.realms: Realms | None = None

    def __iter__(self) -> Iterator[VolumeState]:
        return iter(list(self._by_key.values()))

    def by_key(self, key: int) -> VolumeState:
        """Return the volume of a key that the cache knows. Raises CodaError ENXIO for any other."""
        volume = self._by_key.get(key)
        if volume is None:
            row = self._cache.volumes.get(key)
            if row is None:
                raise CodaError(Code.ENXIO, f"volume {key:x}")
            volume = self._state(row)
        return volume

    def _state(self, row: VolumeRow) -> VolumeState:
        realm = self._cache.realms.get(row.realm).name
        volume = self._by_key[row.key] = VolumeState(row.key, realm, row.id, row.name)
        known = self.realms.realm_named(realm) if self.realms is not None else None
        volume.place = known.known_volume(row.id) if known is not None else None
        return volume

    def attach(self, realms: Realms) -> None:
        """Learn where volumes live from now on; those with pending changes are looked up at once."""
        self.realms = realms
        for key in self._cache.log.volumes():
            self.by_key(key)
        for volume in self:
            known = realms.realm_named(volume.realm)
            volume.place = known.known_volume(volume.id) if known is not None else None

    def of_server(self, server: Server) -> Iterator[VolumeState]:
        """Yield the volumes with a replica at a server."""
        for volume in self:
            if volume.place is not None and any(one.server is server for one in volume.place.replicas):
                yield volume

    # -- asking ----------------------------------------------------------------------------------------

    async def locate(self, volume: VolumeState) -> None:
        """Find out where a volume lives. Raises CodaError: ENOENT, ENXIO, ETIMEDOUT."""
        realm = await self._realms().realm(volume.realm)
        volume.place = await realm.volume_by_id(volume.id)

    async def root_of(self, realm_name: str) -> VolumeState:
        """Return the root volume of a realm.

        Raises CodaError: ENOENT no such realm, or nobody can tell; ETIMEDOUT its servers do not answer.
        """
        try:
            realm = await self._realms().realm(realm_name)
            place = await realm.volume(await realm.root_volume())
        except CodaError as error:
            known = self.known_root(realm_name)
            if known is not None and error.code is not Code.ENOENT:
                return known
            if error.code is Code.ETIMEDOUT and self._realms().realm_named(realm_name) is None:
                raise CodaError(Code.ENOENT, error.text) from None
            raise
        return self.found(realm.name, place, root=True)

    async def named(self, realm_name: str, name: str) -> VolumeState:
        """Return a volume by name. Raises CodaError: ENXIO no such volume, ETIMEDOUT nobody answers."""
        try:
            realm = await self._realms().realm(realm_name)
            return self.found(realm.name, await realm.volume(name))
        except CodaError as error:
            row = self._cache.realms.find(realm_name)
            known = self._cache.volumes.find(row.id, name) if row is not None else None
            if known is None or error.code is not Code.ETIMEDOUT:
                raise
            return self.by_key(known.key)

    def known_root(self, realm_name: str) -> VolumeState | None:
        """Return the root volume of a realm if it was ever entered, without asking anybody."""
        row = self._cache.realms.find(realm_name)
        if row is None or not row.root_volume:
            return None
        known = self._cache.volumes.find(row.id, row.root_volume)
        return None if known is None else self.by_key(known.key)

    def found(self, realm_name: str, place: Volume, *, root: bool = False) -> VolumeState:
        """Return the state of a volume that realms has found, and remember it."""
        known = self._cache.realms.find(realm_name)
        volume = self._by_key.get(volume_key(known.id, place.id)) if known is not None else None
        if (
            volume is None
            or volume.place is not place
            or (root and known and known.root_volume != place.name)
        ):
            volume = self._remember(realm_name, place, root)
        return volume

    def _remember(self, realm_name: str, place: Volume, root: bool) -> VolumeState:
        cache = self._cache
        replicas = tuple(
            ReplicaRow(one.slot, one.volume_id, f"{one.server.address[0]}:{one.server.address[1]}")
            for one in place.replicas
        )
        with cache.transaction():
            realm = cache.realms.add(realm_name)
            old = cache.volumes.get(volume_key(realm.id, place.id))
            stamps = old.stamps if old is not None else ()
            row = VolumeRow(realm.id, place.id, place.name, int(place.type), replicas, stamps)
            cache.volumes.save(row)
            if root and realm.root_volume != place.name:
                cache.realms.set_root_volume(realm.id, place.name)
        volume = self._by_key.get(row.key) or self._state(row)
        volume.name, volume.place = place.name, place
        return volume

    def realm_names(self) -> list[bytes]:
        """Return the names of all realms ever reached, in order."""
        names = {row.name for row in self._cache.realms.all() if row.root_volume}
        if self.realms is not None:
            names.update(self.realms.known())
        return sorted(name.encode() for name in names)

    def identity(self, volume: VolumeState, uid: int) -> str:
        """Return whom servers take a user for, or took before his token expired: `id@realm`; '' is nobody."""
        held = self._held(volume, uid)
        return "" if held is None else held.identity

    def last_identity(self, volume: VolumeState, uid: int) -> str:
        """Return whom servers took a user for when he last had a token, unless he logged out: `id@realm`."""
        vice_id = self._cache.identities.get(volume.realm_id, uid)
        return "" if vice_id is None else f"{vice_id}@{volume.realm}"

    def may_send(self, volume: VolumeState, uid: int, identity: str) -> bool:
        """Tell whether changes that a user made as `identity` can be sent now.

        They are never sent as somebody else. Those of nobody ('') go as whoever the user is by now, but not
        behind the back of an expired token.
        """
        held = self._held(volume, uid)
        if held is None:
            return not identity
        return held.usable and identity in ("", held.identity)

    def has_token(self, volume: VolumeState, uid: int) -> bool:
        """Tell whether a user has a token that may be sent."""
        held = self._held(volume, uid)
        return held is not None and held.usable

    def _held(self, volume: VolumeState, uid: int) -> Held | None:
        return None if self.realms is None else self.realms.tokens.get(volume.realm, uid)

    def _realms(self) -> Realms:
        if self.realms is None:
            raise CodaError(Code.ETIMEDOUT, "not attached to any servers")
        return self.realms
