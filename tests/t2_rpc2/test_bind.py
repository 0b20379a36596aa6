"""Binding: who gets in, who is told what, and how much state those cost who do not."""

import pytest
import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import RpcError, WrongSecret
from realmfs.rpc2.handshake import Init1
from realmfs.rpc2.header import PIGGY, SECURE_CAPABLE, WORD, Header, Op, split
from realmfs.rpc2.parameters import Limits, SftpParameters
from realmfs.rpc2.service import ANONYMOUS, ANY_SUBSYSTEM, Address, Credentials, Level
from realmfs.rpc2.transfer import BytesSink
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import (
    CLIENT,
    ECHO,
    FETCH,
    SECRET,
    SERVER,
    SUBSYSTEM,
    USER,
    Desk,
    number,
    pattern,
    world,
)

pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.name)
async def test_every_level(level: Level) -> None:
    async with world() as w:
        connection = await w.bind(Credentials(level, b"alice", SECRET, 5))
        assert (await connection.call(ECHO, b"hello")).body == b"hello"
        offer = w.desk.offers[0]
        assert (offer.level, offer.ident, offer.auth_type, offer.subsystem) == (level, b"alice", 5, SUBSYSTEM)
        assert offer.encryption_type == (0 if level is Level.OPENKIMONO else 2)
        assert offer.peer == CLIENT
        assert offer.side_effects
        assert w.desk.welcomed[0].offer is offer


async def test_without_side_effects() -> None:
    async with world() as w:
        connection = await w.bind(side_effects=False)
        assert (await connection.call(ECHO, b"x")).body == b"x"
        assert not w.desk.offers[0].side_effects


def watch(net: FakeNetwork) -> list[bytes]:
    """Return a list that every datagram goes into."""
    seen: list[bytes] = []

    def tap(datagram: bytes, *_: Address) -> bool:
        seen.append(datagram)
        return True

    net.tap = tap
    return seen


async def test_nothing_of_secret_or_parameters_is_on_the_wire() -> None:
    async with world() as w:
        seen = watch(w.net)
        await (await w.bind()).call(ECHO, b"a private matter")
        assert not any(b"private" in datagram or SECRET in datagram for datagram in seen)
        assert sum(b"alice" in datagram for datagram in seen) == 1


async def test_wrong_secret_is_told_apart_from_silence() -> None:
    async with world() as w:
        start = trio.current_time()
        with pytest.raises(WrongSecret) as caught:
            await w.bind(Credentials(Level.SECURE, b"alice", b"mistyped"))
        assert caught.value.code == Rpc2Code.NOBINDING
        assert trio.current_time() - start < 5
        assert w.desk.welcomed == []


async def test_packets_forged_at_once_do_not_make_a_wrong_secret() -> None:
    async with world() as w:

        def forge(datagram: bytes, sender: Address, receiver: Address) -> bool:
            if sender == CLIENT and datagram[3] == 8 and not split(datagram)[0].flags & 1:
                handle = split(datagram)[0].local
                port = w.net._ports[CLIENT]
                for _ in range(3):
                    forged = handle.to_bytes(4, "big") + b"\0\0\0\5" + bytes(92)
                    port.deliver(trio.current_time(), forged, SERVER)
            return True

        w.net.tap = forge
        assert (await (await w.bind()).call(ECHO)).code == 0


async def test_refused() -> None:
    async with world() as w:
        start = trio.current_time()
        with pytest.raises(RpcError) as caught:
            await w.bind(Credentials(Level.SECURE, b"mallory", SECRET))
        assert caught.value.code == Rpc2Code.NOTAUTHENTICATED
        assert trio.current_time() - start < 0.1


async def test_a_forged_refusal_loses_against_the_server() -> None:
    async with world() as w:

        def forge(datagram: bytes, sender: Address, receiver: Address) -> bool:
            if sender == CLIENT and datagram[3] == 8:
                asked, _ = split(datagram)
                lie = Header(
                    remote=asked.local,
                    local=999,
                    opcode=Op.INIT2,
                    return_code=-2009,
                    uniquefier=asked.uniquefier,
                )
                w.net._ports[CLIENT].deliver(trio.current_time(), lie.pack(), SERVER)
            return True

        w.net.tap = forge
        assert (await (await w.bind()).call(ECHO)).code == 0


async def test_nobody_there() -> None:
    async with world() as w:
        start = trio.current_time()
        with pytest.raises(RpcError) as caught:
            await w.client.bind(("10.0.0.9", 2432), SUBSYSTEM, USER, patience=7)
        assert caught.value.code == Rpc2Code.NOBINDING
        assert not isinstance(caught.value, WrongSecret)
        assert trio.current_time() - start == pytest.approx(7)
        assert w.client.statistics()["connections"] == 0


async def test_unknown_subsystem_is_put_off() -> None:
    async with world() as w:
        with pytest.raises(RpcError, match="stays busy") as caught:
            await w.bind(subsystem=77, patience=20)
        assert caught.value.code == Rpc2Code.NOBINDING
        assert w.net.counters["sent"] < 60  # BUSY makes the client ask seldom: once a second at most


async def test_a_subsystem_that_comes_late_is_found() -> None:
    async with world() as w, trio.open_nursery() as nursery:

        async def late() -> None:
            await trio.sleep(3)
            w.server.serve(77, Desk())

        nursery.start_soon(late)
        connection = await w.bind(ANONYMOUS, subsystem=77, patience=40)
        assert connection.usable


async def test_any_subsystem() -> None:
    async with world() as w:
        w.server.serve(ANY_SUBSYSTEM, desk := Desk())
        await w.bind(subsystem=4242)
        await w.bind()
        assert [offer.subsystem for offer in desk.offers] == [4242]
        assert [offer.subsystem for offer in w.desk.offers] == [SUBSYSTEM]


def init1(handle: int, uniquefier: int, *, flags: int = SECURE_CAPABLE, **body: object) -> bytes:
    """Return what some client may say first."""
    fields = {
        "side_effect": 1189,
        "level": 98,
        "encryption_type": 0,
        "auth_type": 0,
        "xrandom": b"abcd",
        "ident": b"",
    }
    packed = Init1(**{**fields, **body}).pack()  # type: ignore[arg-type]  # a mixed bag
    header = Header(
        local=handle,
        flags=flags,
        length=len(packed),
        opcode=Op.INIT1OPENKIMONO,
        subsystem=SUBSYSTEM,
        uniquefier=uniquefier,
        timestamp=1,
    )
    return header.pack() + packed


async def answers(net: FakeNetwork, datagram: bytes, source: Address = ("10.0.0.7", 999)) -> list[bytes]:
    """Send a datagram to the server and return what comes back within a moment."""
    port = net.transport(source)
    port.send([datagram], SERVER)
    got: list[bytes] = []
    with trio.move_on_after(0.05):
        while True:
            got += [reply for reply, _ in await port.receive()]
    port.close()
    return got


async def test_the_old_handshake_is_refused_with_a_reason() -> None:
    async with world() as w:
        for old in (init1(500, 1, flags=0), init1(501, 1, secure_version=0)):
            (reply,) = await answers(w.net, old)
            header, body = split(reply)
            assert (header.opcode, header.return_code, body) == (Op.INIT2, Rpc2Code.WRONGVERSION, b"")
            assert header.uniquefier == 1
        assert w.server.statistics()["connections"] == 0


async def test_another_version_text_is_refused() -> None:
    async with world() as w:
        (reply,) = await answers(w.net, init1(500, 1, version_text=b"Version 14"))
        assert split(reply)[0].return_code == Rpc2Code.OLDVERSION


async def test_a_server_of_the_old_handshake_is_refused() -> None:
    net = FakeNetwork(latency=0.001)
    old = net.transport(SERVER)

    async def serve() -> None:
        while True:
            for datagram, sender in await old.receive():
                asked, _ = split(datagram)
                body = bytes(20)
                reply = Header(
                    remote=asked.local, local=888, length=20, opcode=Op.INIT2, uniquefier=asked.uniquefier
                )
                old.send([reply.pack() + body], sender)

    client = Endpoint(net.transport(CLIENT))
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        nursery.start_soon(serve)
        with pytest.raises(RpcError, match="XOR") as caught:
            await client.bind(SERVER, SUBSYSTEM, ANONYMOUS)
        assert caught.value.code == Rpc2Code.OLDVERSION
        nursery.cancel_scope.cancel()


async def test_busy_before_init2_is_patience_not_failure() -> None:
    async with world() as w:
        (reply,) = await answers(
            w.net, init1(500, 3).replace(SUBSYSTEM.to_bytes(4, "big"), (9).to_bytes(4, "big"))
        )
        header, _ = split(reply)
        assert (header.opcode, header.sequence, header.remote) == (Op.BUSY, WORD, 500)


@pytest.mark.parametrize(("wanted", "got"), [(0, 19), (16, 19), (24, 24), (35, 35), (64, 35)])
async def test_key_length_as_the_client_prefers(wanted: int, got: int) -> None:
    async with world() as w:
        (reply,) = await answers(w.net, init1(500, 1, key_length=wanted))
        from realmfs.rpc2.handshake import KeyOffer, salt
        from realmfs.rpc2.kdf import derive_key
        from realmfs.rpc2.secure import ReplayWindow, make_opener

        opener = make_opener(9, 12, derive_key(bytes(8), salt(b"abcd", 1)), ReplayWindow())
        offer = KeyOffer.unpack(split(opener.open(reply))[1])
        assert (offer.version, offer.auth, offer.cipher, len(offer.key)) == (1, 0, 14, got)


async def test_a_repeated_init1_makes_no_second_bind() -> None:
    async with world() as w:
        for _ in range(20):
            replies = await answers(w.net, init1(500, 1))
        assert w.server.statistics()["connections"] == 1
        assert len(w.desk.offers) == 1
        assert replies == []  # enough is enough: INIT1 may carry a forged sender


async def test_half_open_binds_are_bounded_and_expire() -> None:
    limits = Limits(half_open=50, half_open_per_host=8)
    async with world(limits=limits) as w:
        for n in range(20):
            await answers(w.net, init1(500 + n, 1))
        assert w.server.statistics()["connections"] == 8
        for n in range(200):
            await answers(w.net, init1(500, 1), (f"10.1.{n}.1", 999))
        assert w.server.statistics()["connections"] == 50
        assert (await (await w.bind()).call(ECHO, b"x")).body == b"x"  # the flood keeps nobody out
        await trio.sleep(20)
        assert w.server.statistics()["connections"] == 1


async def test_the_flood_is_answered_with_less_than_it_brought() -> None:
    async with world() as w:
        datagram = init1(500, 1)
        replies = await answers(w.net, datagram)
        await trio.sleep(60)
        assert sum(map(len, replies)) < len(datagram)
        assert w.net.counters["sent"] <= 1 + 4


async def test_bound_clients_are_bounded() -> None:
    async with world(limits=Limits(connections_per_peer=4)) as w:
        connections = [await w.bind() for _ in range(6)]
        await trio.testing.wait_all_tasks_blocked()
        assert w.server.statistics()["connections"] == 4
        assert len(w.desk.parted) == 2
        assert (await connections[-1].call(ECHO, b"x")).body == b"x"
        with pytest.raises(RpcError):
            await connections[0].call(ECHO, b"x", patience=5)


@pytest.mark.logs("a service failed to judge")
async def test_a_service_that_cannot_judge_refuses() -> None:
    class Broken(Desk):
        def secret(self, offer: object) -> bytes | None:
            raise RuntimeError("on purpose")

    async with world() as w:
        w.server.serve(5, Broken())
        with pytest.raises(RpcError) as caught:
            await w.bind(subsystem=5)
        assert caught.value.code == Rpc2Code.NOTAUTHENTICATED


@pytest.mark.logs("a service failed to welcome")
async def test_a_service_that_cannot_welcome_loses_the_client() -> None:
    class Broken(Desk):
        async def connected(self, connection: object) -> None:
            raise RuntimeError("on purpose")

    async with world() as w:
        w.server.serve(5, broken := Broken())
        connection = await w.bind(subsystem=5)
        with pytest.raises(RpcError):
            await connection.call(ECHO, patience=2)
        assert broken.parted == []


class Slow(Desk):
    """A service that takes its time to welcome."""

    async def connected(self, connection: object) -> None:
        await trio.sleep(2)


async def test_an_early_request_is_served_as_soon_as_the_client_is_welcome() -> None:
    async with world() as w:
        w.server.serve(5, slow := Slow())
        connection = await w.bind(subsystem=5)
        start = trio.current_time()
        assert (await connection.call(ECHO, b"x")).body == b"x"
        assert trio.current_time() - start < 2.1
        assert w.client.statistics()["busy"] >= 1
        assert slow.served[ECHO, b"x"] == 1


async def test_an_early_request_that_makes_no_sense_disturbs_nobody() -> None:
    async with world() as w:
        w.server.serve(5, Slow())
        connection = await w.bind(subsystem=5)
        link = connection._link
        link.transmit(link.packet(ECHO, b"short", sequence=link._sequence, se_flags=PIGGY, se_offset=2))
        connection._endpoint.settle()
        await trio.sleep(3)
        assert w.server.statistics()["bad"] == 1
        assert (await connection.call(ECHO, b"x")).body == b"x"


async def test_the_group_set_up_of_reference_clients() -> None:
    """INITMULTICAST brings the parameters; the request after it carries none (rpc2.md §10)."""
    async with world() as w:
        connection = await w.bind()
        link = connection._link
        await trio.sleep(1)
        seen = watch(w.net)
        block = SftpParameters(window=16).pack()
        body = bytes(24) + block + bytes(4)
        packet = link.packet(
            Op.INITMULTICAST, body, sequence=link._sequence, se_flags=PIGGY, se_offset=24, stamp=1
        )
        link.transmit(packet)
        connection._endpoint.settle()
        await trio.sleep(1)
        assert len(seen) == 2
        link._sequence += 2
        link._announced = True
        sink = BytesSink()
        await connection.call(FETCH, number(90_000), sink=sink)
        assert sink.data == pattern(90_000)
        (served,) = w.server._core.hub.links.values()
        assert served.parameters.window == 16  # type: ignore[attr-defined]


async def test_a_cancelled_bind_leaves_nothing() -> None:
    async with world() as w:
        with trio.move_on_after(0.5) as scope:
            await w.client.bind(("10.0.0.9", 1), SUBSYSTEM, USER)
        assert scope.cancelled_caught
        assert w.client.statistics()["connections"] == 0


async def test_an_endpoint_that_does_not_run_says_so() -> None:
    client = Endpoint(FakeNetwork().transport(CLIENT))
    with pytest.raises(RpcError, match="does not run"):
        await client.bind(SERVER, SUBSYSTEM, USER)
