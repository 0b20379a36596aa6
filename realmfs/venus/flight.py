"""What is on its way to the servers: a batch, its records as sent, the contents they will fetch back."""

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from realmfs.cache.container import Container
from realmfs.cache.errors import ContainerLost
from realmfs.cache.log import LogEntry
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.transfer import BytesSource, FileSource, Source
from realmfs.venus.batch import Batch
from realmfs.venus.commit import NO_BASES, Bases, vectors_of
from realmfs.venus.conflicts import object_of
from realmfs.venus.core import Core
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import AnyRecord, Store, thread, unpack_log
from realmfs.vice.types import Fid

SMALL = 64 << 10
NOT_ALLOWED = frozenset({Code.EPERM, Code.EACCES})


class ContentsLost(Exception):  # noqa: N818  # it says what is the matter
    """The contents of a store that waits cannot be had any more: which, and why."""

    def __init__(self, entry: LogEntry, error: ContainerLost) -> None:
        super().__init__(str(error))
        self.entry = entry


@dataclass(slots=True)
class Flight:
    """A batch on its way."""

    batch: Batch
    entries: list[LogEntry]
    records: list[AnyRecord]
    """As sent: with store ids and version vectors."""
    bases: Bases = field(default_factory=dict)
    contents: dict[Fid, Container] = field(default_factory=dict)
    """Of each file only the last store's: no other is fetched."""

    _small: dict[Fid, BytesSource] = field(default_factory=dict)
    """Contents that were read: each server asks for them."""

    @classmethod
    def prepare(
        cls,
        core: Core,
        volume: VolumeState,
        batch: Batch,
        entries: list[LogEntry],
        bases: Bases = NO_BASES,
    ) -> "Flight":
        """Thread the records and open the contents. Raises ContentsLost."""
        records = [full_record(core, entry) for entry in entries]
        flight = cls(batch, entries, thread(records, {**vectors_of(core, volume, records), **bases}), bases)
        try:
            for entry, record in zip(entries, flight.records, strict=True):
                if entry.container is not None and isinstance(record, Store):
                    if record.fid in flight.contents:
                        flight.contents.pop(record.fid).close()
                    flight.contents[record.fid] = open_contents(core, entry)
        except BaseException:
            flight.close()
            raise
        return flight

    def source(self, fid: Fid) -> Source:
        """Return the contents that a server fetches back. Raises CodaError ENOENT."""
        known = self._small.get(fid)
        if known is not None:
            return known
        content = self.contents.get(fid)
        if content is None:
            raise CodaError(Code.ENOENT, f"no store of {fid} is on its way")
        if content.length <= SMALL:
            small = self._small[fid] = BytesSource(content.read(0, content.length))
            return small
        # A descriptor of its own: a server may read on after our call has ended and the container is closed.
        descriptor = os.dup(content.fd)
        source = _Lent(descriptor, 0, content.length)
        weakref.finalize(source, os.close, descriptor)
        return source

    def close(self) -> None:
        """Let go of the contents."""
        for content in self.contents.values():
            content.close()
        self.contents.clear()


class Contents:
    """The transport's view of an immutable container that somebody keeps open."""

    def __init__(self, content: Container) -> None:
        self._content = content
        self.size = content.length

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes of the contents."""
        return self._content.read(offset, count)


class _Lent(FileSource):
    """Contents that a server reads when it likes; the descriptor is closed with the last reference."""

    __slots__ = ("__weakref__",)


def open_contents(core: Core, entry: LogEntry) -> Container:
    """Open the contents of a store. Raises ContentsLost."""
    assert entry.container is not None
    try:
        return core.cache.containers.open(entry.container)
    except ContainerLost as error:
        raise ContentsLost(entry, error) from error


def full_record(core: Core, entry: LogEntry) -> AnyRecord:
    """Return a waiting record as a value: with its store id, and the fid that is not stored in it."""
    (record,) = unpack_log(entry.record)
    record = replace(record, store_id=entry.store_id or record.store_id)
    if record.fid == Fid.zero():
        identity = core.cache.inodes.identity(object_of(entry))
        if identity is not None:
            record = replace(record, fid=identity[1])
    return record


def sent_as(entry: LogEntry) -> int:
    """Return the local user whose connections a record is sent on.

    What somebody did without a token goes out as what it is, on open connections, whether he has logged in
    since or not. What servers would not let nobody do was done by rights that he once had: it waits for his
    login, and goes as his own then.
    """
    as_nobody = not entry.identity and entry.reason not in NOT_ALLOWED
    return ANYUSER if as_nobody else entry.uid


def last_uniquifier(entries: Sequence[LogEntry]) -> int:
    """Return the greatest uniquifier of records; 0 if none was ever frozen."""
    return max((entry.store_id.uniquifier for entry in entries if entry.store_id is not None), default=0)
