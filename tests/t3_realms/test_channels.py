"""UDP or TLS: which way packets go, what is said when they may not, and tunnels that break."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from realmfs.realms.server import Server, State
from realmfs.realms.settings import ChannelPolicy, RealmSettings, Tls
from realmfs.realms.types import ANYUSER
from realmfs.rpc2 import accept
from realmfs.rpc2.errors import BrokenTunnel
from realmfs.rpc2.header import SECURE_CAPABLE, Header, Op, split
from realmfs.rpc2.service import Address, Transport, TunnelAddress
from realmfs.rpc2.tls import server_context
from realmfs.rpc2.transfer import BytesSink
from realmfs.rpc2.tunnel import Tunnel, accept_tunnel
from realmfs.vice.calls import FetchPartial, GetAttr, NewConnectFS, TokenExpired
from realmfs.vice.errors import CodaError, Code
from tests.certificates import DAY, Authority
from tests.t3_realms.vicepeer import FILE, vector
from tests.t3_realms.world import HOSTS, World, world

pytestmark = pytest.mark.usefixtures("autojump_clock")


@dataclass
class Listeners:
    """TCP on the fake network: every host of the realm listens, unless it is in `deaf`."""

    world: World
    authority: Authority
    deaf: set[str] = field(default_factory=set)
    tunnels: list[Tunnel] = field(default_factory=list)
    """The servers' ends, in the order in which they were made."""
    tries: int = 0
    hasty: bool = False
    """Break each tunnel as soon as something has come through it."""

    async def connect(self, address: Address) -> trio.abc.Stream:
        self.tries += 1
        await trio.lowlevel.checkpoint()
        if address[0] in self.deaf:
            raise ConnectionRefusedError(111, "Connection refused")
        near, far = memory_stream_pair()
        self.world.nursery.start_soon(self._serve, HOSTS.index(address[0]), far)
        return near

    async def _serve(self, slot: int, stream: trio.abc.Stream) -> None:
        files = self.authority.directory
        context = server_context(files / "server.crt", files / "server.key")
        try:
            tunnel = await accept_tunnel(stream, context, 5.0)
        except BrokenTunnel:
            return
        self.tunnels.append(tunnel)
        if self.hasty:
            self.world.nursery.start_soon(self._cut, tunnel)
        await self.world.peers[slot].endpoint.carry(tunnel)

    async def _cut(self, tunnel: Tunnel) -> None:
        await trio.sleep(0.01)
        tunnel.close()

    def datagrams(self) -> int:
        """How many datagrams anybody ever sent."""
        return self.world.net.counters["sent"]


@asynccontextmanager
async def channels(
    tmp_path: Path, tls: Tls, *, pinned: bool = True, names: tuple[str, ...] = HOSTS, until: int = 1
) -> AsyncIterator[tuple[World, Listeners]]:
    """A realm whose servers listen for TLS with a certificate for `names`."""
    authority = Authority(tmp_path / "ca")
    authority.issue(*names, since=-9 * DAY, until=until * DAY)
    policy = ChannelPolicy(tls, authority.certificate if pinned else tmp_path / "ca" / "r.test.pem")
    settings = RealmSettings(realms_file=tmp_path / "realms", channels=lambda realm: policy)
    async with world(tmp_path, settings=settings) as w:
        listeners = Listeners(w, authority)
        w.realms.context.connect = listeners.connect
        yield w, listeners


def server(w: World, slot: int = 0) -> Server:
    return next(each for each in w.realms.servers() if each.address[0] == HOSTS[slot])


async def fetched(w: World) -> bytes:
    sink = BytesSink()
    await (await w.group()).fetch(FILE, ANYUSER, lambda at: sink)
    return sink.data


async def test_with_require_no_datagram_leaves(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE) as (w, listeners):
        assert await fetched(w) == b"contents"
        attributes = await (await w.group()).get_attr(FILE, ANYUSER)
        assert attributes.promised
        assert all(each.protection.startswith("TLSv1.3, ") for each in w.realms.servers())
        assert all(each.protection.endswith("+ AES-CCM") for each in w.realms.servers())
        await w.peers[1].break_promise(FILE)
        assert w.events.count("broken", f"{HOSTS[1]} {FILE}") == 1
        await trio.sleep(400)  # probes, and theirs
        await w.realms.check()
        await w.realms.leave()
        assert all(peer.asked(TokenExpired) for peer in w.peers)
        assert listeners.datagrams() == 0
        assert listeners.tries == 3


async def test_with_require_no_datagram_takes_leave_after_a_crash(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE) as (w, listeners):
        assert await fetched(w) == b"contents"
        opened: list[Address] = []

        async def open_port(address: Address) -> Transport:
            opened.append(address)
            return w.net.transport(address)

        w.realms.context.open_port = open_port
        await w.realms._leave_late(41_000)
        assert opened == []
        assert listeners.datagrams() == 0


async def test_with_off_nobody_connects(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.OFF) as (w, listeners):
        assert await fetched(w) == b"contents"
        assert listeners.tries == 0
        assert server(w).protection == "UDP, AES-CCM"


async def test_auto_goes_through_tls_to_our_own_if_their_authority_is_known(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.AUTO) as (w, listeners):
        assert await fetched(w) == b"contents"
        assert all(each.ours for each in w.realms.servers())
        assert (await w.group()).ours
        assert all(isinstance(each.channel.peer, TunnelAddress) for each in w.realms.servers())
        assert all(len(peer.asked(NewConnectFS)) == 1 for peer in w.peers), "the first bind led to nothing"
        assert w.events.said.count(("up", HOSTS[0])) == 1
        before = listeners.datagrams()
        await (await w.group()).get_attr(FILE, ANYUSER)
        assert listeners.datagrams() == before


@pytest.mark.parametrize("pinned", [True, False], ids=["reference", "unknown authority"])
async def test_auto_stays_with_udp_otherwise(
    tmp_path: Path, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pinned:
        monkeypatch.setattr(accept, "pack_init4", lambda first, _: first.to_bytes(4, "big") + bytes(20))
    async with channels(tmp_path, Tls.AUTO, pinned=pinned) as (w, listeners):
        assert await fetched(w) == b"contents"
        assert [each.ours for each in w.realms.servers()] == [not pinned] * 3
        assert listeners.tries == 0


async def test_prefer_takes_udp_where_nobody_listens_and_asks_again_later(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.PREFER) as (w, listeners):
        listeners.deaf = set(HOSTS)
        assert await fetched(w) == b"contents"
        assert listeners.tries == 3
        assert server(w).protection == "UDP, AES-CCM"
        listeners.deaf = set()
        await trio.sleep(100)
        assert await fetched(w) == b"contents"
        assert not isinstance(server(w).channel.peer, TunnelAddress), "never in the middle"
        await w.restart_peer(0)
        await trio.sleep(100)
        w.net.partition(HOSTS[0])
        await trio.sleep(200)
        w.net.heal()
        await trio.sleep(200)
        assert isinstance(server(w).channel.peer, TunnelAddress)


@pytest.mark.parametrize("tls", [Tls.PREFER, Tls.REQUIRE])
async def test_a_server_with_a_certificate_for_another_name_is_refused(tmp_path: Path, tls: Tls) -> None:
    async with channels(tmp_path, tls, names=("elsewhere.test",)) as (w, listeners):
        with pytest.raises(CodaError) as caught:
            await (await w.realm()).root_volume()
        assert caught.value.code is Code.ETIMEDOUT
        assert server(w).state is State.DOWN
        assert "its certificate is for elsewhere.test, not for 10.0.0.1" in server(w).reason
        await trio.sleep(60)
        assert listeners.datagrams() == 0
        assert server(w).state is State.DOWN
        assert listeners.tries < 60


async def test_the_right_certificate_ends_the_refusal(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE, until=-1) as (w, listeners):
        with pytest.raises(CodaError):
            await (await w.realm()).root_volume()
        assert "expired" in server(w).reason
        listeners.authority.issue(*HOSTS)
        await w.realms.check()
        assert await fetched(w) == b"contents"


async def test_require_without_an_authority_says_where_to_put_it(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE, pinned=False) as (w, listeners):
        with pytest.raises(CodaError):
            await (await w.realm()).root_volume()
        assert f"into {tmp_path / 'ca' / 'r.test.pem'}" in server(w).reason
        assert server(w).protection == "none yet: TLS is required"
        assert listeners.datagrams() == listeners.tries == 0


async def test_require_without_a_listener(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE) as (w, listeners):
        listeners.deaf = set(HOSTS)
        with pytest.raises(CodaError):
            await (await w.realm()).root_volume()
        assert server(w).reason == "no TLS on TCP port 2432: Connection refused"
        assert listeners.datagrams() == 0


async def test_a_broken_tunnel_voids_promises_and_is_built_anew(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE) as (w, listeners):
        group = await w.group()
        assert (await group.get_attr(FILE, ANYUSER)).promised
        ups, epoch = w.events.count("up", HOSTS[0]), server(w).epoch
        first = server(w).channel.peer
        await trio.sleep(10)
        listeners.tunnels[[t.peer[0] for t in listeners.tunnels].index("0.0.0.0")].close()
        await trio.sleep(3)
        lost = next(each for each in w.realms.servers() if each.channel.tunnels == 2)
        assert w.events.count("up", lost.address[0]) == ups + 1
        assert lost.epoch > epoch
        assert lost.channel.peer != first
        assert (await group.get_attr(FILE, ANYUSER)).promised
        assert w.events.count("down") == 0
        assert listeners.datagrams() == 0


@pytest.mark.parametrize("seed", range(6))
async def test_a_fetch_outlives_tunnels_that_break(tmp_path: Path, seed: int) -> None:
    """Each server's tunnel is cut again and again while a file comes; it comes whole, and in time."""
    rng = random.Random(seed)
    data = rng.randbytes(25_000_000)
    async with channels(tmp_path, Tls.REQUIRE) as (w, listeners):
        w.put(FILE, vector(3, 3, 3), data)
        w.each(lambda peer: peer.delay.__setitem__(FetchPartial, 0.2))
        group = await w.group()
        known = await group.get_attr(FILE, ANYUSER)
        received = bytearray(len(data))

        class At(BytesSink):
            def __init__(self, at: int) -> None:
                self.at = at

            def write(self, piece: bytes) -> None:
                received[self.at : self.at + len(piece)] = piece
                self.at += len(piece)

        async def cut(done: trio.Event) -> None:
            while not done.is_set():
                await trio.sleep(0.3 + 0.9 * rng.random())
                for tunnel in rng.sample(listeners.tunnels[-3:], min(2, len(listeners.tunnels))):
                    tunnel.close()

        done = trio.Event()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut, done)
            await group.fetch(FILE, ANYUSER, At, vv=known.status.vv, length=len(data))
            done.set()
        assert bytes(received) == data
        assert sum(each.channel.tunnels for each in w.realms.servers()) > 3, "or nothing broke"
        assert trio.current_time() - began < 60
        assert listeners.datagrams() == 0


async def test_a_tunnel_that_cannot_be_kept_costs_a_bounded_number_of_tries(tmp_path: Path) -> None:
    async with channels(tmp_path, Tls.REQUIRE) as (w, listeners):
        listeners.hasty = True
        w.each(lambda peer: peer.delay.__setitem__(GetAttr, 1.0))
        w.each(lambda peer: peer.delay.__setitem__(NewConnectFS, 1.0))
        began = trio.current_time()
        with pytest.raises(CodaError):
            await (await w.group()).get_attr(FILE, ANYUSER)
        assert trio.current_time() - began < 25
        await trio.sleep(200)
        assert listeners.tries < 3 * 250 / 1.0
        assert listeners.datagrams() == 0
        listeners.hasty = False
        w.each(lambda peer: peer.delay.clear())
        await trio.sleep(10)
        assert await fetched(w) == b"contents"


async def test_a_server_that_offers_only_the_old_encryption_is_refused(tmp_path: Path) -> None:
    """The listener is told, the reason says what to do, and nothing is ever sent under XOR."""
    async with world(tmp_path, hosts=HOSTS[:1]) as w:
        w.stop_peer(HOSTS[0])
        await trio.sleep(0.01)
        old = w.net.transport((HOSTS[0], 2432))

        async def agree() -> None:
            while True:
                for datagram, sender in await old.receive():
                    asked, _ = split(datagram)
                    assert asked.flags & SECURE_CAPABLE
                    header = Header(
                        remote=asked.local, local=4711, opcode=Op.INIT2, subsystem=asked.subsystem,
                        uniquefier=asked.uniquefier, timestamp=asked.timestamp,
                    )  # fmt: skip
                    old.send([header.pack() + bytes(20)], sender)

        w.nursery.start_soon(agree)
        with pytest.raises(CodaError) as caught:
            await (await w.realm()).root_volume()
        assert caught.value.code is Code.ETIMEDOUT
        assert w.events.count("down", HOSTS[0]) == 1
        assert "only the old XOR encryption, which protects nothing" in server(w).reason
        assert "Cure:" in server(w).reason
