"""What is on this disk: objects, directories, container files, the modify log."""

from realmfs.cache.cache import Cache
from realmfs.cache.container import Container, ContainerSink
from realmfs.cache.errors import (
    CacheDamaged,
    CacheError,
    CacheFull,
    CacheInUse,
    CacheReadOnly,
    CacheTooNew,
    ContainerLost,
    Damage,
)
from realmfs.cache.extents import Extents
from realmfs.cache.inodes import ROOT_NUMBER, split_key, volume_key
from realmfs.cache.limits import Limits
from realmfs.cache.log import LogEntry, LogSummary, Role, State
from realmfs.cache.objects import ANY_USER, Flags, ObjectRow
from realmfs.cache.realms import RealmRow
from realmfs.cache.recovered import RecoveredCopy, Why
from realmfs.cache.recovery import Findings
from realmfs.cache.replacement import MARGINAL, MAXIMUM, STANDARD, Evicted
from realmfs.cache.volumes import ReplicaRow, VolumeRow, is_local

__all__ = [
    "ANY_USER",
    "MARGINAL",
    "MAXIMUM",
    "ROOT_NUMBER",
    "STANDARD",
    "Cache",
    "CacheDamaged",
    "CacheError",
    "CacheFull",
    "CacheInUse",
    "CacheReadOnly",
    "CacheTooNew",
    "Container",
    "ContainerLost",
    "ContainerSink",
    "Damage",
    "Evicted",
    "Extents",
    "Findings",
    "Flags",
    "Limits",
    "LogEntry",
    "LogSummary",
    "ObjectRow",
    "RealmRow",
    "RecoveredCopy",
    "ReplicaRow",
    "Role",
    "State",
    "VolumeRow",
    "Why",
    "is_local",
    "split_key",
    "volume_key",
]
