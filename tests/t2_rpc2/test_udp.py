"""Real sockets on the loopback interface, with and without the kernel's help."""

import socket

import pytest
import trio

from realmfs.rpc2.endpoint import Endpoint, UdpTransport, udp_transport
from realmfs.rpc2.parameters import SftpParameters
from realmfs.rpc2.transfer import BytesSink, BytesSource
from tests.t2_rpc2.world import ECHO, FETCH, STORE, SUBSYSTEM, USER, Desk, number, pattern

HOME = ("127.0.0.1", 0)


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize("packet_size", [1438, 2800])
async def test_a_session(offload: bool, packet_size: int) -> None:
    sftp = SftpParameters(loopback_packet_size=packet_size)
    server = Endpoint(UdpTransport(HOME, offload=offload), sftp=sftp)
    client = Endpoint(UdpTransport(HOME, offload=offload), sftp=sftp)
    desk = Desk()
    server.serve(SUBSYSTEM, desk)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await nursery.start(client.run)
        connection = await client.bind(server.address, SUBSYSTEM, USER)
        assert (await connection.call(ECHO, b"hello")).body == b"hello"
        size = 4 << 20
        sink = BytesSink()
        await connection.call(FETCH, number(size), sink=sink)
        assert sink.data == pattern(size)
        await connection.call(STORE, source=BytesSource(pattern(size)))
        assert desk.stored == [pattern(size)]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
async def test_datagrams_come_whole_and_in_order(offload: bool) -> None:
    sender, receiver = UdpTransport(HOME, offload=offload), UdpTransport(HOME, offload=offload)
    sizes = [100] * 70 + [50, 100, 100, 99, 1200, 1200, 1200, 7, 8, 100, 150, 200, 9000, 9000, 1]
    datagrams = [bytes([n]) * size for n, size in enumerate(sizes)]
    sender.send(datagrams, receiver.address)
    got: list[bytes] = []
    with trio.fail_after(5):
        while len(got) < len(datagrams):
            got += [datagram for datagram, source in await receiver.receive() if source == sender.address]
    assert got == datagrams
    sender.close()
    receiver.close()


async def test_runs_are_sent_with_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = UdpTransport(HOME)
    if not transport._offload:
        pytest.skip("this kernel has no UDP segmentation offload")
    calls: list[int] = []

    def send_run(self: UdpTransport, run: list[bytes], size: int, peer: object) -> bool:
        calls.append(len(run))
        return True

    monkeypatch.setattr(UdpTransport, "_send_run", send_run)
    transport.send([bytes(1000)] * 100, transport.address)
    assert sum(calls) == 100
    assert len(calls) == 2  # 64 segments, or 64 KiB, at a time
    transport.close()


async def test_a_path_that_cannot_segment_is_served_singly() -> None:
    transport, receiver = UdpTransport(HOME), UdpTransport(HOME)
    transport._socket.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    large = [bytes([n]) * 40_000 for n in range(3)]
    transport.send(large, receiver.address)
    got: list[bytes] = []
    with trio.fail_after(5):
        while len(got) < 3:
            got += [datagram for datagram, _ in await receiver.receive()]
    assert got == large
    transport.close()
    receiver.close()


async def test_what_cannot_be_sent_is_lost_not_raised() -> None:
    transport = UdpTransport(HOME)
    transport.send([b"x"], ("255.255.255.255", 9))  # broadcast is not allowed
    transport.send([bytes(70_000)], transport.address)
    assert transport.dropped == 2
    transport.close()
    transport.close()


async def test_a_taken_port() -> None:
    first = await udp_transport(HOME)
    with pytest.raises(OSError, match="in use"):
        await udp_transport(first.address)
    first.close()


async def test_closing_wakes_the_receiver() -> None:
    transport = UdpTransport(HOME)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.close()
