"""N servers of one realm on the fake network, each with a store of its own, and a client of any of them.

    async with group(tmp_path, 3) as (servers, nursery):
        ann = await servers.client(nursery)
        fid = await ann.new_file(b"name", b"data", at=(1, 2))  # as if server 3 were away
        await ann.resolve(1, ann.root)
        await servers.settled()  # background work is done
        servers.assert_equal()

`servers.stop(2)`, `start(2)`, `lose_disk(2)`, `net.partition(address(1), address(2))`, `heal()`. A whole
cache manager gets in through `servers.realms_line`, as a line of its realms file.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import ANONYMOUS, Address, Credentials, Level
from realmfs.rpc2.transfer import BytesSink, BytesSource
from realmfs.server.check import check_store
from realmfs.server.fileserver import FileServer
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME, ServerAddress, Volume
from realmfs.vice import calls, wire
from realmfs.vice.cop2 import Cop2Entry, pack_entries
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError
from realmfs.vice.log import AnyRecord, pack_log, thread
from realmfs.vice.tokens import Token, TokenKey
from realmfs.vice.types import (
    FILE_SUBSYSTEM,
    ClientId,
    Fid,
    FidRange,
    ObjectType,
    Rights,
    Status,
    StoreId,
    VersionVector,
)
from tests.fakenet import FakeNetwork
from tests.t2b_server.harness import Client

REALM = "test.realm"
SECRET = b"0123456789abcdef"
ALL = int(Rights.ALL)

R = TypeVar("R", bound=wire.Results)


def address(number: int) -> str:
    """Return the address of a server."""
    return f"10.0.0.{number}"


class Servers:
    """The servers. Stores outlive stops; numbers begin with 1."""

    def __init__(
        self, directory: Path, net: FakeNetwork, count: int, *, anyuser: int = ALL,
        clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.net = net
        self.numbers = tuple(range(1, count + 1))
        self.clock = clock or (lambda: 1_800_000_000 + trio.current_time())
        self.running: dict[int, FileServer] = {}
        self.stores: dict[int, ServerStore] = {}
        self._scopes: dict[int, tuple[trio.CancelScope, trio.Event]] = {}
        self._starts = itertools.count(1)
        self._clients = itertools.count(1)
        for number in self.numbers:
            self._make_store(number, founding=number == 1, anyuser=anyuser)

    def _make_store(self, number: int, *, founding: bool, anyuser: int = ALL) -> None:
        store = ServerStore.create(
            self.directory / str(number), REALM, address(number), number=number, anyuser=anyuser,
            servers=self.numbers, founding=founding, secret=SECRET,
        )  # fmt: skip
        with store.transaction():
            for place in self._places():
                store.note_server(place)
        self.stores[number] = store

    def _places(self) -> list[Any]:

        return [ServerAddress(number, address(number), 2432, 1) for number in self.numbers]

    @property
    def realms_line(self) -> str:
        """The line of a realms file."""
        return f"{REALM} {' '.join(map(address, self.numbers))}\n"

    def volume(self, number: int, name: str = ROOT_VOLUME) -> Volume:
        """Return a server's replica of a volume."""
        found = self.stores[number].volumes.named(name)
        assert found is not None
        return found

    @property
    def group_id(self) -> int:
        """The id of the root volume."""
        return self.volume(1).group_id

    def place(self, number: int) -> Address:
        """Return where a server takes clients."""
        return address(number), 2432

    async def start(self, number: int, nursery: trio.Nursery) -> FileServer:
        """Start a server on its store."""
        scope, stopped = trio.CancelScope(), trio.Event()
        port = self.net.transport((address(number), 2432))
        endpoint = Endpoint(port, rng=random.Random(next(self._starts)))
        server = self.running[number] = FileServer(self.stores[number], endpoint, clock=self.clock)
        self._scopes[number] = scope, stopped

        async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with scope:
                await server.run(task_status=task_status)
            stopped.set()

        await nursery.start(run)
        return server

    async def stop(self, number: int) -> None:
        """Kill a server at whatever it does, and open its store anew, as the next process will."""
        scope, stopped = self._scopes.pop(number)
        scope.cancel()
        await stopped.wait()
        del self.running[number]
        self.stores[number].close()
        self.stores[number] = ServerStore.open(self.directory / str(number))

    def kill_now(self, number: int) -> None:
        """Have a server die at its next breath; `stop` then clears up."""
        self._scopes[number][0].cancel()

    def lose_disk(self, number: int) -> None:
        """Give a stopped server an empty store."""
        self.stores[number].close()
        shutil.rmtree(self.directory / str(number))
        self._make_store(number, founding=False)

    async def settled(self, seconds: float = 300.0) -> None:
        """Wait until the servers that run have nothing to do, and know who is up."""
        with trio.fail_after(seconds):
            while not self._is_settled():  # noqa: ASYNC110
                await trio.sleep(0.1)

    def _is_settled(self) -> bool:
        groups = {number: server.group for number, server in self.running.items()}
        return all(
            group is not None
            and group.catch_up.is_idle
            and all(group.peers.up(other) for other in self.running if other != number)
            for number, group in groups.items()
        )

    async def client(self, nursery: trio.Nursery, user: int | None = None) -> GroupClient:
        """Start a client that is known to every running server."""
        host = f"10.0.1.{next(self._clients)}"
        endpoint = Endpoint(self.net.transport((host, 0)), rng=random.Random(host))
        client = GroupClient(self, endpoint, user)
        await nursery.start(endpoint.run)
        for number in self.running:
            await client.connect(number)
        return client

    def token(self, user: int) -> Token:
        """Make a token without asking auth2."""
        key = TokenKey(self.stores[1].token_keys()[0])
        return key.mint(user, int(self.clock()), handshake_key=b"handshak", iv=bytes(16), lifetime=90000)

    # looking behind the servers' backs

    def contents(self, number: int, name: str = ROOT_VOLUME) -> dict[tuple[int, int], tuple[Any, ...]]:
        """Return everything in a replica that all replicas must agree in: by vnode and unique."""
        return contents_of(self.stores[number], name)

    def assert_equal(self, numbers: Iterable[int] = (), name: str = ROOT_VOLUME) -> None:
        """Fail unless all replicas are equal, but for objects in conflict, and sound in themselves."""
        chosen = list(numbers) or list(self.numbers)
        all_contents = [self.contents(number, name) for number in chosen]
        marked = {node for contents in all_contents for node, row in contents.items() if row[9] & 1}
        for number, contents in zip(chosen[1:], all_contents[1:], strict=True):
            for node in contents.keys() | all_contents[0].keys():
                if node not in marked and not self._is_below(node, marked, contents, all_contents[0]):
                    assert contents.get(node) == all_contents[0].get(node), f"{node} at server {number}"
        if not marked:
            for number in chosen:
                assert check_store(self.stores[number], contents=True) == []

    @staticmethod
    def _is_below(node: tuple[int, int], marked: set[tuple[int, int]], *where: dict[Any, Any]) -> bool:
        for contents in where:
            up: tuple[int, int] | None = node
            while up in contents:
                up = contents[up][6]
                if up in marked:
                    return True
        return False

    def conflicts(self, number: int) -> list[tuple[int, int]]:
        """Return what is marked as being in conflict at a server."""
        return sorted(node for node, row in self.contents(number).items() if row[9] & 1)

    def names(self, number: int, fid: Fid | None = None) -> list[bytes]:
        """Return the names in a directory of one replica."""
        store = self.stores[number]
        image = store.vnodes.image((fid or Fid.root(0)).in_volume(self.volume(number).id))
        return sorted(name for name in Directory.parse(image).names() if name not in (b".", b".."))

    def data(self, number: int, fid: Fid) -> bytes:
        """Return a file's contents at one replica."""
        store = self.stores[number]
        vnode = store.vnodes.find(fid.in_volume(self.volume(number).id))
        assert vnode is not None
        return store.containers.path(vnode.container).read_bytes() if vnode.container is not None else b""


class Group(Protocol):
    """What a client needs to know of servers."""

    @property
    def group_id(self) -> int:
        """The id of the root volume."""
        ...

    def place(self, number: int) -> Address:
        """Return where a server takes clients."""
        ...

    def token(self, user: int) -> Token:
        """Make a token without asking auth2."""
        ...


class GroupClient(Client):
    """A client with a connection to each server; updates go to those that are named."""

    def __init__(self, servers: Group, endpoint: Endpoint, user: int | None = None) -> None:
        super().__init__(endpoint, servers.group_id, user)
        self.servers = servers
        self.connections: dict[int, Connection] = {}
        self._last: dict[StoreId, None] = {}

    async def connect(self, number: int) -> None:
        """Bind to a server and say who we are."""
        credentials = ANONYMOUS
        if self.user is not None:
            token = self.servers.token(self.user)
            credentials = Credentials(Level.AUTHONLY, token.secret, token.clear.handshake_key, 1)
        self.connections[number] = await self.endpoint.bind(
            self.servers.place(number), FILE_SUBSYSTEM, credentials
        )
        who = ClientId(user=b"tester", workstation=b"nowhere", venus=b"venus", uuid=bytes(16))
        await self.ask_at(number, calls.NewConnectFS(client=who))
        self.connection = self.connections[number]

    async def ask_at(self, number: int, request: wire.Request[R], **arguments: Any) -> R:
        """Make a call at one server; raises CodaError for any code but 0."""
        if number not in self.connections or not self.connections[number].usable:
            await self.connect(number)
        try:
            return await self.ask(request, connection=self.connections[number], **arguments)
        except RpcError:  # it was restarted
            await self.connect(number)
            return await self.ask(request, connection=self.connections[number], **arguments)

    async def status_at(self, number: int, fid: Fid) -> Status:
        """GetAttr at one server."""
        return (await self.ask_at(number, calls.GetAttr(fid=fid))).status

    async def fetch_at(self, number: int, fid: Fid) -> bytes:
        """FetchPartial at one server."""
        sink = BytesSink()
        await self.ask_at(number, calls.FetchPartial(fid=fid), sink=sink)
        return sink.data

    async def resolve(self, number: int, fid: Fid) -> None:
        """Resolve, asked of one server."""
        await self.ask_at(number, calls.Resolve(fid=fid))

    async def fid_from(self, number: int, kind: ObjectType = ObjectType.FILE) -> Fid:
        """Take a fid of a server's."""
        call = calls.AllocFids(volume=self.volume, type=kind, range=FidRange.request(1))
        granted = (await self.ask_at(number, call)).range.checked(1, kind is ObjectType.DIRECTORY)
        return next(iter(granted.fids(self.volume)))

    async def vectors_at(self, number: int, records: Sequence[AnyRecord]) -> dict[Fid, VersionVector]:
        """Ask one server for the versions of what records touch."""
        await self.ask_at(number, calls.GetTime())
        self.connection = self.connections[number]
        return await self.vectors(records)

    async def update(
        self,
        records: Sequence[AnyRecord],
        at: Sequence[int],
        *,
        cop2: bool = True,
        known: dict[Fid, VersionVector] | None = None,
    ) -> None:
        """Reintegrate the same records at each of some servers; then the second phase, unless told not to.

        `known` are the versions that they rest on; None: at each server those that it has.
        """
        for number in at:
            vectors = await self.vectors_at(number, records)
            packed = pack_log(thread(records, vectors if known is None else known))
            call = calls.Reintegrate(volume=self.volume, log_size=len(packed))
            await self.ask_at(number, call, source=BytesSource(packed))
        self._last = {record.store_id: None for record in records}
        if cop2:
            await self.cop2(at)

    async def cop2(self, at: Sequence[int]) -> None:
        """Send the second phase of the last update to those that executed it."""
        slots = tuple(number - 1 for number in at)
        entries = pack_entries([Cop2Entry(store_id, slots) for store_id in self._last])
        for number in at:
            await self.ask_at(number, calls.Cop2(entries=entries))

    # shorthands

    async def new_file(self, name: bytes, data: bytes, at: Sequence[int], parent: Fid | None = None) -> Fid:
        """Create a file with contents."""
        fid = await self.fid_from(at[0])
        self.data[fid] = data
        await self.update([self.create(name, fid, parent), self.store(fid, len(data))], at)
        return fid

    async def new_directory(self, name: bytes, at: Sequence[int], parent: Fid | None = None) -> Fid:
        """Create a directory."""
        fid = await self.fid_from(at[0], ObjectType.DIRECTORY)
        await self.update([self.mkdir(name, fid, parent)], at)
        return fid

    async def write(self, fid: Fid, data: bytes, at: Sequence[int]) -> None:
        """Store to a file."""
        self.data[fid] = data
        await self.update([self.store(fid, len(data))], at)


def contents_of(store: ServerStore, name: str = ROOT_VOLUME) -> dict[tuple[int, int], tuple[Any, ...]]:
    """Return everything in a replica that all replicas must agree in: by vnode and unique."""
    volume = store.volumes.named(name)
    assert volume is not None
    found = {}
    for vnode in store.vnodes.all(volume.id):
        what: Any = vnode.target
        if vnode.is_directory:
            what = sorted(Directory.parse(store.vnodes.image(vnode.fid)).items())
        elif vnode.container is not None:
            what = store.containers.path(vnode.container).read_bytes()
        acl = vnode.acl.pack() if vnode.acl else None
        shown = (vnode.type, vnode.links, vnode.mode, vnode.owner, vnode.author, vnode.mtime, vnode.parent)
        found[vnode.fid[1:]] = (*shown, vnode.vv.versions, vnode.vv.store_id, vnode.vv.flags & 7, acl, what)
    return found


async def refusal(call: Any) -> int:
    """Return the code that a call fails with; 0 if it does not."""
    try:
        await call
    except CodaError as error:
        return error.number
    return 0


@asynccontextmanager
async def group(
    directory: Path, count: int = 3, **arguments: Any
) -> AsyncIterator[tuple[Servers, trio.Nursery]]:
    """Run the servers of a realm until all have their replicas on line."""
    net = FakeNetwork(seed=1, latency=0.001)
    servers = Servers(directory, net, count, **arguments)
    async with trio.open_nursery() as nursery:
        for number in servers.numbers:
            await servers.start(number, nursery)
        await servers.settled()
        try:
            yield servers, nursery
        finally:
            nursery.cancel_scope.cancel()
            for store in servers.stores.values():
                store.close()
