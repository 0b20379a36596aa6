"""A realm on the fake network, and a client that speaks to it in raw calls."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import trio

from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import (
    ANONYMOUS,
    Address,
    BindOffer,
    Credentials,
    Level,
    Reply,
    Request,
    ServerConnection,
)
from realmfs.rpc2.transfer import BytesSink, BytesSource
from realmfs.server.access import Acl
from realmfs.server.fileserver import FileServer
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.vice import calls, log, wire
from realmfs.vice.callbacks import CallBack, CallBackFetch
from realmfs.vice.directory import Directory
from realmfs.vice.errors import CodaError
from realmfs.vice.log import AnyRecord, pack_log, thread
from realmfs.vice.tokens import Token, TokenKey
from realmfs.vice.types import (
    CALLBACK_SUBSYSTEM,
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

SERVER: Address = ("10.0.0.1", 2432)
NOW = 1_800_000_000
ALL = int(Rights.ALL)

R = TypeVar("R", bound=wire.Results)


class Realm:
    """An embedded realm: the store is kept when the server is stopped."""

    def __init__(
        self, directory: Path, net: FakeNetwork, *, anyuser: int = int(Rights.READ | Rights.LOOKUP)
    ) -> None:
        self.net = net
        self.directory = directory
        self.store = ServerStore.create(directory, "test.realm", SERVER[0], anyuser=anyuser)
        self.now = float(NOW)
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._ports = itertools.count(1)
        self._starts = itertools.count(1)

    @property
    def volume(self) -> int:
        """The group id of the root volume."""
        found = self.store.volumes.named(ROOT_VOLUME)
        assert found is not None
        return found.group_id

    @property
    def root(self) -> Fid:
        """The fid of the realm's root, as clients name it."""
        return Fid.root(self.volume)

    async def start(self, nursery: trio.Nursery) -> FileServer:
        """Start a server on the store."""
        self._scope, self._stopped = trio.CancelScope(), trio.Event()
        endpoint = Endpoint(self.net.transport(SERVER), rng=random.Random(next(self._starts)))
        self.server = FileServer(self.store, endpoint, clock=lambda: self.now)

        async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with self._scope:
                await self.server.run(task_status=task_status)
            self._stopped.set()

        await nursery.start(run)
        return self.server

    async def stop(self) -> None:
        """Stop the server."""
        self._scope.cancel()
        await self._stopped.wait()

    async def restart(self, nursery: trio.Nursery) -> None:
        """Stop the server, open its store anew and start again."""
        await self.stop()
        self.store.close()
        self.store = ServerStore.open(self.directory)
        await self.start(nursery)

    @staticmethod
    def names(image: bytes) -> list[bytes]:
        """Return the names in a directory's image."""
        return list(Directory.parse(image).names())

    def containers(self) -> set[Path]:
        """Return the container files that there are."""
        return {path for path in (self.directory / "containers").rglob("*") if path.is_file()}

    def add_user(self, name: str, *, administrator: bool = False) -> int:
        """Make a user."""
        user = self.store.protection.add_user(name, name.encode()[:8].ljust(8, b"\0"))
        if administrator:
            group = self.store.protection.administrators
            self.store.protection.add_member(group, user)
        return user

    def set_root_acl(
        self, anyuser: int, *entries: tuple[int, int], negative: tuple[tuple[int, int], ...] = ()
    ) -> None:
        """Replace the access list of the realm's root behind the server's back."""
        root = self.store.vnodes.find(self.root.in_volume(self.store.volumes.all()[0].id))
        assert root is not None
        everybody = self.store.protection.id_of("System:AnyUser")
        assert everybody is not None
        root.acl = Acl(((everybody, anyuser), *entries), negative)
        with self.store.transaction():
            self.store.vnodes.write([root])

    def token(self, user: int, lifetime: int = 90000) -> Token:
        """Make a token without asking auth2."""
        key = TokenKey(self.store.token_keys()[0])
        return key.mint(user, int(self.now), handshake_key=b"handshak", iv=bytes(16), lifetime=lifetime)

    async def client(
        self, nursery: trio.Nursery, user: int | None = None, *, introduce: bool = True
    ) -> Client:
        """Start a client on a port of its own; with `user` it has a token."""
        address = (f"10.0.1.{next(self._ports)}", 0)
        client = Client(
            Endpoint(self.net.transport(address), rng=random.Random(address[0])), self.volume, user
        )
        await nursery.start(client.endpoint.run)
        await client.bind(self.token(user) if user is not None else None)
        if introduce:
            await client.introduce()
        return client


class Client:
    """A client: calls, callbacks that it got, and what it hands over when asked."""

    def __init__(self, endpoint: Endpoint, volume: int, user: int | None = None) -> None:
        self.endpoint = endpoint
        self.user = user
        self.volume = volume
        self.root = Fid.root(volume)
        self.broken: list[Fid] = []
        """Callbacks received, without probes."""
        self.probes = 0
        self.data: dict[Fid, bytes] = {}
        """What CallBackFetch gets."""
        self.on_call = trio.Event()
        """Set when the server calls back."""
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.host = random.Random(str(endpoint.address)).getrandbits(32)
        self._uniquifier = itertools.count(1)
        self._fids: dict[ObjectType, list[Fid]] = {}
        endpoint.serve(CALLBACK_SUBSYSTEM, self)

    async def bind(self, token: Token | None = None) -> None:
        """Bind, as nobody or with a token."""
        credentials = ANONYMOUS
        if token is not None:
            credentials = Credentials(Level.AUTHONLY, token.secret, token.clear.handshake_key, 1)
        self.connection = await self.endpoint.bind(SERVER, FILE_SUBSYSTEM, credentials)

    async def introduce(self) -> None:
        """Say who we are."""
        who = ClientId(user=b"tester", workstation=b"nowhere", venus=b"venus", uuid=bytes(16))
        await self.ask(calls.NewConnectFS(client=who))

    async def leave(self) -> None:
        """Take leave of the server: the next writer would wait for who just vanishes (vice.md §2.4)."""
        with suppress(RpcError, CodaError):
            await self.ask(calls.TokenExpired())

    async def ask(
        self,
        request: wire.Request[R],
        *,
        sink: BytesSink | None = None,
        source: BytesSource | None = None,
        connection: Connection | None = None,
    ) -> R:
        """Make a call; raises CodaError for any code but 0."""
        code, reply = await self.ask_code(request, sink=sink, source=source, connection=connection)
        if code:
            raise CodaError(code, type(request).__name__)
        return reply

    async def ask_code(
        self,
        request: wire.Request[R],
        *,
        sink: BytesSink | None = None,
        source: BytesSource | None = None,
        connection: Connection | None = None,
    ) -> tuple[int, R]:
        """Make a call; returns code and reply."""
        used = connection or self.connection
        reply = await used.call(request.OPCODE, request.pack(), sink=sink, source=source)
        return reply.code, type(request).reply_type().unpack(reply.body, reply.code)

    # shorthands

    async def status(self, fid: Fid) -> Status:
        """GetAttr."""
        return (await self.ask(calls.GetAttr(fid=fid))).status

    async def fetch(self, fid: Fid, **arguments: Any) -> bytes:
        """FetchPartial."""
        sink = BytesSink()
        await self.ask(calls.FetchPartial(fid=fid, **arguments), sink=sink)
        return sink.data

    def store_id(self) -> StoreId:
        """Return a new store id."""
        return StoreId(self.host, next(self._uniquifier))

    async def new_fid(self, kind: ObjectType = ObjectType.FILE, volume: int | None = None) -> Fid:
        """Take a fid from a range."""
        volume = volume or self.volume
        if not self._fids.get(kind):
            call = calls.AllocFids(volume=volume, type=kind, range=FidRange.request(32))
            granted = (await self.ask(call)).range.checked(32, kind is ObjectType.DIRECTORY)
            self._fids[kind] = list(granted.fids(volume))
        return self._fids[kind].pop(0)

    async def replay(
        self,
        records: Sequence[AnyRecord],
        vectors: Mapping[Fid, VersionVector] | None = None,
        **arguments: Any,
    ) -> calls.Reintegrate.Reply:
        """Reintegrate; raises CodaError for any code but 0."""
        code, reply = await self.replay_code(records, vectors, **arguments)
        if code:
            raise CodaError(code, f"Index {reply.index}")
        return reply

    async def replay_code(
        self,
        records: Sequence[AnyRecord],
        vectors: Mapping[Fid, VersionVector] | None = None,
        **arguments: Any,
    ) -> tuple[int, calls.Reintegrate.Reply]:
        """Thread, pack and reintegrate some records; vectors that are not given are asked for."""
        if vectors is None:
            vectors = await self.vectors(records)
        packed = pack_log(thread(records, vectors))
        volume = arguments.pop("volume", self.volume)
        call = calls.Reintegrate(volume=volume, log_size=len(packed), **arguments)
        return await self.ask_code(call, source=BytesSource(packed))

    async def vectors(self, records: Sequence[AnyRecord]) -> dict[Fid, VersionVector]:
        """Ask for the present version of everything that the records touch and do not create."""
        created = {
            record.fid for record in records if isinstance(record, (log.Create, log.MakeDir, log.SymLink))
        }
        vectors = {fid: VersionVector() for fid in created}
        for record in records:
            for fid in record.objects():
                if fid not in vectors:
                    code, reply = await self.ask_code(calls.GetAttr(fid=fid))
                    vectors[fid] = reply.status.vv if code == 0 else VersionVector()
        return vectors

    async def make_file(self, name: bytes, data: bytes, parent: Fid | None = None) -> Fid:
        """Create a file and store to it, by back-fetch."""
        fid = await self.new_fid()
        self.data[fid] = data
        await self.replay([self.create(name, fid, parent), self.store(fid, len(data))])
        return fid

    async def make_directory(self, name: bytes, parent: Fid | None = None) -> Fid:
        """Create a directory."""
        fid = await self.new_fid(ObjectType.DIRECTORY)
        await self.replay([self.mkdir(name, fid, parent)])
        return fid

    def create(self, name: bytes, fid: Fid, parent: Fid | None = None, mode: int = 0o644) -> log.Create:
        """Return a record."""
        parent = parent or self.root
        return log.Create(
            mtime=NOW, store_id=self.store_id(), parent=parent, name=name, owner=4711, mode=mode, fid=fid
        )

    def mkdir(self, name: bytes, fid: Fid, parent: Fid | None = None) -> log.MakeDir:
        """Return a record."""
        parent = parent or self.root
        return log.MakeDir(
            mtime=NOW, store_id=self.store_id(), parent=parent, name=name, fid=fid, owner=4711, mode=0o755
        )

    def symlink(self, name: bytes, content: bytes, fid: Fid, mode: int = 0o777) -> log.SymLink:
        """Return a record."""
        return log.SymLink(
            mtime=NOW, store_id=self.store_id(), parent=self.root, name=name, content=content,
            fid=fid, owner=0, mode=mode,
        )  # fmt: skip

    def store(self, fid: Fid, length: int) -> log.Store:
        """Return a record."""
        return log.Store(mtime=NOW, store_id=self.store_id(), fid=fid, length=length)

    def chmod(self, fid: Fid, mode: int) -> log.Chmod:
        """Return a record."""
        return log.Chmod(mtime=NOW, store_id=self.store_id(), fid=fid, mode=mode)

    def remove(self, name: bytes, fid: Fid, parent: Fid | None = None) -> log.Remove:
        """Return a record."""
        parent = parent or self.root
        return log.Remove(mtime=NOW, store_id=self.store_id(), parent=parent, name=name, fid=fid)

    def rmdir(self, name: bytes, fid: Fid, parent: Fid | None = None) -> log.RemoveDir:
        """Return a record."""
        parent = parent or self.root
        return log.RemoveDir(mtime=NOW, store_id=self.store_id(), parent=parent, name=name, fid=fid)

    def link(self, name: bytes, fid: Fid, parent: Fid | None = None) -> log.Link:
        """Return a record."""
        parent = parent or self.root
        return log.Link(mtime=NOW, store_id=self.store_id(), parent=parent, name=name, fid=fid)

    def rename(self, old: tuple[Fid, bytes], new: tuple[Fid, bytes], fid: Fid) -> log.Rename:
        """Return a record."""
        return log.Rename(
            mtime=NOW, store_id=self.store_id(), old_parent=old[0], old_name=old[1], new_parent=new[0],
            new_name=new[1], fid=fid,
        )  # fmt: skip

    # the callback service

    def secret(self, offer: BindOffer) -> bytes | None:
        """Let the server in."""
        return bytes(8)

    async def connected(self, connection: ServerConnection) -> None:
        """Nothing to note."""

    def closed(self, connection: ServerConnection) -> None:
        """Nothing to forget."""

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        """Take a break, or hand over contents."""
        self.on_call.set()
        await self.may_answer.wait()
        if request.opcode == CallBack.OPCODE:
            fid = CallBack.unpack(request.body).fid
            if fid.volume:
                self.broken.append(fid)
            else:
                self.probes += 1
            return Reply(0)
        data = self.data.get(CallBackFetch.unpack(request.body).fid)
        if data is None:
            return Reply(2)
        await request.send(BytesSource(data))
        return Reply(0)


def dump(store: ServerStore) -> dict[str, list[Any]]:
    """Return all that a store holds, but for what was set aside and counted."""
    tables = {}
    for table in ("vnode", "page", "reintegrated", "principal", "member", "password"):
        tables[table] = sorted(store.database.rows(f"SELECT * FROM {table}"), key=repr)
    tables["volume"] = store.database.rows("SELECT id, versions, blocks, max_quota FROM volume")
    return tables


@asynccontextmanager
async def serving(directory: Path, **arguments: Any) -> AsyncIterator[tuple[Realm, trio.Nursery]]:
    """Run a realm on a fake network."""
    net = FakeNetwork(seed=1, latency=0.001)
    realm = Realm(directory, net, **arguments)
    async with trio.open_nursery() as nursery:
        await realm.start(nursery)
        try:
            yield realm, nursery
        finally:
            nursery.cancel_scope.cancel()
            realm.store.close()
