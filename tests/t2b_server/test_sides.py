"""Servers of ours with two addresses each, as in two networks.

Clients in either work, and hear of each other.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from realmfs.realms.realms import Realms
from realmfs.realms.settings import RealmSettings
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.rpc2.service import Address
from realmfs.rpc2.udp import UdpTransport
from realmfs.server.serving import RealmServer
from realmfs.server.store import ServerStore
from realmfs.vice.types import Fid, Rights, StoreId
from tests.t3_realms.world import Events

REALM = "two.sides"
TOLD = ("127.0.71.1", "127.0.71.2")
OTHER = ("127.0.72.1", "127.0.72.2")
"""The same servers in the other network."""


class Walled(UdpTransport):
    """A port from which one of the networks cannot be reached."""

    wall = ""

    def send(self, datagrams: Sequence[bytes], peer: Address) -> None:
        if not peer[0].startswith(self.wall):
            super().send(datagrams, peer)


async def free_port() -> int:
    """A port that is free at all the addresses."""
    while True:
        sides = [UdpTransport((TOLD[0], 0))]
        port = sides[0].address[1]
        try:
            sides += [UdpTransport((host, port)) for host in (TOLD[1], *OTHER)]
        except OSError:
            continue
        finally:
            for side in sides:
                side.close()
        await trio.lowlevel.checkpoint()
        return port


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[int, trio.Nursery]]:
    """Run both servers; yields their port."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        stores = [
            stack.enter_context(
                ServerStore.create(
                    tmp_path / str(number),
                    REALM,
                    host,
                    number=number,
                    servers=(1, 2),
                    founding=number == 1,
                    secret=b"0123456789abcdef",
                    anyuser=int(Rights.ALL),
                )
            )
            for number, host in enumerate(TOLD, 1)
        ]
        port = await free_port()
        servers = [
            await RealmServer.bind(store, told, port, 0, also_at=[other])
            for store, told, other in zip(stores, TOLD, OTHER, strict=True)
        ]
        places = [place for store in stores for place in store.servers().values()]
        for store in stores:
            with store.transaction():
                for place in places:
                    store.note_server(place)
        for server in servers:
            await nursery.start(server.run)
        with trio.fail_after(20):
            while not all(map(has_settled, servers)):  # noqa: ASYNC110
                await trio.sleep(0.02)
        yield port, nursery
        nursery.cancel_scope.cancel()


def has_settled(server: RealmServer) -> bool:
    """Whether its replica is filled and the other server up."""
    group = server.file_server.group
    return group is not None and group.catch_up.is_idle and all(group.peers.known().values())


def write_realms(file: Path, port: int, named: Sequence[str]) -> None:
    file.write_text(f"{REALM} {' '.join(f'{host}:{port}' for host in named)}\n")


async def client(
    nursery: trio.Nursery, file: Path, port: int, named: Sequence[str], wall: str
) -> tuple[Realms, Events]:
    """A client that is told the addresses `named` by its realms file, and does not reach `wall`."""
    write_realms(file, port, named)
    transport = Walled(("127.0.0.1", 0))
    transport.wall = wall
    endpoint, events = Endpoint(transport, rng=random.Random(wall)), Events()
    realms = Realms(endpoint, RealmSettings(realms_file=file), events)
    await nursery.start(endpoint.run)
    await nursery.start(realms.run)
    return realms, events


def broken(events: Events) -> list[str]:
    return [said for kind, said in events.said if kind == "broken"]


@pytest.mark.timeout(60)
async def test_clients_in_either_network(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, nursery):
        found = []
        for number, (named, wall) in enumerate(((TOLD, "127.0.72."), (OTHER, "127.0.71."))):
            realms, events = await client(nursery, tmp_path / f"realms{number}", port, named, wall)
            realm = await realms.realm(REALM)
            volume = await realm.volume("/")
            attributes = await volume.group.get_attr(Fid.root(volume.id), ANYUSER)
            assert attributes.promised, "both servers call back, each from where it was called"
            assert {replica.server.address for replica in volume.replicas} == {(host, port) for host in named}
            found.append((events, volume))
        (told, volume), (_, writer) = found
        assert not broken(told)
        status = (await volume.group.get_attr(Fid.root(volume.id), ANYUSER)).status
        access = (await volume.group.get_acl(Fid.root(volume.id), ANYUSER)).text
        await writer.group.set_acl(Fid.root(volume.id), access, status, StoreId(77, 1), ANYUSER)
        with trio.fail_after(10):
            while len(broken(told)) < len(TOLD):  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert {said.split()[0] for said in broken(told)} == set(TOLD)


@pytest.mark.timeout(60)
async def test_one_client_that_uses_both_addresses_of_a_server(tmp_path: Path) -> None:
    """As RPC2 has it these are two servers; answers come from where the question went."""
    async with serving(tmp_path) as (port, nursery):
        endpoint = Endpoint(await udp_transport(("127.0.0.1", 0)), rng=random.Random(5))
        await nursery.start(endpoint.run)
        realms, _ = await client(nursery, tmp_path / "realms", port, (*TOLD, *OTHER), "nothing")
        realm = await realms.realm(REALM)
        servers = [realm.server_at(host) for host in (*TOLD, *OTHER)]
        for _ in range(3):
            for server in servers:
                assert await server.reach()
