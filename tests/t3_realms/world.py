"""A realm of three scripted servers and a client, on a fake network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from realmfs.realms.group import Group
from realmfs.realms.realm import Realm
from realmfs.realms.realms import Realms
from realmfs.realms.server import Server
from realmfs.realms.settings import RealmSettings
from realmfs.realms.volume import Volume
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.parameters import Timers
from realmfs.rpc2.transfer import BytesSource, Source
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid, VersionVector
from tests.fakenet import FakeNetwork
from tests.t3_realms.vicepeer import DIRECTORY, FILE, ROOT, VOLUME, Object, VicePeer, replicated, vector

HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
CLIENT = "10.0.0.9"
TIMERS = Timers(keepalive=15.0, retries=4)


@dataclass
class Events:
    """A Listener that writes down what it is told."""

    said: list[tuple[str, str]] = field(default_factory=list)
    contents: dict[Fid, bytes] = field(default_factory=dict)

    def callback_broken(self, server: Server, fid: Fid) -> None:
        self.said.append(("broken", f"{server.address[0]} {fid}"))

    def server_up(self, server: Server) -> None:
        self.said.append(("up", server.address[0]))

    def server_down(self, server: Server) -> None:
        self.said.append(("down", server.address[0]))

    def server_moved(self, server: Server, address: tuple[str, int]) -> None:
        self.said.append(("moved", f"{server.address[0]} {address[0]}"))

    def resolution(self, server: Server, volume_id: int) -> None:
        pass

    def back_fetch(self, server: Server, fid: Fid) -> Source:
        if fid not in self.contents:
            raise CodaError(Code.ENOENT)
        return BytesSource(self.contents[fid])

    def count(self, kind: str, host: str | None = None) -> int:
        return sum(k == kind and host in (None, h) for k, h in self.said)


@dataclass
class World:
    net: FakeNetwork
    nursery: trio.Nursery
    realms: Realms
    events: Events
    endpoint: Endpoint
    peers: list[VicePeer] = field(default_factory=list)
    stops: dict[str, trio.CancelScope] = field(default_factory=dict)

    async def start_peer(self, host: str, slot: int, old: VicePeer | None = None) -> VicePeer:
        """Start a server; with `old` it has that one's objects and no memory of clients."""
        endpoint = Endpoint(self.net.transport((host, 2432)), timers=TIMERS)
        peer = VicePeer(endpoint, slot)
        if old is not None:
            peer.objects, peer.volumes, peer.on, peer.secrets = old.objects, old.volumes, old.on, old.secrets
        self.stops[host] = await self.nursery.start(_run, endpoint)
        return peer

    def stop_peer(self, host: str) -> None:
        """Kill a server."""
        self.stops.pop(host).cancel()

    async def restart_peer(self, slot: int) -> VicePeer:
        """Kill a server and start it anew."""
        host = HOSTS[slot]
        self.stop_peer(host)
        await trio.sleep(0.01)
        self.peers[slot] = await self.start_peer(host, slot, self.peers[slot])
        return self.peers[slot]

    async def realm(self) -> Realm:
        return await self.realms.realm("r.test")

    async def volume(self) -> Volume:
        return await (await self.realm()).volume("/")

    async def group(self) -> Group:
        return (await self.volume()).group

    def put(self, fid: Fid, vv: VersionVector, data: bytes = b"", slots: tuple[int, ...] = (0, 1, 2)) -> None:
        """Give some servers a version of an object."""
        for slot in slots:
            self.peers[slot].objects[fid] = Object(vv, data)

    def each(self, action: Callable[[VicePeer], None]) -> None:
        for peer in self.peers:
            action(peer)


async def _run(
    endpoint: Endpoint, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            task_status.started(scope)


@asynccontextmanager
async def world(
    tmp_path: Path,
    *,
    hosts: tuple[str, ...] = HOSTS,
    settings: RealmSettings | None = None,
    latency: float = 0.001,
    seed: int = 1,
) -> AsyncIterator[World]:
    """Run everything for the duration of the block. `/` is replicated on all hosts, with a few objects."""
    net = FakeNetwork(seed, latency=latency)
    file = tmp_path / "realms"
    file.write_text(f"r.test {' '.join(hosts)}\n")
    endpoint = Endpoint(net.transport((CLIENT, 0)), timers=TIMERS)
    events = Events()
    async with trio.open_nursery() as nursery:
        await nursery.start(endpoint.run)
        settings = settings or RealmSettings(realms_file=file)
        # Without state on disk: that is written by a thread, in real time.
        realms = Realms(endpoint, settings, events)
        await nursery.start(realms.run)
        made = World(net, nursery, realms, events, endpoint)
        for slot, host in enumerate(hosts):
            made.peers.append(await made.start_peer(host, slot))
        volumes = replicated(VOLUME, *hosts)
        volumes["/"] = volumes[f"v{VOLUME:x}"]
        for peer in made.peers:
            peer.volumes = dict(volumes)
            peer.objects[ROOT] = Object(vector(1, 1, 1))
            peer.objects[DIRECTORY] = Object(vector(1, 1, 1), b"d" * 2048)
            peer.objects[FILE] = Object(vector(2, 2, 2), b"contents")
        yield made
        nursery.cancel_scope.cancel()
