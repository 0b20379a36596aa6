"""Servers that die, return, move or forget us: one short wait at most, and everybody is found again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from realmfs.realms.lookup import MIN_TTL, Answer, RootServer
from realmfs.realms.realms import Realms
from realmfs.realms.server import State
from realmfs.realms.settings import RealmSettings
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.service import Address, Transport
from realmfs.vice.calls import GetAcl, GetAttr, GetTime, NewConnectFS
from realmfs.vice.errors import CodaError
from tests.t3_realms.vicepeer import DIRECTORY, FILE, VOLUME, replicated
from tests.t3_realms.world import CLIENT, HOSTS, World

SHORT = 3.0
NEW = "10.0.0.33"


async def all_up(world: World) -> None:
    group = await world.group()
    await group.get_attr(FILE, ANYUSER)
    assert all(server.state is State.UP for server in group.core.servers.values())


async def spent(world: World) -> float:
    start = trio.current_time()
    await (await world.group()).get_attr(FILE, ANYUSER)
    return trio.current_time() - start


@pytest.mark.parametrize("slot", [0, 1, 2])
async def test_a_dead_server_costs_one_short_wait_then_none(servers: World, slot: int) -> None:
    servers.net.latency = 0.001
    await all_up(servers)
    servers.stop_peer(HOSTS[slot])
    assert await spent(servers) < SHORT
    for _ in range(10):
        assert await spent(servers) < 0.05
        await trio.sleep(1)


async def test_a_death_in_the_middle_of_a_long_call_costs_others_one_short_wait(servers: World) -> None:
    """Who waits for the long call is content with checks that become rare; who comes later is not."""
    servers.net.latency = 0.001
    await all_up(servers)
    group = await servers.group()
    servers.peers[1].delay[GetAcl] = 100.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(group.get_acl, FILE, ANYUSER, patience=90.0))
        for pause in (5.0, 15.0, 10.0, 7.0):
            await trio.sleep(pause)
            assert await spent(servers) < 0.05
        await trio.sleep(3.0)
        servers.stop_peer(HOSTS[1])
        assert await spent(servers) < SHORT
        nursery.cancel_scope.cancel()


async def test_all_are_back_within_two_seconds_of_the_link(servers: World) -> None:
    servers.net.latency = 0.005
    await all_up(servers)
    for away in (5.0, 37.0, 200.0):
        servers.net.partition(CLIENT)
        with pytest.raises(CodaError):
            await (await servers.group()).get_attr(FILE, ANYUSER)
        await trio.sleep(away)
        servers.net.heal()
        servers.realms.network_changed()
        await trio.sleep(2.0)
        group = await servers.group()
        assert all(server.state is State.UP for server in group.core.servers.values())
        assert await spent(servers) < 0.1


async def test_who_returns_first_has_the_others_tried_at_once(servers: World) -> None:
    """The servers' own network was away: nothing on this machine tells that it is back."""
    servers.net.latency = 0.005
    await all_up(servers)
    servers.net.partition(CLIENT)
    with pytest.raises(CodaError):
        await (await servers.group()).get_attr(FILE, ANYUSER)
    group = await servers.group()
    await trio.sleep(60)
    servers.net.heal()
    while not any(server.state is State.UP for server in group.core.servers.values()):  # noqa: ASYNC110
        await trio.sleep(0.01)
    await trio.sleep(1.0)
    assert all(server.state is State.UP for server in group.core.servers.values())


async def test_a_new_nat_mapping_is_survived(servers: World) -> None:
    """Our packets come from another port: a server takes us for somebody else, to whom it owes nothing."""
    servers.net.latency = 0.001
    await all_up(servers)
    port = servers.endpoint._transport
    for number in (50_000, 50_001):
        attributes = await (await servers.group()).get_attr(DIRECTORY, ANYUSER)
        assert attributes.promised
        ups = servers.events.count("up")
        servers.net.move(port, (CLIENT, number))  # type: ignore[arg-type]  # it is a FakePort
        assert await spent(servers) < SHORT
        await trio.sleep(35)
        assert all((CLIENT, number) in peer.channels for peer in servers.peers), "they call back there"
        assert servers.events.count("up") == ups + len(HOSTS), "what was promised at the old port is void"


async def test_a_server_with_a_new_address_is_followed(
    servers: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = list(HOSTS)

    async def find(name: str, *_: object) -> Answer:
        return Answer(tuple(RootServer(f"s{i}", (host, 2432)) for i, host in enumerate(where)), 600.0)

    monkeypatch.setattr(servers.realms._lookup, "find", find)
    await all_up(servers)
    (await servers.realm()).set_root_servers((await find("")).servers, 600.0)
    servers.stop_peer(HOSTS[1])
    where[1] = NEW
    moved = await servers.start_peer(NEW, 1, servers.peers[1])
    for peer in (servers.peers[0], moved, servers.peers[2]):
        peer.volumes |= replicated(VOLUME, *where)
        peer.volumes["/"] = peer.volumes[f"v{VOLUME:x}"]
    await spent(servers)
    await trio.sleep(30)
    assert ("moved", f"{HOSTS[1]} {NEW}") in servers.events.said
    volume = await servers.volume()
    assert [replica.server.address[0] for replica in volume.replicas] == where
    await volume.group.get_attr(FILE, ANYUSER)
    assert moved.asked(GetAttr)
    shown = {server.address[0]: server.state for server in servers.realms.servers()}
    assert shown == dict.fromkeys(where, State.UP), (
        "nobody waits for, or is shown, who was at the old address"
    )


async def test_a_server_that_is_named_no_more_but_has_volumes_is_waited_for(servers: World) -> None:
    await all_up(servers)
    realm = await servers.realm()
    realm.set_root_servers([entry for entry in realm.known.servers if entry.address[0] != HOSTS[1]], 600.0)
    await trio.sleep(1.0)
    servers.stop_peer(HOSTS[1])
    await spent(servers)
    servers.peers[1] = await servers.start_peer(HOSTS[1], 1, servers.peers[1])
    await trio.sleep(5.0)
    assert all(server.state is State.UP for server in servers.realms.servers())
    assert len(servers.realms.servers()) == len(HOSTS)


async def test_two_servers_that_move_one_after_the_other_are_both_followed(
    servers: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = list(HOSTS)

    async def find(name: str, *_: object) -> Answer:
        return Answer(tuple(RootServer(f"s{i}", (host, 2432)) for i, host in enumerate(where)), 86_400.0)

    monkeypatch.setattr(servers.realms._lookup, "find", find)
    await all_up(servers)
    (await servers.realm()).set_root_servers((await find("")).servers, 86_400.0)
    for slot, host in ((1, NEW), (2, "10.0.0.34")):
        servers.stop_peer(HOSTS[slot])
        where[slot] = host
        servers.peers[slot] = await servers.start_peer(host, slot, servers.peers[slot])
        for peer in servers.peers:
            peer.volumes |= replicated(VOLUME, *where)
            peer.volumes["/"] = peer.volumes[f"v{VOLUME:x}"]
        await spent(servers)
        await trio.sleep(20.0)
    await trio.sleep(MIN_TTL)
    volume = await servers.volume()
    assert [replica.server.address[0] for replica in volume.replicas] == where


async def test_the_scm_is_nobody_special(servers: World) -> None:
    servers.stop_peer(HOSTS[0])
    group = await servers.group()
    attributes = await group.get_attr(FILE, ANYUSER)
    assert attributes.promised
    assert not servers.peers[0].asked(NewConnectFS)


async def test_a_loaded_server_is_not_dead(servers: World) -> None:
    servers.net.latency = 0.02
    await all_up(servers)
    servers.each(lambda peer: peer.delay.__setitem__(GetAttr, 6.0))
    servers.each(lambda peer: peer.delay.__setitem__(GetTime, 0.5))
    servers.each(lambda peer: peer.delay.__setitem__(NewConnectFS, 0.5))
    assert await spent(servers) >= 6.0
    assert servers.events.count("down") == 0


async def test_leave_is_taken_for_a_run_that_crashed(
    servers: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(work: Callable[..., object], *args: object) -> object:
        """No threads: while one works in real time, the clock of the test would leap."""
        return work(*args)

    monkeypatch.setattr("realmfs.realms.memory.trio.to_thread.run_sync", at_once)
    settings = RealmSettings(realms_file=tmp_path / "realms")
    old = servers.net.transport((CLIENT, 41_000))
    ports = [41_000]

    async def run(transport: Transport, *, crash: bool) -> None:
        endpoint = Endpoint(transport)
        realms = Realms(endpoint, settings, servers.events, tmp_path / "state")

        async def open_port(address: Address) -> Transport:
            ports.append(address[1])
            return servers.net.transport((CLIENT, address[1]))

        realms.context.open_port = open_port
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            await nursery.start(realms.run)
            volume = await (await realms.realm("r.test")).volume("/")
            assert (await volume.group.get_attr(FILE, ANYUSER)).promised
            await trio.sleep(10)
            assert f'"port": {transport.address[1]}' in (tmp_path / "state" / "realms.json").read_text()
            if not crash:
                await realms.leave()
            nursery.cancel_scope.cancel()

    await run(old, crash=True)
    assert all((CLIENT, 41_000) in peer.channels for peer in servers.peers)
    await run(servers.net.transport((CLIENT, 41_001)), crash=False)
    assert ports == [41_000, 41_000], "once from the old port"
    assert all((CLIENT, 41_000) not in peer.channels for peer in servers.peers)
    await run(servers.net.transport((CLIENT, 41_002)), crash=False)
    assert ports == [41_000, 41_000], "who has left is not spoken for"
