"""A volume and where its replicas are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from realmfs.realms.server import Server
from realmfs.vice.types import VolumeType

if TYPE_CHECKING:
    from realmfs.realms.group import Group
    from realmfs.realms.realm import Realm


class Replica(NamedTuple):
    """One replica: its slot in every version vector, its own volume id, its server."""

    slot: int
    volume_id: int
    server: Server


@dataclass(slots=True, eq=False)
class Volume:
    """A volume of a realm. `replicas` and `group` change when the servers say that it lives elsewhere now."""

    id: int
    name: str
    realm: "Realm"
    type: VolumeType
    replicas: tuple[Replica, ...]
    group: "Group"

    @property
    def is_replicated(self) -> bool:
        """Whether there are version vectors to compare, second phases, and resolution."""
        return self.type is VolumeType.REPLICATED

    @property
    def read_only(self) -> bool:
        """Whether it is a clone or a backup."""
        return self.type in (VolumeType.READ_ONLY, VolumeType.BACKUP)
