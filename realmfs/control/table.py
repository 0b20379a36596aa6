"""The methods about the cache manager in one table: for the daemon, the generated reference, the tests."""

from pathlib import Path

from realmfs.cache.cache import Cache
from realmfs.control.cache import CacheMethods
from realmfs.control.conflicts import Conflicts
from realmfs.control.connectivity import Connectivity
from realmfs.control.hoard import HoardMethods
from realmfs.control.mountpoints import MountPoints
from realmfs.control.pending import Pending
from realmfs.control.sending import Sending
from realmfs.control.service import Method, Topic
from realmfs.control.volumestatus import VolumeStatuses
from realmfs.realms.realms import Realms
from realmfs.venus.venus import Venus


def common_methods(venus: Venus, realms: Realms, cache: Cache) -> dict[str, Method]:
    """Return the methods that are the same for every caller."""
    return (
        Pending(venus.core, realms).methods()
        | Connectivity(realms, lambda: cache.log.count).methods()
        | Sending(venus.core, venus.reintegrator).methods()
        | HoardMethods(venus).methods()
        | CacheMethods(venus).methods()
    )


def topics(venus: Venus, state: Path) -> list[Topic]:
    """Return the methods that are made for each caller; `state` is the daemon's directory for copies."""
    return [
        Conflicts(venus, state).methods,
        VolumeStatuses(venus, venus.core).methods,
        MountPoints(venus).methods,
    ]
