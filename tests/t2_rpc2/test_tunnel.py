"""The same calls through TLS: both roles, whole and broken at every place, and whom a client believes."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import BadCertificate, BadPacket, BrokenTunnel, RpcError
from realmfs.rpc2.frames import MAX_PACKET, PREFIX_SIZE, Deframer, frame
from realmfs.rpc2.service import ANONYMOUS, Address, TunnelAddress
from realmfs.rpc2.tls import client_context, server_context
from realmfs.rpc2.transfer import BytesSink, BytesSource
from realmfs.rpc2.tunnel import MOST_QUEUED, Tunnel, accept_tunnel, connect_tcp, open_tunnel
from tests.certificates import DAY, Authority
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import (
    CLIENT,
    ECHO,
    FETCH,
    SERVER,
    STORE,
    SUBSYSTEM,
    USER,
    Desk,
    endpoint,
    number,
    pattern,
)

NAME = "s1.example.org"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue(NAME, "10.0.0.2")
    return made


class Cut(trio.abc.Stream):
    """A stream that is cut, or changed, after so many bytes to one side."""

    def __init__(self, stream: trio.abc.Stream, at: float, *, flip: bool = False) -> None:
        self._stream = stream
        self._at = at
        self._flip = flip
        self.seen = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        left = self._at - self.seen
        self.seen += len(data)
        if left < len(data):
            if not self._flip:
                await self._stream.aclose()
                raise trio.BrokenResourceError from ConnectionResetError(104, "cut")
            at, self._at = int(left), float("inf")
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass
class Ends:
    """A client and a server with a tunnel between them; nobody should use the network of datagrams."""

    net: FakeNetwork
    client: Endpoint
    server: Endpoint
    desk: Desk
    near: Tunnel
    far: Tunnel
    ended: dict[str, str] = field(default_factory=dict)
    over: trio.Event = field(default_factory=trio.Event)

    async def bind(self, **more: bool) -> Connection:
        return await self.client.bind(self.near.peer, SUBSYSTEM, USER, **more)


async def handshake(
    client: trio.abc.Stream, server: trio.abc.Stream, authority: Authority, names: Sequence[str] = (NAME,)
) -> tuple[Tunnel, Tunnel]:
    made: list[Tunnel] = []
    context = server_context(authority.directory / "server.crt", authority.directory / "server.key")

    async def accept() -> None:
        made.append(await accept_tunnel(server, context, 5.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        near = await open_tunnel(client, SERVER, client_context(authority.certificate), names, sni=NAME)
    return near, made[0]


@asynccontextmanager
async def tunnelled(
    authority: Authority,
    *,
    to_server: float = float("inf"),
    to_client: float = float("inf"),
    flip: bool = False,
) -> AsyncIterator[Ends]:
    """Run both ends; the tunnel breaks after so many bytes behind the handshake."""
    one, other = memory_stream_pair()
    first, second = Cut(one, float("inf"), flip=flip), Cut(other, float("inf"), flip=flip)
    near, far = await handshake(first, second, authority)
    first._at, second._at = first.seen + to_server, second.seen + to_client
    net, desk = FakeNetwork(), Desk()
    client, server = endpoint(net.transport(CLIENT), seed=1), endpoint(net.transport(SERVER), seed=2)
    desk.back = server
    server.serve(SUBSYSTEM, desk)
    ends = Ends(net, client, server, desk, near, far)

    def note(name: str) -> Callable[[str], None]:
        def ended(reason: str) -> None:
            ends.ended[name] = reason
            if len(ends.ended) == 2:
                ends.over.set()

        return ended

    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await nursery.start(server.run)
        client.start_tunnel(near, note("client"))
        server.start_tunnel(far, note("server"))
        yield ends
        nursery.cancel_scope.cancel()
    assert net.counters["sent"] == 0


async def test_calls_and_files_both_ways(authority: Authority, autojump_clock: MockClock) -> None:
    async with tunnelled(authority) as ends:
        connection = await ends.bind()
        assert connection.ours
        assert (await connection.call(ECHO, b"through TLS")).body == b"through TLS"
        for size in (0, 1, 4226, 4227, 300_000, 3_000_001):
            sink = BytesSink()
            await connection.call(FETCH, number(size), sink=sink)
            assert sink.data == pattern(size)
            await connection.call(STORE, source=BytesSource(pattern(size, 8)))
            assert ends.desk.stored[-1] == pattern(size, 8)
        assert ends.near.protection.startswith("TLSv1.3")
        assert not ends.ended


async def test_the_server_binds_back_through_the_tunnel(
    authority: Authority, autojump_clock: MockClock
) -> None:
    async with tunnelled(authority) as ends:
        back = Desk()
        ends.client.serve(SUBSYSTEM + 1, back)
        connection = await ends.bind()
        assert (await connection.call(9)).body == b"called back"
        assert back.offers[0].peer is ends.near.peer  # the client knows which server calls by its tunnel
        assert ends.desk.offers[0].peer is ends.far.peer


async def test_many_connections_share_a_tunnel(authority: Authority, autojump_clock: MockClock) -> None:
    async with tunnelled(authority) as ends:

        async def work(seed: int) -> None:
            connection = await ends.bind()
            for round_ in range(5):
                size = random.Random(seed * 10 + round_).randrange(60_000)
                sink = BytesSink()
                await connection.call(FETCH, number(size), sink=sink)
                assert sink.data == pattern(size)

        async with trio.open_nursery() as nursery:
            for seed in range(20):
                nursery.start_soon(work, seed)


PHASES = {
    "bind": 300,
    "introduced": 1500,
    "request": 3500,
    "first data": 8000,
    "middle": 150_000,
    "end": 299_000,
}


@pytest.mark.parametrize("flip", [False, True], ids=["cut", "flipped"])
@pytest.mark.parametrize("to", ["server", "client"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_tunnel_that_breaks_at_any_place_ends_every_call_soon(
    authority: Authority, autojump_clock: MockClock, phase: str, to: str, flip: bool
) -> None:
    """Whatever was under way gets an error; both ends forget each other and nothing goes by UDP instead."""
    limits = {f"to_{to}": PHASES[phase]}
    began = trio.current_time()
    async with tunnelled(authority, flip=flip, **limits) as ends:
        with pytest.raises(RpcError) as caught:  # noqa: PT012  # where it breaks is what varies
            connection = await ends.bind()
            for _ in range(4):
                await connection.call(FETCH, number(300_000), sink=BytesSink())
                await connection.call(STORE, source=BytesSource(pattern(300_000)))
            raise AssertionError("the tunnel never broke")
        assert caught.value.code == Rpc2Code.DEAD
        await ends.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - began < 1.0
        assert all("tunnel" in reason or "TLS" in reason for reason in ends.ended.values()), ends.ended
        assert ends.client.statistics()["connections"] == ends.server.statistics()["connections"] == 0
        assert ends.desk.running == 0
        with pytest.raises(RpcError) as caught:
            await ends.client.bind(ends.near.peer, SUBSYSTEM, USER, patience=2.0)
        assert caught.value.code == Rpc2Code.NOBINDING
        assert all(data == pattern(300_000) for data in ends.desk.stored)


async def test_packets_past_the_tunnel_are_nobodys(authority: Authority, autojump_clock: MockClock) -> None:
    """Authentic packets that come by UDP neither count nor move the connection out of its tunnel."""
    async with tunnelled(authority) as ends:
        connection = await ends.bind()
        taken: list[bytes] = []
        send = ends.near.send

        def steal(datagrams: Sequence[bytes], peer: Address) -> None:
            taken.extend(datagrams)

        ends.near.send = steal  # type: ignore[method-assign]
        with pytest.raises(RpcError):
            await connection.call(ECHO, b"stolen", patience=1.0)
        ends.near.send = send  # type: ignore[method-assign]
        now = trio.current_time()
        ends.server._core.receive([(packet, ("10.6.6.6", 6)) for packet in taken], now)
        ends.server._core.receive([(packet, TunnelAddress(SERVER)) for packet in taken], now)
        assert ends.desk.served[ECHO, b"stolen"] == 0
        assert ends.desk.welcomed[0].peer is ends.far.peer
        other = await ends.bind()
        assert (await other.call(ECHO, b"x")).body == b"x"


async def test_a_barred_address_gets_no_datagram_at_all(autojump_clock: MockClock) -> None:
    net = FakeNetwork()
    client = endpoint(net.transport(CLIENT))
    stranger = net.transport(SERVER)
    client.bar_from_udp(SERVER)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with pytest.raises(RpcError):
            await client.bind(SERVER, SUBSYSTEM, ANONYMOUS, patience=3.0)
        stranger.send([bytes(60), (8).to_bytes(4, "big") + bytes(56)], CLIENT)  # neither asks nor gets a NAK
        await trio.sleep(1)
        assert net.counters["sent"] == 2
        assert client.statistics()["packets_in"] == 0
        assert client.statistics()["kept_off_udp"] > 0
        nursery.cancel_scope.cancel()


async def test_a_peer_that_stops_reading_costs_a_bounded_queue(authority: Authority) -> None:
    one, other = memory_stream_pair()
    near, _ = await handshake(one, other, authority)
    for _ in range(5000):
        near.send([bytes(4000)], near.peer)
    assert near.dropped > 4000
    assert near._queued <= MOST_QUEUED + MAX_PACKET


async def test_loopback_sockets(authority: Authority) -> None:
    context = server_context(authority.directory / "server.crt", authority.directory / "server.key")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    net, desk = FakeNetwork(), Desk()
    client, server = endpoint(net.transport(CLIENT)), endpoint(net.transport(SERVER))
    server.serve(SUBSYSTEM, desk)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        await nursery.start(server.run)

        async def accept(stream: trio.SocketStream) -> None:
            await server.carry(await accept_tunnel(stream, context, 5.0))

        nursery.start_soon(trio.serve_listeners, accept, [listener])
        address = ("127.0.0.1", port)
        stream = await connect_tcp(address)
        near = await open_tunnel(stream, address, client_context(authority.certificate), [NAME], sni=NAME)
        client.start_tunnel(near, pytest.fail)
        connection = await client.bind(near.peer, SUBSYSTEM, USER)
        sink = BytesSink()
        await connection.call(FETCH, number(5_000_000), sink=sink)
        assert sink.data == pattern(5_000_000)
        assert desk.offers[0].peer[1] == near.address[1]
        nursery.cancel_scope.cancel()


# Certificates


async def refused(authority: Authority, trust: Path, names: Sequence[str] = (NAME, "10.0.0.2")) -> str:
    """Return why a client refuses the server that shows this authority's certificate."""
    one, other = memory_stream_pair()
    context = server_context(authority.directory / "server.crt", authority.directory / "server.key")
    reasons = []

    async def accept() -> None:
        with pytest.raises(BrokenTunnel):  # noqa: PT012  # at the handshake, or with TLS 1.3 right after
            far = await accept_tunnel(other, context, 5.0)
            await far.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(BadCertificate) as caught:
            await open_tunnel(one, SERVER, client_context(trust), names, sni=NAME)
        reasons.append(str(caught.value))
    return reasons[0]


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("elsewhere.example.org", "10.9.9.9")
    reason = await refused(authority, authority.certificate)
    assert "for elsewhere.example.org, 10.9.9.9, not for s1.example.org or 10.0.0.2" in reason
    assert "poses" in reason


async def test_a_certificate_for_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    assert "is for nobody, not for" in await refused(authority, authority.certificate)


@pytest.mark.parametrize(
    ("certified", "names"),
    [
        (["10.0.0.2"], [NAME, "10.0.0.2"]),  # known by name, certified by address: as the reference
        ([NAME], ["10.0.0.2", NAME]),
        (["S1.Example.ORG."], [NAME]),
        (["*.example.org"], [NAME]),
    ],
)
async def test_certificates_that_will_do(tmp_path: Path, certified: list[str], names: list[str]) -> None:
    authority = Authority(tmp_path)
    authority.issue(*[name.rstrip(".") for name in certified])
    one, other = memory_stream_pair()
    await handshake(one, other, authority, names)


@pytest.mark.parametrize("certified", ["*.0.0.2", "*.org", "example.org", "*.s1.example.org"])
async def test_wildcards_that_reach_too_far(tmp_path: Path, certified: str) -> None:
    authority = Authority(tmp_path)
    authority.issue(certified)
    assert "not for" in await refused(authority, authority.certificate)


async def test_an_authority_that_is_not_the_realms(tmp_path: Path) -> None:
    authority, realms = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    authority.issue(NAME)
    assert "not signed by the authority that we know" in await refused(authority, realms.certificate)


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [(-5 * DAY, -DAY, "has expired"), (DAY, 5 * DAY, "not valid yet")],
)
async def test_a_certificate_at_the_wrong_time(
    tmp_path: Path, since: dt.timedelta, until: dt.timedelta, words: str
) -> None:
    authority = Authority(tmp_path)
    authority.issue(NAME, since=since, until=until)
    assert words in await refused(authority, authority.certificate)


def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match=r"cannot be read from .*nothing\.pem: no such file"):
        client_context(tmp_path / "nothing.pem")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadCertificate, match="no certificate of an authority"):
        client_context(tmp_path / "empty")
    (tmp_path / "text.pem").write_text("no certificate\n")
    with pytest.raises(BadCertificate, match="cannot be read"):
        client_context(tmp_path / "text.pem")


async def test_a_server_that_speaks_no_tls(authority: Authority) -> None:
    one, other = memory_stream_pair()
    await other.send_all(b"220 mail.example.org ESMTP\r\n" * 3)
    with pytest.raises(BrokenTunnel, match="the TLS handshake failed"):
        await open_tunnel(one, SERVER, client_context(authority.certificate), [NAME])


async def test_a_client_that_says_nothing_is_let_go(authority: Authority, autojump_clock: MockClock) -> None:
    _, other = memory_stream_pair()
    context = server_context(authority.directory / "server.crt", authority.directory / "server.key")
    with pytest.raises(BrokenTunnel, match="did not finish"):
        await accept_tunnel(other, context, 5.0)
    assert trio.current_time() == 5.0


# Frames


@given(st.lists(st.binary(max_size=MAX_PACKET), max_size=8), st.lists(st.integers(1, 3000), min_size=1))
def test_frames_come_out_whole_however_they_are_cut(packets: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(packet) for packet in packets)
    deframer, out, at, turn = Deframer(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        out += deframer.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert out == packets


@given(st.binary(min_size=PREFIX_SIZE, max_size=400))
def test_frames_of_anything_else_are_refused(data: bytes) -> None:
    if data.startswith(b"magic01\0") and int.from_bytes(data[16:20], "big") <= MAX_PACKET:
        return
    with pytest.raises(BadPacket):
        Deframer().feed(data)


def test_a_frame_longer_than_any_packet_is_refused_at_once() -> None:
    with pytest.raises(BadPacket):
        Deframer().feed(frame(bytes(MAX_PACKET + 1))[:PREFIX_SIZE])


async def test_closing_a_tunnel_ends_both_sides(authority: Authority, autojump_clock: MockClock) -> None:
    async with tunnelled(authority) as ends:
        connection = await ends.bind()
        ends.near.close()
        await trio.sleep(0.1)
        assert not connection.usable
        assert list(ends.ended) == ["server"]  # who closes it needs not be told
        assert ends.server.statistics()["connections"] == 0


async def test_an_endpoint_that_does_not_run_takes_no_tunnel(authority: Authority) -> None:
    one, other = memory_stream_pair()
    near, _ = await handshake(one, other, authority)
    with pytest.raises(RpcError):
        endpoint(FakeNetwork().transport(CLIENT)).start_tunnel(near, pytest.fail)
