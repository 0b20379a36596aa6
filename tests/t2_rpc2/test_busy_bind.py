"""A server without a free worker answers an offer with BUSY and forgets it [seen at real servers]."""

import pytest
import trio
import trio.testing

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.header import WORD, Op, split
from realmfs.rpc2.service import ANONYMOUS, BindOffer, Reply, Request, ServerConnection
from tests.fakenet import Address, FakeNetwork

CLIENT = ("10.0.0.1", 5000)
SERVER = ("10.0.0.2", 2432)
SUBSYSTEM = 1001


class Nothing:
    """A service that lets everybody in and has nothing to do."""

    def secret(self, offer: BindOffer) -> bytes | None:
        return bytes(8)

    async def connected(self, connection: ServerConnection) -> None:
        await trio.lowlevel.checkpoint()

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        await trio.lowlevel.checkpoint()
        return Reply(0, b"")

    def closed(self, connection: ServerConnection) -> None:
        pass


class BusyServer:
    """Swallows the first offers that pass by and says BUSY in the server's place."""

    def __init__(self, net: FakeNetwork, times: float) -> None:
        self._net = net
        self._left = times
        self.offers: list[float] = []
        net.tap = self._see

    def _see(self, datagram: bytes, sender: Address, receiver: Address) -> bool:
        if sender != CLIENT or datagram[:4] != b"\0\0\0\x08":
            return True
        self.offers.append(trio.current_time())
        if self._left <= 0:
            return True
        self._left -= 1
        header, _ = split(datagram)
        busy = header._replace(
            remote=header.local, local=0, length=0, opcode=Op.BUSY, sequence=WORD
        )  # the rest copied, as the reference does
        self._net._ports[CLIENT].deliver(trio.current_time(), busy.pack(), SERVER)
        return False


@pytest.mark.parametrize("times", [1, 4])
async def test_offer_is_repeated_soon(times: int, autojump_clock: trio.testing.MockClock) -> None:
    net = FakeNetwork(latency=0.001)
    server, client = Endpoint(net.transport(SERVER)), Endpoint(net.transport(CLIENT))
    server.serve(SUBSYSTEM, Nothing())
    busy = BusyServer(net, times)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await nursery.start(client.run)
        start = trio.current_time()
        connection = await client.bind(SERVER, SUBSYSTEM, ANONYMOUS, patience=3.0)
        assert trio.current_time() - start < 2.0
        assert len(busy.offers) == times + 1
        assert (await connection.call(1)).code == 0
        nursery.cancel_scope.cancel()


async def test_a_server_busy_for_good_is_asked_less_often(
    autojump_clock: trio.testing.MockClock,
) -> None:
    net = FakeNetwork(latency=0.001)
    client = Endpoint(net.transport(CLIENT))
    busy = BusyServer(net, float("inf"))
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        start = trio.current_time()
        with pytest.raises(RpcError) as caught:
            await client.bind(SERVER, SUBSYSTEM, ANONYMOUS, patience=10.0)
        assert caught.value.code == Rpc2Code.NOBINDING
        assert trio.current_time() - start == pytest.approx(10.0)
        assert 5 < len(busy.offers) < 20
        assert busy.offers[-1] - busy.offers[-2] >= 1.0
        nursery.cancel_scope.cancel()
