"""The replicas of one volume that can be reached, here and at other servers, in one form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from realmfs.rpc2.errors import BadPacket
from realmfs.rpc2.transfer import BytesSink, BytesSource, Sink
from realmfs.server.locations import Replica
from realmfs.server.peercalls import MAX_BULK, MAX_NODES, FetchContents, Forget, Install, Look, Settled, Take
from realmfs.server.peers import Peers
from realmfs.server.replica import LocalReplica
from realmfs.server.views import Guard, Node, ObjectView, Plan, Views
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import VersionVector

_SETTLED_AT_ONCE = 32


class Member(Protocol):
    """One replica. All methods raise CodaError; EAGAIN says that it is not as it was."""

    place: Replica

    async def look(self, directories: Sequence[Node], objects: Sequence[Node]) -> Views:
        """Return what there is."""
        ...

    async def install(self, plan: Plan) -> None:
        """Do what a plan says."""
        ...

    async def take(self, guard: Guard, row: ObjectView, source: int, version: VersionVector) -> None:
        """Have a file as the server `source` has it, whose version is `version`."""
        ...

    async def forget(self, settled: Sequence[tuple[Node, VersionVector]]) -> None:
        """Drop the tombs of directories that are equal everywhere."""
        ...


class OurMember:
    """The replica here."""

    def __init__(self, place: Replica, replica: LocalReplica, peers: Peers, group: int) -> None:
        self.place = place
        self._replica = replica
        self._peers = peers
        self._group = group

    async def look(self, directories: Sequence[Node], objects: Sequence[Node]) -> Views:
        """See `Member`."""
        return self._replica.look(directories, objects)

    async def install(self, plan: Plan) -> None:
        """See `Member`."""
        await self._replica.install(plan)

    async def take(self, guard: Guard, row: ObjectView, source: int, version: VersionVector) -> None:
        """See `Member`."""

        async def fetch(sink: Sink) -> None:
            call = FetchContents(volume=self._group, node=row.node, vv=version)
            await self._peers.call(source, call, sink=sink, patience=None)

        await self._replica.take(guard, row, fetch)

    async def forget(self, settled: Sequence[tuple[Node, VersionVector]]) -> None:
        """See `Member`."""
        self._replica.forget(settled)


class OtherMember:
    """A replica at another server."""

    def __init__(self, place: Replica, peers: Peers, group: int) -> None:
        self.place = place
        self._peers = peers
        self._group = group

    async def look(self, directories: Sequence[Node], objects: Sequence[Node]) -> Views:
        """See `Member`."""
        found = Views()
        for some_directories, some_objects in _portions(directories, objects):
            sink = BytesSink(MAX_BULK)
            call = Look(volume=self._group, directories=some_directories, objects=some_objects)
            await self._peers.call(self.place.server, call, sink=sink)
            try:
                more = Views.read(sink.data)
            except BadPacket as error:
                raise CodaError(Code.EIO, f"server {self.place.server}: {error}") from error
            found = Views(
                directories=found.directories + more.directories, objects=found.objects + more.objects
            )
        return found

    async def install(self, plan: Plan) -> None:
        """See `Member`."""
        call = Install(volume=self._group)
        await self._peers.call(self.place.server, call, source=BytesSource(plan.pack()))

    async def take(self, guard: Guard, row: ObjectView, source: int, version: VersionVector) -> None:
        """See `Member`."""
        call = Take(volume=self._group, server=source, guard=guard, row=row, source=version)
        await self._peers.call(self.place.server, call, patience=None)

    async def forget(self, settled: Sequence[tuple[Node, VersionVector]]) -> None:
        """See `Member`."""
        for start in range(0, len(settled), _SETTLED_AT_ONCE):
            some = settled[start : start + _SETTLED_AT_ONCE]
            lines = tuple(Settled(node=node, vv=vv) for node, vv in some)
            await self._peers.call(self.place.server, Forget(volume=self._group, settled=lines))


def _portions(
    directories: Sequence[Node], objects: Sequence[Node]
) -> Iterator[tuple[tuple[Node, ...], tuple[Node, ...]]]:
    for start in range(0, len(directories), MAX_NODES):
        yield tuple(directories[start : start + MAX_NODES]), ()
    for start in range(0, len(objects), MAX_NODES):
        yield (), tuple(objects[start : start + MAX_NODES])
