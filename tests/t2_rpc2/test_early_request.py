"""A request that arrives before the service has welcomed its client."""

import trio

from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.service import ANONYMOUS, BindOffer, Reply, Request, ServerConnection
from tests.fakenet import FakeNetwork

WELCOME = 0.3


class SlowToWelcome:
    """Takes its time with a new client, none with requests."""

    def secret(self, offer: BindOffer) -> bytes | None:
        return bytes(8)

    async def connected(self, connection: ServerConnection) -> None:
        await trio.sleep(WELCOME)

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        await trio.lowlevel.checkpoint()
        return Reply(0, request.body)

    def closed(self, connection: ServerConnection) -> None:
        pass


async def test_it_is_served_as_soon_as_the_client_is_welcome(autojump_clock: object) -> None:
    """Not when the client asks again: after BUSY it has no reason to do so for a long time."""
    net = FakeNetwork()
    server, client = Endpoint(net.transport(("10.0.0.1", 1))), Endpoint(net.transport(("10.0.0.2", 2)))
    server.serve(5, SlowToWelcome())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        await nursery.start(client.run)
        connection = await client.bind(("10.0.0.1", 1), 5, ANONYMOUS)
        start = trio.current_time()
        assert (await connection.call(1, b"body")).body == b"body"
        assert trio.current_time() - start < WELCOME + 0.2
        nursery.cancel_scope.cancel()
