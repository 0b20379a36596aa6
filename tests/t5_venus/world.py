"""Real servers, the real cache and the whole cache manager, in one process on a fake network."""

import errno
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from realmfs.cache.cache import Cache
from realmfs.cache.limits import Limits
from realmfs.realms.realms import Realms
from realmfs.realms.settings import RealmSettings
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.service import Reply, Request, ServerConnection
from realmfs.server.fileserver import FileServer
from realmfs.server.store import ServerStore
from realmfs.venus.face import ROOT_INODE, Attr, Caller, Changes, Entry
from realmfs.venus.settings import VenusSettings
from realmfs.venus.venus import Venus
from realmfs.vice.calls import GetTime
from realmfs.vice.errors import CodaError
from tests.fakenet import FakeNetwork

REALM = "r.test"
SERVER = "10.0.0.1"
ALL_RIGHTS = 127
ME = Caller(1000, 1000, 0)
LIMITS = Limits(bytes=64 << 20, objects=20_000, log_records=20_000, reserve=0)


class CountingServer(FileServer):
    """Counts the calls it gets, by name of the operation."""

    calls: Counter[int]

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        self.calls[request.opcode] += 1
        return await super().call(connection, request)


class ServedRealm:
    """One realm with one server; the store outlives stops of the server."""

    def __init__(self, directory: Path, net: FakeNetwork, name: str, host: str, anyuser: int) -> None:
        self.name = name
        self.host = host
        self.net = net
        self.store = ServerStore.create(directory, name, host, anyuser=anyuser)
        self.calls: Counter[int] = Counter()
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the server on what the store holds."""
        self._scope, self._stopped = trio.CancelScope(), trio.Event()
        endpoint = Endpoint(self.net.transport((self.host, 2432)), rng=random.Random(1))
        server = CountingServer(self.store, endpoint)
        server.calls = self.calls

        async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with self._scope:
                await server.run(task_status=task_status)
            self._stopped.set()

        await nursery.start(run)

    async def stop(self) -> None:
        """Kill the server."""
        self._scope.cancel()
        await self._stopped.wait()

    def counted(self) -> Counter[int]:
        """Return what was called since the last time, probes left out."""
        counted = Counter({opcode: n for opcode, n in self.calls.items() if opcode != GetTime.OPCODE})
        self.calls.clear()
        return counted


@dataclass
class Kernel:
    """A kernel that writes down what it is told to forget."""

    inodes: list[tuple[int, bool]] = field(default_factory=list)
    entries: list[tuple[int, bytes]] = field(default_factory=list)

    def invalidate_inode(self, ino: int, attr_only: bool) -> None:
        self.inodes.append((ino, attr_only))

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        self.entries.append((parent, name))


class Client:
    """A client machine: its cache directory outlives starts and stops of the cache manager."""

    venus: Venus
    realms: Realms
    cache: Cache
    kernel: Kernel

    def __init__(
        self, world: "World", host: str, directory: Path, limits: Limits, settings: VenusSettings
    ) -> None:
        self.world = world
        self.host = host
        self.directory = directory
        self.limits = limits
        self.settings = settings
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()

    async def start(self) -> "Client":
        """Start the cache manager on what the cache holds."""
        self._scope, self._stopped = trio.CancelScope(), trio.Event()
        await self.world.nursery.start(self._run)
        return self

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self._scope:
            self.cache = Cache(self.directory / "cache", self.limits)
            try:
                endpoint = Endpoint(self.world.net.transport((self.host, 0)), rng=random.Random(self.host))
                self.venus = Venus(self.cache, self.settings)
                settings = RealmSettings(realms_file=self.world.realms_file)
                self.realms = Realms(endpoint, settings, self.venus, self.directory / "state")
                self.kernel = Kernel()
                self.venus.attach(self.realms)
                self.venus.attach_kernel(self.kernel)
                async with trio.open_nursery() as nursery:
                    await nursery.start(endpoint.run)
                    await nursery.start(self.realms.run)
                    await nursery.start(self.venus.run)
                    task_status.started()
            finally:
                self.cache.close()
        self._stopped.set()

    async def kill(self) -> None:
        """Stop as `kill -9` does: nothing is written, nobody is told."""
        self._scope.cancel()
        await self._stopped.wait()

    async def restart(self) -> "Client":
        """Kill it and start it again."""
        await self.kill()
        return await self.start()

    # -- a little shell --------------------------------------------------------------------------------

    async def look(self, path: str, caller: Caller = ME) -> Attr:
        """Walk down; raise ENOENT as the kernel would."""
        attr = await self.venus.getattr(caller, ROOT_INODE)
        for name in _parts(path):
            attr = await self.venus.lookup(caller, attr.ino, name)
            if not attr.ino:
                raise FileNotFoundError(path)
        return attr

    async def _above(self, path: str) -> tuple[int, bytes]:
        *parents, name = _parts(path)
        return (await self.look("/" + "/".join(os.fsdecode(one) for one in parents))).ino, name

    async def read(self, path: str, caller: Caller = ME) -> bytes:
        """Open, read all, close."""
        attr = await self.look(path, caller)
        opened = await self.venus.open(caller, attr.ino, os.O_RDONLY)
        data = b""
        while chunk := await self.venus.read(opened.handle, len(data), 1 << 17):
            data += bytes(chunk)
        await self.venus.flush(opened.handle)
        await self.venus.release(opened.handle)
        return data

    async def write(self, path: str, data: bytes, caller: Caller = ME) -> int:
        """Create or truncate, write, close; return the inode number."""
        parent, name = await self._above(path)
        found = await self.venus.lookup(caller, parent, name)
        if found.ino:
            ino = found.ino
            opened = await self.venus.open(caller, ino, os.O_WRONLY | os.O_TRUNC)
        else:
            opened, attr = await self.venus.create(caller, parent, name, 0o644, os.O_WRONLY)
            ino = attr.ino
        for start in range(0, len(data), 1 << 17):
            await self.venus.write(opened.handle, start, data[start : start + (1 << 17)])
        await self.venus.flush(opened.handle)
        await self.venus.release(opened.handle)
        return ino

    async def ls(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return sorted(os.fsdecode(entry.name) for entry in await self.entries(path))

    async def entries(self, path: str) -> list[Entry]:
        """Return the entries of a directory in the order listed."""
        handle = (await self.venus.opendir(ME, (await self.look(path)).ino)).handle
        entries: list[Entry] = []
        while chunk := await self.venus.readdir(handle, entries[-1].position if entries else 0):
            entries += chunk
        await self.venus.releasedir(handle)
        return entries

    async def mkdir(self, path: str) -> int:
        parent, name = await self._above(path)
        return (await self.venus.mkdir(ME, parent, name, 0o755)).ino

    async def unlink(self, path: str) -> None:
        await self.venus.unlink(ME, *await self._above(path))

    async def rmdir(self, path: str) -> None:
        await self.venus.rmdir(ME, *await self._above(path))

    async def rename(self, old: str, new: str, flags: int = 0) -> None:
        await self.venus.rename(ME, *await self._above(old), *await self._above(new), flags)

    async def symlink(self, path: str, target: bytes) -> int:
        parent, name = await self._above(path)
        return (await self.venus.symlink(ME, parent, name, target)).ino

    async def link(self, old: str, new: str) -> None:
        await self.venus.link(ME, (await self.look(old)).ino, *await self._above(new))

    async def change(self, path: str, **changes: int) -> Attr:
        return await self.venus.setattr(ME, (await self.look(path)).ino, Changes(**changes))

    # -- the log ---------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many records wait."""
        return int(self.cache.log.count)

    async def drained(self, seconds: float = 60.0) -> None:
        """Wait until the log is empty."""
        await until(lambda: not self.cache.log.count, seconds)

    def offline(self) -> None:
        """Cut the client off from everybody."""
        self.world.net.partition(self.host)

    def online(self) -> None:
        """Undo it, and look for servers at once."""
        self.world.net.heal()
        self.realms.network_changed()


@dataclass
class World:
    """Everything that runs in a test."""

    net: FakeNetwork
    nursery: trio.Nursery
    directory: Path
    realm: ServedRealm
    others: dict[str, ServedRealm] = field(default_factory=dict)
    clients: list[Client] = field(default_factory=list)

    @property
    def realms_file(self) -> Path:
        return self.directory / "realms"

    async def client(self, *, limits: Limits = LIMITS, **settings: object) -> Client:
        """Start one more client with an empty cache."""
        number = len(self.clients) + 1
        directory = self.directory / f"client{number}"
        directory.mkdir()
        chosen = VenusSettings(**{"own_servers": True, **settings})  # type: ignore[arg-type]  # names of fields
        client = Client(self, f"10.0.1.{number}", directory, limits, chosen)
        self.clients.append(client)
        return await client.start()

    async def add_realm(self, name: str, host: str, *, up: bool = True) -> ServedRealm:
        """Add a realm with a server, or with one that is not there."""
        served = ServedRealm(self.directory / name, self.net, name, host, ALL_RIGHTS)
        self.others[name] = served
        with self.realms_file.open("a") as file:
            file.write(f"{name} {host}\n")
        if up:
            await served.start(self.nursery)
        return served


@asynccontextmanager
async def world(
    directory: Path, *, anyuser: int = ALL_RIGHTS, latency: float = 0.001
) -> AsyncIterator[World]:
    """Run a realm where everybody has `anyuser` rights on the root."""
    net = FakeNetwork(seed=1, latency=latency)
    (directory / "realms").write_text(f"{REALM} {SERVER}\n")
    async with trio.open_nursery() as nursery:
        realm = ServedRealm(directory / "server", net, REALM, SERVER, anyuser)
        await realm.start(nursery)
        made = World(net, nursery, directory, realm)
        yield made
        nursery.cancel_scope.cancel()
    for served in (realm, *made.others.values()):
        served.store.close()


async def until(true: Callable[[], bool], seconds: float = 600.0) -> None:
    """Look again and again: what is waited for has no event of its own."""
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.01)


@contextmanager
def refused(number: int) -> Iterator[None]:
    """Expect a CodaError with this errno."""
    with pytest.raises(CodaError) as caught:
        yield
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number], caught.value


def _parts(path: str) -> list[bytes]:
    return [os.fsencode(part) for part in path.split("/") if part]
