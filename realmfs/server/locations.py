"""Where all volumes of the realm live, wherever that is: the tables `location` and `replica` (vice.md §1.2).

The same at every server of the realm (realmdb.py), so that any of them can be asked.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from realmfs.server.access import Acl
from realmfs.server.database import Database, StoreError
from realmfs.server.volumes import MAX_NAME, ServerAddress
from realmfs.vice.types import VSG_MEMBERS, VolumeInfo, VolumeType


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica: its index in version vectors, its id, and the number of its server."""

    slot: int
    id: int
    server: int


@dataclass(frozen=True, slots=True)
class Location:
    """A volume of the realm, and what every server makes its root from."""

    group_id: int
    name: str
    created: int
    owner: int
    acl: Acl
    quota: int
    replicas: tuple[Replica, ...]

    def at(self, server: int) -> Replica | None:
        """Return the replica at a server, if there is one."""
        return next((replica for replica in self.replicas if replica.server == server), None)

    def info(self, asked: int, servers: dict[int, ServerAddress]) -> VolumeInfo:
        """Return what clients are told of the volume, or of the one replica whose id was asked for."""
        if asked == self.group_id:
            ids = tuple(replica.id for replica in self.replicas)
            addresses = tuple(_word(servers.get(replica.server)) for replica in self.replicas)
            related = (0, 0, 0, self.group_id, 0)
            padded = ids + (0,) * (VSG_MEMBERS - len(ids))
            return VolumeInfo(asked, VolumeType.REPLICATED, related, addresses, padded)
        server = next(replica.server for replica in self.replicas if replica.id == asked)
        related = (asked, 0, 0, self.group_id, 0)
        return VolumeInfo(
            asked, VolumeType.READ_WRITE, related, (_word(servers.get(server)),), (0,) * VSG_MEMBERS
        )


class Locations:
    """All volumes of the realm."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Location]:
        """Return all volumes, by id."""
        rows = self._database.rows("SELECT * FROM location ORDER BY group_id")
        return [self._location(row) for row in rows]

    def named(self, name: str) -> Location | None:
        """Return the volume of this name."""
        row = self._database.row("SELECT * FROM location WHERE name = ?", name)
        return self._location(row) if row else None

    def find(self, number: int) -> Location | None:
        """Return the volume with this id, be it the volume's own or a replica's."""
        row = self._database.row(
            "SELECT * FROM location WHERE group_id = ?1 OR group_id = "
            "(SELECT group_id FROM replica WHERE id = ?1)", number
        )  # fmt: skip
        return self._location(row) if row else None

    def add(
        self, name: str, realm: str, servers: Sequence[int], owner: int, acl: Acl, quota: int = 0
    ) -> Location:
        """Give a new volume its ids and places, slot by slot in the order of `servers`.

        Serial numbers start somewhere that depends on the realm: a client of several realms then hardly ever
        meets the same volume id twice, which not every client takes well. Raises StoreError if the name is
        taken or impossible, or there are too many replicas.
        """
        possible = 0 < len(name.encode()) <= MAX_NAME and "@" not in name and name.isprintable()
        if not possible or name.strip() != name:
            raise StoreError(f"{name!r} cannot be a volume's name: 1 to {MAX_NAME} bytes, no @")
        if name.isdecimal() or self.named(name):
            raise StoreError(f"the name {name} is taken, or is a number")
        if not 0 < len(set(servers)) == len(servers) <= VSG_MEMBERS:
            raise StoreError(f"a volume has 1 to {VSG_MEMBERS} replicas at different servers")
        top = self._database.row("SELECT max(group_id) FROM location")[0]
        serial = (top & 0xFFFFFF) + 1 if top else 1 + zlib.crc32(realm.encode()) % 0xF00000
        group = 0x7F << 24 | serial
        self._database.execute(
            "INSERT INTO location VALUES (?, ?, ?, ?, ?, ?)",
            (group, name, int(time.time()), owner, acl.pack(), quota),
        )
        for slot, server in enumerate(servers):
            self._database.execute(
                "INSERT INTO replica VALUES (?, ?, ?, ?)", (group, slot, server << 24 | serial, server)
            )
        made = self.find(group)
        assert made is not None
        return made

    def remove(self, group: int) -> None:
        """Forget a volume."""
        self._database.execute("DELETE FROM replica WHERE group_id = ?", (group,))
        self._database.execute("DELETE FROM location WHERE group_id = ?", (group,))

    def _location(self, row: tuple[int, str, int, int, bytes, int]) -> Location:
        group, name, created, owner, acl, quota = row
        replicas = self._database.rows(
            "SELECT slot, id, server FROM replica WHERE group_id = ? ORDER BY slot", group
        )
        places = tuple(Replica(*replica) for replica in replicas)
        return Location(group, name, created, owner, Acl.unpack(acl), quota, places)


def _word(server: ServerAddress | None) -> int:
    """Return an address as a number; a server never heard of has none."""
    return int.from_bytes(bytes(map(int, server.address.split("."))), "big") if server is not None else 0
