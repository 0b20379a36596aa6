"""Calls: once and only once, however long they take, whatever is lost, and whoever goes away."""

import pytest
import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.header import RETRY, Header, split
from realmfs.rpc2.link import Link
from realmfs.rpc2.parameters import MAX_BODY, Timers
from realmfs.rpc2.service import ANONYMOUS, Address, Reply, Request, ServerConnection
from realmfs.rpc2.transfer import BytesSink
from tests.fakenet import FakeNetwork
from tests.t2_rpc2.world import (
    BACK,
    BAD,
    CLIENT,
    CODE,
    ECHO,
    FAIL,
    SERVER,
    SLEEP,
    STORE,
    SUBSYSTEM,
    Desk,
    endpoint,
    number,
    world,
)

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def test_many_calls_in_a_row() -> None:
    async with world() as w:
        connection = await w.bind()
        for n in range(100):
            assert await connection.call(ECHO, number(n)) == Reply(0, number(n))
        assert set(w.desk.served.values()) == {1}


@pytest.mark.parametrize("code", [2, 69, 4711, -3, -1000])
async def test_the_code_of_the_procedure_comes_as_it_is(code: int) -> None:
    async with world() as w:
        connection = await w.bind()
        assert (await connection.call(CODE, number(code & 0xFFFFFFFF))).code == code
        assert connection.usable


async def test_a_fatal_code_ends_the_connection() -> None:
    async with world() as w:
        connection = await w.bind()
        code = Rpc2Code.NAKED & 0xFFFFFFFF
        assert (await connection.call(CODE, number(code))).code == Rpc2Code.NAKED
        assert not connection.usable
        with pytest.raises(RpcError) as caught:
            await connection.call(ECHO)
        assert caught.value.code == Rpc2Code.NOCONNECTION


@pytest.mark.parametrize("size", [0, 1, 3, 1000, MAX_BODY - 44, MAX_BODY])
async def test_bodies_of_every_size(size: int) -> None:
    async with world() as w:
        connection = await w.bind()
        body = bytes(n & 0xFF for n in range(size))
        assert (await connection.call(ECHO, body)).body == body


async def test_a_body_too_large_is_refused_here() -> None:
    async with world() as w:
        connection = await w.bind()
        with pytest.raises(RpcError) as caught:
            await connection.call(ECHO, bytes(MAX_BODY + 1))
        assert caught.value.code == Rpc2Code.TOOLONG
        assert connection.usable


@pytest.mark.parametrize("milliseconds", [50, 150, 5_000, 400_000])
async def test_busy_keeps_a_long_call_alive(milliseconds: int) -> None:
    async with world() as w:
        connection = await w.bind()
        before = w.net.counters["sent"]
        start = trio.current_time()
        assert (await connection.call(SLEEP, number(milliseconds))).body == b"slept"
        assert trio.current_time() - start == pytest.approx(milliseconds / 1000, abs=0.1)
        assert w.desk.served[SLEEP, number(milliseconds)] == 1
        # One probe and its answer per 15 s, and hardly anything else.
        assert w.net.counters["sent"] - before <= 4 + 2 * milliseconds / 15_000


async def test_the_server_says_busy_at_100_ms() -> None:
    async with world(FakeNetwork(latency=0.0)) as w, trio.open_nursery() as nursery:
        connection = await w.bind()
        nursery.start_soon(connection.call, SLEEP, number(1000))
        await trio.sleep(0.099)
        assert w.client.statistics().get("busy", 0) == 0
        await trio.sleep(0.002)
        assert w.client.statistics()["busy"] == 1


async def test_a_lost_reply_is_sent_again_and_the_handler_runs_once() -> None:
    async with world() as w:
        connection = await w.bind()
        lost = 0

        def lose_replies(datagram: bytes, sender: Address, receiver: Address) -> bool:
            nonlocal lost
            lost += sender == SERVER
            return not (sender == SERVER and lost <= 3)

        w.net.tap = lose_replies
        assert (await connection.call(ECHO, b"once")).body == b"once"
        assert w.desk.served[ECHO, b"once"] == 1
        assert w.server.statistics()["replies_repeated"] == 3


async def test_what_is_sent_again_says_so() -> None:
    async with world() as w:
        connection = await w.bind()
        requests, replies = spy(connection._link), spy(next(iter(w.server._core.hub.links.values())))
        w.net.tap = lambda datagram, sender, receiver: sender == CLIENT or len(replies) > 2
        await connection.call(ECHO, b"x")
        assert len(requests) == len(replies) == 3
        for headers in (requests, replies):
            assert [header.flags & RETRY for header in headers] == [0, RETRY, RETRY]
            assert len({header.timestamp for header in headers}) == 3
            assert len({header.sequence for header in headers}) == 1


def spy(link: Link) -> list[Header]:
    """Return a list that gets the headers of all that a link sends from now on."""
    seen: list[Header] = []
    transmit = link.transmit

    def record(packet: bytes) -> None:
        seen.append(split(packet)[0])
        transmit(packet)

    link.transmit = record  # type: ignore[method-assign]
    return seen


async def test_a_copy_of_a_running_request_does_not_run() -> None:
    async with world(timers=Timers(busy_after=1000.0)) as w:
        connection = await w.bind()
        assert (await connection.call(SLEEP, number(3000))).body == b"slept"
        assert w.client.statistics()["retries"] >= 1
        assert w.desk.served[SLEEP, number(3000)] == 1


async def test_the_saved_reply_is_forgotten() -> None:
    async with world(timers=Timers(keepalive=4)) as w:
        connection = await w.bind()
        await connection.call(ECHO, b"x")
        link = next(iter(w.server._core.hub.links.values()))
        assert link._saved is not None  # type: ignore[attr-defined]
        await trio.sleep(8.1)
        assert link._saved is None  # type: ignore[attr-defined]


async def test_round_trip_without_the_time_of_the_handler() -> None:
    async with world(FakeNetwork(latency=0.02)) as w:
        connection = await w.bind()
        for _ in range(20):
            await connection.call(SLEEP, number(70))
        estimate = w.client.estimate(SERVER)
        assert estimate.round_trip == pytest.approx(0.04, abs=0.002)
        assert estimate.bandwidth is None
        assert w.client.last_heard(SERVER) == pytest.approx(trio.current_time(), abs=0.01)
        assert w.client.last_heard(("10.9.9.9", 1)) is None
        assert w.client.estimate(("10.9.9.9", 1)) == (None, None, None)


async def test_a_dead_server_is_found_out_in_half_a_minute() -> None:
    async with world() as w:
        connection = await w.bind()
        w.net.partition(SERVER[0])
        start = trio.current_time()
        with pytest.raises(RpcError) as caught:
            await connection.call(ECHO)
        assert caught.value.code == Rpc2Code.DEAD
        assert 25 < trio.current_time() - start < 35
        assert not connection.usable
        assert w.client.statistics()["connections"] == 0


async def test_a_short_cut_is_bridged() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        connection = await w.bind()

        async def heal() -> None:
            await trio.sleep(10)
            w.net.heal()

        w.net.partition(CLIENT[0], SERVER[0])
        nursery.start_soon(heal)
        assert (await connection.call(ECHO, b"x")).body == b"x"


async def test_patience() -> None:
    async with world() as w:
        connection = await w.bind()
        start = trio.current_time()
        with pytest.raises(RpcError) as caught:
            await connection.call(SLEEP, number(60_000), patience=2.5)
        assert caught.value.code == Rpc2Code.TIMEOUT
        assert trio.current_time() - start == pytest.approx(2.5, abs=0.01)
        assert not connection.usable


async def test_a_cancelled_call_ends_the_connection() -> None:
    async with world() as w:
        connection = await w.bind()
        with trio.move_on_after(1):
            await connection.call(SLEEP, number(60_000))
        assert not connection.usable
        assert w.client.statistics()["connections"] == 0


async def test_one_call_at_a_time_the_second_waits() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        connection = await w.bind()
        running: list[int] = []

        async def one(n: int) -> None:
            await connection.call(SLEEP, number(100 + n))
            running.append(w.desk.running)

        for n in range(5):
            nursery.start_soon(one, n)
        await trio.sleep(0.25)
        with pytest.raises(RpcError) as caught:
            await connection.call(ECHO, patience=0.01)
        assert caught.value.code == Rpc2Code.TIMEOUT
    assert running == [0] * 5


async def test_who_waits_for_a_connection_that_breaks_is_told() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        connection = await w.bind()
        codes: list[int] = []

        async def one() -> None:
            try:
                await connection.call(SLEEP, number(60_000), patience=3)
            except RpcError as error:
                codes.append(error.code)

        for _ in range(3):
            nursery.start_soon(one)
    assert codes == [Rpc2Code.TIMEOUT] * 3


async def test_connections_do_not_wait_for_each_other() -> None:
    async with world() as w:
        connections = [await w.bind() for _ in range(50)]
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(connection.call, SLEEP, number(2000))
        assert trio.current_time() - start < 2.5


@pytest.mark.logs("operation 5 for 10.0.0.1:5000 failed")
async def test_a_handler_that_raises_answers_fail() -> None:
    async with world() as w:
        connection = await w.bind()
        assert (await connection.call(FAIL)).code == Rpc2Code.FAIL
        assert (await (await w.bind()).call(ECHO, b"x")).body == b"x"


async def test_unreadable_parameters_are_answered() -> None:
    async with world() as w:
        connection = await w.bind()
        assert (await connection.call(BAD)).code == Rpc2Code.BADDATA
        assert connection.usable


async def test_the_server_calls_back_during_a_call() -> None:
    async with world() as w:
        w.client.serve(SUBSYSTEM + 1, desk := Desk())
        connection = await w.bind()
        assert (await connection.call(BACK)).body == b"called back"
        assert desk.served[ECHO, b"called back"] == 1
        assert desk.offers[0].peer == SERVER


async def test_both_roles_at_once() -> None:
    net = FakeNetwork(seed=4, latency=0.005, jitter=0.02, loss=0.1, duplicates=0.1)
    async with world(net) as w:
        w.client.serve(SUBSYSTEM + 1, desk := Desk())
        there = [await w.bind() for _ in range(4)]
        back = [await w.server.bind(CLIENT, SUBSYSTEM + 1, ANONYMOUS) for _ in range(4)]
        async with trio.open_nursery() as nursery:
            for connection in there + back:
                for n in range(10):
                    nursery.start_soon(connection.call, ECHO, number(id(connection) + n & 0xFFFFFFFF))
        assert sum(w.desk.served.values()) == sum(desk.served.values()) == 40
        assert set(w.desk.served.values()) == set(desk.served.values()) == {1}


async def test_the_connection_follows_a_client_whose_address_changes() -> None:
    async with world() as w:
        connection = await w.bind()
        await connection.call(ECHO, b"before")
        w.net.move(w.net._ports[CLIENT], ("192.0.2.7", 61000))
        assert (await connection.call(ECHO, b"after")).body == b"after"
        assert w.desk.welcomed[0].peer == ("192.0.2.7", 61000)
        assert w.desk.offers[0].peer == CLIENT


async def test_a_forged_sender_moves_nothing() -> None:
    async with world() as w:
        connection = await w.bind()
        captured: list[bytes] = []

        def tap(datagram: bytes, sender: Address, receiver: Address) -> bool:
            captured.append(datagram)
            return True

        w.net.tap = tap
        await connection.call(ECHO, b"x")
        thief = w.net.transport(("10.6.6.6", 6))
        for datagram in captured.copy():
            thief.send([datagram, datagram[:-1] + b"?"], SERVER)
        await trio.sleep(1)
        assert w.desk.welcomed[0].peer == CLIENT
        assert (await connection.call(ECHO, b"y")).body == b"y"


async def test_a_restarted_server_says_nothing_and_is_given_up() -> None:
    net = FakeNetwork(latency=0.001)
    client = endpoint(net.transport(CLIENT))
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        async with trio.open_nursery() as first:
            server = endpoint(net.transport(SERVER), seed=2)
            server.serve(SUBSYSTEM, Desk())
            await first.start(server.run)
            connection = await client.bind(SERVER, SUBSYSTEM, ANONYMOUS)
            first.cancel_scope.cancel()
        again = endpoint(net.transport(SERVER), seed=3)
        await nursery.start(again.run)
        with pytest.raises(RpcError) as caught:
            await connection.call(ECHO)
        assert caught.value.code == Rpc2Code.DEAD
        assert again.statistics()["unknown_handle"] >= 1
        nursery.cancel_scope.cancel()


async def test_a_client_ahead_of_its_sequence_is_told_to_bind_again() -> None:
    async with world() as w:
        connection = await w.bind()
        connection._link._sequence += 4
        start = trio.current_time()
        with pytest.raises(RpcError) as caught:
            await connection.call(ECHO)
        assert caught.value.code == Rpc2Code.NAKED
        assert trio.current_time() - start < 0.1


async def test_closing_a_served_client_cancels_its_handler() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        connection = await w.bind()
        nursery.start_soon(expect_failure, connection.call(SLEEP, number(60_000), patience=5))
        await trio.sleep(0.5)
        assert w.desk.running == 1
        w.desk.welcomed[0].close()
        await trio.sleep(0.01)
        assert w.desk.running == 0
        assert w.desk.parted == w.desk.welcomed
        w.desk.welcomed[0].close()
        assert len(w.desk.parted) == 1


async def expect_failure(call: object) -> None:
    with pytest.raises(RpcError):
        await call  # type: ignore[misc]


async def test_a_handler_may_lose_patience_with_its_client() -> None:
    class Impatient(Desk):
        async def call(self, connection: ServerConnection, request: Request) -> Reply:
            with trio.move_on_after(2):
                await request.receive(BytesSink(), 1000)
            await trio.sleep(1)
            return Reply(0)

    async with world() as w:
        w.server.serve(5, desk := Impatient())
        connection = await w.bind(subsystem=5)
        with pytest.raises(RpcError):
            await connection.call(STORE, patience=5)  # without the file that the server wants
        assert len(desk.parted) == 1
        assert w.server.statistics()["connections"] == 0


async def test_forgetting_a_peer_fails_its_calls_in_both_roles() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        connection = await w.bind()
        nursery.start_soon(expect_failure, connection.call(SLEEP, number(60_000)))
        await trio.sleep(0.5)
        w.client.forget_peer(SERVER)
        assert not connection.usable
        w.server.forget_peer(CLIENT)
        await trio.sleep(0.01)
        assert w.desk.running == 0
        assert len(w.desk.parted) == 1
        assert w.client.statistics()["connections"] == w.server.statistics()["connections"] == 0


async def test_the_end_of_an_endpoint_fails_its_calls() -> None:
    net = FakeNetwork()
    server = endpoint(net.transport(SERVER), seed=2)
    server.serve(SUBSYSTEM, Desk())
    client = endpoint(net.transport(CLIENT))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        stop = await nursery.start(run_stoppable, client)
        connection = await client.bind(SERVER, SUBSYSTEM, ANONYMOUS)
        nursery.start_soon(expect_failure, connection.call(SLEEP, number(60_000)))
        await trio.sleep(1)
        stop.cancel()
        await trio.sleep(1)
        with pytest.raises(RpcError):
            await connection.call(ECHO)
        nursery.cancel_scope.cancel()


async def run_stoppable(
    client: object, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)  # type: ignore[attr-defined]
        task_status.started(nursery.cancel_scope)


async def test_a_service_may_close_the_client_it_serves() -> None:
    class Rude(Desk):
        async def call(self, connection: ServerConnection, request: Request) -> Reply:
            connection.close()
            return Reply(0)

    async with world() as w:
        w.server.serve(5, rude := Rude())
        connection = await w.bind(subsystem=5)
        with pytest.raises(RpcError):
            await connection.call(ECHO, patience=3)
        assert len(rude.parted) == 1


async def test_idle_connections_cost_no_packets() -> None:
    async with world() as w:
        connection = await w.bind()
        await connection.call(ECHO)
        before = w.net.counters["sent"]
        await trio.sleep(50_000)
        assert w.net.counters["sent"] == before
        assert (await connection.call(ECHO, b"still here")).body == b"still here"
