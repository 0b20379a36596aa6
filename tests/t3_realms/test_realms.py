"""realms.md §2, §3, §5: realms found, remembered and refreshed; root volumes, locations, moves; who waits
for whom."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from realmfs.realms.memory import FILE_NAME, Memory
from realmfs.realms.realms import Realms
from realmfs.realms.server import State
from realmfs.realms.settings import RealmSettings
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.endpoint import Endpoint
from realmfs.vice.calls import GetRootVolume, GetVolumeInfo
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import VolumeInfo, VolumeType
from tests.dnsserver import DnsServer, dns_server
from tests.fakenet import FakeNetwork
from tests.t3_realms.vicepeer import FILE, VOLUME, replicated
from tests.t3_realms.world import CLIENT, HOSTS, TIMERS, Events, World

# locations, in the world of three servers


async def test_the_root_volume_is_asked_once(servers: World) -> None:
    realm = await servers.realm()
    assert await realm.root_volume() == "/"
    assert await realm.root_volume() == "/"
    assert sum(len(peer.asked(GetRootVolume)) for peer in servers.peers) == 1


async def test_each_replica_is_looked_up(servers: World) -> None:
    volume = await servers.volume()
    assert volume.id == VOLUME
    assert volume.is_replicated
    assert [(r.slot, r.volume_id, r.server.address) for r in volume.replicas] == [
        (slot, (slot + 1) << 24 | 1, (host, 2432)) for slot, host in enumerate(HOSTS)
    ]
    names = [request.name for peer in servers.peers for request in peer.asked(GetVolumeInfo)]
    assert sorted(names) == [b"/", b"16777217", b"33554433", b"50331649"]


async def test_slots_without_a_server_stay_empty(servers: World) -> None:
    whole = servers.peers[0].volumes["/"]
    hosts = (whole.servers[0], 0, whole.servers[2])
    gap = VolumeInfo(VOLUME, VolumeType.REPLICATED, whole.related, hosts, whole.replica_ids)
    servers.each(lambda peer: peer.volumes.__setitem__("gap", gap))
    volume = await (await servers.realm()).volume("gap")
    assert [replica.slot for replica in volume.replicas] == [0, 2]
    stamps = await volume.group.volume_stamps(ANYUSER)
    assert stamps.stamps == (100, 0, 102)


async def test_other_kinds_of_volumes(servers: World) -> None:
    number = int.from_bytes(bytes([10, 0, 0, 2]), "big")
    related = (0x2000009, 0, 0, 0, 0x2000009)
    alone = VolumeInfo(0x2000009, VolumeType.NON_REPLICATED, related, (number,), (0,) * 8)
    servers.each(lambda peer: peer.volumes.__setitem__("alone", alone))
    volume = await (await servers.realm()).volume("alone")
    assert not volume.is_replicated
    assert [(r.slot, str(r.server)) for r in volume.replicas] == [(0, HOSTS[1])]


async def test_by_id_known_or_not(servers: World) -> None:
    realm = await servers.realm()
    assert realm.known_volume(VOLUME) is None
    volume = await realm.volume_by_id(VOLUME)
    assert volume.name == "7f000000"
    assert await realm.volume("/") is volume
    assert volume.name == "/"
    assert await realm.volume_by_id(VOLUME) is volume
    assert realm.known_volume(VOLUME) is volume
    with pytest.raises(CodaError) as caught:
        await realm.volume_by_id(12345)
    assert caught.value.code is Code.ENXIO


async def test_a_volume_that_moves(servers: World) -> None:
    volume = await servers.volume()
    old = volume.group
    servers.events.said.clear()
    there = replicated(VOLUME, *HOSTS[:2])
    servers.each(lambda peer: peer.volumes.update(there, **{"/": there[str(VOLUME)]}))
    await trio.sleep(700)
    assert await servers.volume() is volume, "known: at once, and asked again in the background"
    await trio.sleep(1)
    assert len(volume.replicas) == 2
    assert volume.group is not old
    assert servers.events.count("up") == 2, "all that was promised is void"


async def test_a_volume_known_by_its_id_alone_is_followed(servers: World) -> None:
    """Its name here is made up, and means nothing to servers."""
    realm = await servers.realm()
    volume = await realm.volume_by_id(VOLUME)
    there = replicated(VOLUME, *HOSTS[:2])
    servers.each(lambda peer: peer.volumes.update(there))
    await trio.sleep(700)
    assert await realm.volume_by_id(VOLUME) is volume
    await trio.sleep(1)
    assert realm.known.by_id(VOLUME) is not None
    assert len(volume.replicas) == 2


async def test_a_volume_that_is_gone(servers: World) -> None:
    realm = await servers.realm()
    await realm.volume("/")
    servers.each(lambda peer: peer.volumes.clear())
    await trio.sleep(700)
    await realm.volume("/")
    await trio.sleep(1)
    with pytest.raises(CodaError) as caught:
        await realm.volume("/")
    assert caught.value.code is Code.ENXIO


async def test_a_dead_root_server_is_overtaken(servers: World) -> None:
    realm = await servers.realm()
    servers.net.partition(HOSTS[0])
    servers.net.partition(HOSTS[1])
    start = trio.current_time()
    await realm.volume("/")
    assert trio.current_time() - start < 4


async def test_volumes_are_known_without_servers(servers: World) -> None:
    volume = await servers.volume()
    servers.net.partition(CLIENT)
    await trio.sleep(1000)
    start = trio.current_time()
    realm = await servers.realm()
    assert await realm.volume("/") is volume
    assert trio.current_time() == start
    with pytest.raises(CodaError) as caught:
        await realm.volume("never-seen")
    assert caught.value.code is Code.ETIMEDOUT


async def test_a_dead_realm_does_not_delay_a_live_one(servers: World, tmp_path: Path) -> None:
    file = tmp_path / "realms"
    file.write_text(file.read_text() + "dead.test 10.0.5.1 10.0.5.2\n")
    group = await servers.group()
    dead = await servers.realms.realm("dead.test")

    async def waits() -> None:
        with pytest.raises(CodaError):
            await dead.volume("/")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(waits)
        await trio.sleep(0.1)
        for _ in range(100):
            start = trio.current_time()
            await group.get_attr(FILE, ANYUSER)
            assert trio.current_time() - start < 0.1
            await trio.sleep(0.05)
    start = trio.current_time()
    with pytest.raises(CodaError):
        await dead.volume("/")
    assert trio.current_time() - start < 0.1, "known to be down by now"


async def test_one_machine_in_two_realms(servers: World, tmp_path: Path) -> None:
    file = tmp_path / "realms"
    file.write_text(file.read_text() + f"other.test {HOSTS[0]}\n")
    group = await servers.group()
    other = await (await servers.realms.realm("other.test")).volume("/")
    await group.get_attr(FILE, ANYUSER)
    await other.group.get_attr(FILE, ANYUSER)
    servers.events.said.clear()
    await servers.peers[0].break_promise(FILE)
    assert [kind for kind, _ in servers.events.said] == ["broken", "broken"]


async def test_ports_by_the_realms_file(servers: World, tmp_path: Path) -> None:
    file = tmp_path / "realms"
    file.write_text("ports.test 10.0.0.1:12432 10.0.0.2\nsame.test 10.0.0.1:9000 10.0.0.2:9000\n")
    realm = await servers.realms.realm("ports.test")
    assert [realm.port_at(f"10.0.0.{i}") for i in (1, 2, 3)] == [12432, 2432, 2432]
    realm = await servers.realms.realm("same.test")
    assert realm.port_at("10.0.0.3") == 9000


async def test_check_probes_all(servers: World) -> None:
    await (await servers.group()).get_attr(FILE, ANYUSER)
    servers.net.partition(HOSTS[2])
    await servers.realms.check()
    assert [server.state for server in sorted(servers.realms.servers(), key=str)] == [
        State.UP,
        State.UP,
        State.DOWN,
    ]
    servers.net.heal()
    await servers.realms.check()
    assert all(server.state is State.UP for server in servers.realms.servers())


# names, with a DNS server in real time


class Client:
    """Realms on a network without servers."""

    def __init__(
        self, dns: DnsServer, nursery: trio.Nursery, state: Path | None = None, **times: float
    ) -> None:
        self.endpoint = Endpoint(FakeNetwork().transport((CLIENT, 0)), timers=TIMERS)
        usual = RealmSettings(name_server=dns.address, housekeeping=0.1)
        settings = replace(usual, **times)  # type: ignore[arg-type]  # names of fields
        self.realms = Realms(self.endpoint, settings, Events(), state)
        self.nursery = nursery

    async def start(self) -> Realms:
        await self.nursery.start(self.endpoint.run)
        await self.nursery.start(self.realms.run)
        return self.realms


async def test_unknown_names_are_remembered_as_such(nursery: trio.Nursery) -> None:
    async with dns_server() as dns:
        realms = await Client(dns, nursery).start()
        for _ in range(3):
            with pytest.raises(CodaError) as caught:
                await realms.realm("nobody.test")
            assert caught.value.code is Code.ENOENT
        assert len(dns.questions) == 2, "SRV and A, once"
        nursery.cancel_scope.cancel()


async def test_what_is_remembered_as_unknown_is_asked_again_some_time(nursery: trio.Nursery) -> None:
    async with dns_server() as dns:
        realms = await Client(dns, nursery, negative=0.0).start()
        with pytest.raises(CodaError):
            await realms.realm("late.test")
        dns.a("late.test", "10.0.0.1")
        assert (await realms.realm("LATE.test.")).name == "late.test"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", [".git", "autorun.inf", "Thumbs.db", "home", "localhost", "#x", "a/b", ""])
async def test_impossible_names(nursery: trio.Nursery, name: str) -> None:
    async with dns_server() as dns:
        realms = await Client(dns, nursery).start()
        with pytest.raises(CodaError) as caught:
            await realms.realm(name)
        assert caught.value.code is Code.ENOENT
        assert not dns.questions
        nursery.cancel_scope.cancel()


async def test_many_ask_and_dns_is_asked_once(nursery: trio.Nursery) -> None:
    async with dns_server() as dns:
        dns.srv("r.test", (0, 0, 2432, "s.r.test"))
        dns.a("s.r.test", "10.0.0.1", "10.0.0.2")
        realms = await Client(dns, nursery).start()
        found = []

        async def find() -> None:
            found.append(await realms.realm("r.test"))

        async with trio.open_nursery() as many:
            for _ in range(10):
                many.start_soon(find)
        assert len(set(map(id, found))) == 1
        assert len(dns.questions) == 2
        nursery.cancel_scope.cancel()


async def test_no_answer_is_no_denial(nursery: trio.Nursery) -> None:
    async with dns_server() as dns:
        dns.silent = True
        realms = await Client(dns, nursery, unanswered=0.5).start()
        start = trio.current_time()
        for _ in range(5):
            with pytest.raises(CodaError) as caught:
                await realms.realm("r.test", patience=0.2)
            assert caught.value.code is Code.ETIMEDOUT
        assert trio.current_time() - start < 0.6, "whoever tries a name many times waits once"
        dns.silent = False
        await trio.sleep(0.5)
        dns.a("r.test", "10.0.0.1")
        await realms.realm("r.test")
        nursery.cancel_scope.cancel()


async def test_a_start_without_network_knows_its_realms(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with dns_server() as dns:
        dns.srv("r.test", (0, 0, 12432, "s.r.test"))
        dns.a("s.r.test", "10.0.0.1")
        async with trio.open_nursery() as first:
            realms = await Client(dns, first, tmp_path).start()
            realm = await realms.realm("r.test")
            assert realms.known() == [], "found, but never reached"
            realm.reached()
            first.cancel_scope.cancel()
        assert (tmp_path / FILE_NAME).exists()
        dns.silent = True
        realms = await Client(dns, nursery, tmp_path).start()
        assert realms.known() == ["r.test"]
        realm = await realms.realm("r.test")
        assert [server.address for server in realm.root_servers] == [("10.0.0.1", 12432)]
        nursery.cancel_scope.cancel()


async def test_names_are_looked_up_again_in_the_background(nursery: trio.Nursery) -> None:
    async with dns_server() as dns:
        dns.a("r.test", "10.0.0.1")
        realms = await Client(dns, nursery).start()
        realm = await realms.realm("r.test")
        dns.a("r.test", "10.0.0.2")
        realm.expires = 0.0
        with trio.fail_after(10):
            while [entry.address[0] for entry in realm.known.servers] != ["10.0.0.2"]:
                await trio.testing.wait_all_tasks_blocked(0.05)
        dns.remove("r.test", "A")
        realm.expires = 0.0
        before = len(dns.questions)
        with trio.fail_after(10):
            while len(dns.questions) == before:
                await trio.testing.wait_all_tasks_blocked(0.05)
        assert realm.known.servers, "the last good answer stays"
        nursery.cancel_scope.cancel()


async def test_forgetting(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with dns_server() as dns:
        dns.a("r.test", "10.0.0.1")
        realms = await Client(dns, nursery, tmp_path).start()
        (await realms.realm("r.test")).reached()
        realms.forget("R.test")
        assert realms.known() == []
        assert realms.realm_named("r.test") is None
        nursery.cancel_scope.cancel()
    assert "r.test" not in Memory(tmp_path).realms
