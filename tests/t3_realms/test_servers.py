"""realms.md §6: servers come, go, are restarted, forget us; who is told, and how long anybody waits."""

import pytest
import trio

from realmfs.realms.server import State
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.codes import Rpc2Code
from realmfs.vice.calls import GetAttr, GetTime, NewConnectFS, TokenExpired
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid
from tests.t3_realms.vicepeer import FILE, ROOT
from tests.t3_realms.world import HOSTS, World


async def test_a_server_that_cannot_call_back_says_so(servers: World) -> None:
    servers.peers[1].on[NewConnectFS] = lambda _: Code.EPIPE
    await (await servers.group()).get_attr(FILE, ANYUSER)
    server = next(server for server in servers.realms.servers() if server.address[0] == HOSTS[1])
    assert server.state is State.DOWN
    assert "cannot call us back" in server.reason


async def test_the_first_contact(servers: World) -> None:
    group = await servers.group()
    attributes = await group.get_attr(FILE, ANYUSER)
    assert attributes.status.length == 8
    assert attributes.promised
    assert all(server.state is State.UP for server in servers.realms.servers())
    assert sorted(servers.events.said) == [("up", host) for host in HOSTS]
    for peer in servers.peers:
        assert type(peer.calls[0]) is NewConnectFS
        assert peer.calls[0].client.venus == b"realmfs"
        assert len([call for call in peer.calls if getattr(call, "fid", None) == Fid.zero()]) == 1


async def test_one_connection_serves_call_after_call(servers: World) -> None:
    group = await servers.group()
    for _ in range(20):
        await group.get_attr(FILE, ANYUSER)
    assert len(servers.peers[2].asked(NewConnectFS)) == 1


async def test_parallel_callers_stay_within_the_limit(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.each(lambda peer: peer.delay.__setitem__(GetAttr, 0.5))
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(group.get_attr, FILE, ANYUSER)
    limit = servers.realms.context.settings.connections
    assert all(len(server.links) <= limit for server in servers.realms.servers())
    assert len(servers.peers[0].asked(NewConnectFS)) <= limit


async def test_a_dead_server_costs_one_short_wait(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.net.partition(HOSTS[1])
    start = trio.current_time()
    attributes = await group.get_attr(FILE, ANYUSER)
    assert trio.current_time() - start < 6
    assert attributes.promised, "the servers that are up have all promised"
    assert ("down", HOSTS[1]) in servers.events.said
    assert group.slots_up == (0, 2)
    for _ in range(10):
        start = trio.current_time()
        await group.get_attr(FILE, ANYUSER)
        assert trio.current_time() - start < 0.1
    assert group.reachable


@pytest.mark.parametrize("dead", HOSTS)
async def test_a_server_dead_from_the_start_costs_one_short_wait(servers: World, dead: str) -> None:
    servers.net.partition(dead)
    start = trio.current_time()
    group = await servers.group()
    assert (await group.get_attr(FILE, ANYUSER)).promised
    assert trio.current_time() - start < 2.5
    assert servers.events.count("down", dead) == 1
    start = trio.current_time()
    await group.get_attr(FILE, ANYUSER)
    assert trio.current_time() - start < 0.1


async def test_a_returning_server_is_seen_by_a_quick_probe(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.net.partition(HOSTS[1])
    await group.get_attr(FILE, ANYUSER)
    ups = servers.events.count("up", HOSTS[1])
    servers.net.heal()
    await trio.sleep(5)
    assert servers.events.count("up", HOSTS[1]) == ups + 1
    assert group.slots_up == (0, 1, 2)


async def test_probes_of_a_dead_server_become_rare(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.net.partition(HOSTS[1])
    await group.get_attr(FILE, ANYUSER)
    tries: list[float] = []

    def tap(datagram: bytes, sender: tuple[str, int], receiver: tuple[str, int]) -> bool:
        if receiver[0] == HOSTS[1] and (not tries or trio.current_time() - tries[-1] > 3.5):
            tries.append(trio.current_time())
        return True

    servers.net.tap = tap
    await trio.sleep(1200)
    assert 8 <= len(tries) <= 16


async def test_nobody_left(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.net.partition(*HOSTS, "10.0.0.9")
    start = trio.current_time()
    with pytest.raises(CodaError) as caught:
        await group.get_attr(FILE, ANYUSER)
    assert caught.value.code is Code.ETIMEDOUT
    assert trio.current_time() - start < 6
    assert not group.reachable
    start = trio.current_time()
    with pytest.raises(CodaError):
        await group.get_attr(FILE, ANYUSER)
    assert trio.current_time() == start


async def test_a_restarted_server_is_noticed_in_the_next_call(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.events.said.clear()
    await servers.restart_peer(1)
    start = trio.current_time()
    attributes = await group.get_attr(FILE, ANYUSER)
    assert trio.current_time() - start < 4
    assert attributes.promised
    assert servers.events.said == [("down", HOSTS[1]), ("up", HOSTS[1])]
    assert servers.peers[1].asked(GetAttr)


async def test_a_restarted_server_is_noticed_by_a_probe_while_promises_stand(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.events.said.clear()
    await servers.restart_peer(2)
    await trio.sleep(servers.realms.context.settings.probe_promised + 10)
    assert ("up", HOSTS[2]) in servers.events.said


async def test_a_server_that_forgot_us_is_bound_again(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.events.said.clear()
    peer = servers.peers[0]
    answers = [Rpc2Code.NAKED]
    peer.channels.clear()
    peer.on[GetAttr] = lambda request: answers.pop() if answers else peer.do_get_attr(request)
    attributes = await group.get_attr(FILE, ANYUSER)
    assert servers.events.said == [("up", HOSTS[0])], "its promises are gone; told once"
    assert attributes.promised
    assert len(peer.asked(NewConnectFS)) == 2


async def test_promising_servers_are_probed_every_half_minute(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    for _ in range(60):
        await trio.sleep(5)
        await group.get_attr(FILE, ANYUSER)  # other traffic does not replace the probe
    probes = [len(peer.asked(GetTime)) for peer in servers.peers]
    assert all(9 <= count <= 11 for count in probes)


async def test_idle_servers_without_promises_are_probed_seldom(servers: World) -> None:
    await servers.group()
    up = [s for s in servers.realms.servers() if s.state is State.UP]
    await trio.sleep(1000)
    assert up
    for server in up:
        peer = servers.peers[HOSTS.index(server.address[0])]
        assert 5 <= len(peer.asked(GetTime)) <= 7


async def test_a_probe_that_is_not_probed_back_voids_promises(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.events.said.clear()
    servers.peers[1].probes_back = False
    await trio.sleep(35)
    assert servers.events.said == [("up", HOSTS[1])]


@pytest.mark.parametrize("code", [Code.ENOTCONN, Code.EPIPE])
async def test_a_probe_that_finds_us_forgotten(servers: World, code: Code) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.events.said.clear()
    servers.peers[1].channels.clear()
    servers.peers[1].on[GetTime] = lambda _: code
    await trio.sleep(35)
    assert servers.events.count("up", HOSTS[1]) == 1
    assert len(servers.peers[1].asked(NewConnectFS)) == 2


async def test_broken_promises_are_told(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    before = servers.realms.breaks
    await servers.peers[1].break_promise(FILE)
    await servers.peers[1].break_promise(Fid(FILE.volume, 0, 0))
    await servers.peers[1].break_promise(Fid.zero())
    assert servers.realms.breaks == before + 2
    said = [text for kind, text in servers.events.said if kind == "broken"]
    assert said == [f"10.0.0.2 {FILE}", "10.0.0.2 7f000000.0.0"]


async def test_a_break_during_a_call_voids_its_promise(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.each(lambda peer: peer.delay.__setitem__(GetAttr, 0.05))

    async def breaks() -> None:
        await trio.sleep(0.02)
        await servers.peers[2].break_promise(ROOT)  # of something else: it might be this

    async with trio.open_nursery() as nursery:
        nursery.start_soon(breaks)
        assert not (await group.get_attr(FILE, ANYUSER)).promised
    assert (await group.get_attr(FILE, ANYUSER)).promised


async def test_contents_are_fetched_back_from_the_listener(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    servers.events.contents[FILE] = b"frozen" * 2000
    assert await servers.peers[0].fetch_back(FILE) == (0, b"frozen" * 2000)
    assert await servers.peers[0].fetch_back(ROOT) == (Code.ENOENT, b"")


async def test_leaving_is_told_to_every_server(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    start = trio.current_time()
    await servers.realms.leave()
    assert trio.current_time() - start < 0.1
    assert all(len(peer.asked(TokenExpired)) == 1 for peer in servers.peers)
    assert all(type(peer.calls[-1]) is TokenExpired for peer in servers.peers)


async def test_leaving_while_all_connections_are_busy(servers: World) -> None:
    group = await servers.group()
    servers.each(lambda peer: peer.delay.__setitem__(GetAttr, 5.0))

    async def waits() -> None:
        with pytest.raises(CodaError):
            await group.get_attr(FILE, ANYUSER)

    async with trio.open_nursery() as nursery:
        for _ in range(servers.realms.context.settings.connections):
            nursery.start_soon(waits)
        await trio.sleep(1)
        await servers.realms.leave()
    assert all(peer.asked(TokenExpired) for peer in servers.peers)


async def test_leaving_dead_servers_takes_a_second(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    servers.net.partition("10.0.0.9")
    start = trio.current_time()
    await servers.realms.leave(1.0)
    assert trio.current_time() - start <= 1.01


async def test_off_line_by_hand_and_back(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    await servers.realms.disconnect()
    assert all(peer.asked(TokenExpired) for peer in servers.peers)
    assert servers.events.count("down") == 3
    with pytest.raises(CodaError):
        await group.get_attr(FILE, ANYUSER)
    calls = sum(len(peer.calls) for peer in servers.peers)
    await trio.sleep(600)
    assert sum(len(peer.calls) for peer in servers.peers) == calls, "nothing is sent off line"
    await servers.realms.reconnect()
    await trio.sleep(1)
    assert servers.events.count("up") == 6
    assert (await group.get_attr(FILE, ANYUSER)).promised


async def test_a_busy_server_is_not_called_down_and_nobody_waits_longer_than_patience(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.peers[1].delay[GetAttr] = 40.0
    start = trio.current_time()
    with pytest.raises(CodaError) as caught:
        await group.get_attr(FILE, ANYUSER)
    assert caught.value.code is Code.EWOULDBLOCK
    assert trio.current_time() - start <= 10.01
    assert servers.events.count("down") == 0


async def test_a_caller_that_gives_up_leaves_nothing_behind(servers: World) -> None:
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    servers.peers[1].delay[GetAttr] = 1.0
    with trio.move_on_after(0.2) as scope:
        await group.get_attr(FILE, ANYUSER)
    assert scope.cancelled_caught
    servers.peers[1].delay[GetAttr] = 0.0
    assert (await group.get_attr(FILE, ANYUSER)).promised
    assert not any(list(server.links.busy) for server in servers.realms.servers())
