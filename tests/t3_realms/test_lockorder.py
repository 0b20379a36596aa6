"""What would make a server lock itself up is held back until it has the locks of our reintegration."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from realmfs.realms.lockorder import LockOrder
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.endpoint import Connection
from realmfs.rpc2.service import Request, ServerConnection
from realmfs.vice.calls import Fetch, FetchPartial, GetAttr, GetVolVS, Reintegrate, ValidateAttrs
from realmfs.vice.types import Fid
from tests.t3_realms.test_updating import reintegrated
from tests.t3_realms.vicepeer import DIRECTORY, FILE, VOLUME, VicePeer, vector
from tests.t3_realms.world import World

SECONDS = 3.0
"""What a reintegration takes at the servers."""


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server says that it is realmfs's own."""
    monkeypatch.setattr(Connection, "ours", property(lambda _: False))


async def moments(servers: World) -> dict[str, float]:
    """Ask for things at the beginning of a reintegration; return after how many seconds they were there."""
    group = await servers.group()
    await group.get_attr(FILE, ANYUSER)
    begin = trio.current_time()
    found = {}

    async def asking(name: str, ask: Callable[[], Awaitable[Any]]) -> None:
        await trio.sleep(0.5)
        await ask()
        found[name] = trio.current_time() - begin

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking, "directory", lambda: group.get_attr(DIRECTORY, ANYUSER))
        nursery.start_soon(asking, "file", lambda: group.get_attr(FILE, ANYUSER))
        nursery.start_soon(asking, "several", lambda: group.validate([(DIRECTORY, vector(1))], ANYUSER))
        await reintegrated(servers)
        found["log"] = trio.current_time() - begin
    return found


async def test_files_are_asked_about_when_the_log_is_answered(foreign: None, servers: World) -> None:
    servers.each(lambda peer: peer.delay.__setitem__(Reintegrate, SECONDS))
    found = await moments(servers)
    assert found["directory"] < 1.0, "it is the only lock of that call"
    assert SECONDS <= found["log"] <= min(found["file"], found["several"]) < SECONDS + 1.0


async def test_our_own_servers_are_asked_at_once(servers: World) -> None:
    servers.each(lambda peer: peer.delay.__setitem__(Reintegrate, SECONDS))
    found = await moments(servers)
    assert max(found["directory"], found["file"], found["several"]) < 1.0


async def test_files_are_asked_about_once_every_server_fetches_back(foreign: None, servers: World) -> None:
    servers.events.contents[FILE] = b"frozen"

    def fetching(peer: VicePeer) -> None:
        async def answer(request: Reintegrate, connection: ServerConnection, transfer: Request) -> Any:
            await trio.sleep(1.0)
            await peer.fetch_back(FILE)
            await trio.sleep(SECONDS)
            return await peer.do_reintegrate(request, connection, transfer)

        peer.on[Reintegrate] = answer

    servers.each(fetching)
    found = await moments(servers)
    assert 1.0 <= min(found["file"], found["several"]) <= max(found["file"], found["several"]) < 2.0
    assert found["log"] >= 1.0 + SECONDS


@pytest.mark.parametrize(
    ("call", "harmful"),
    [
        (GetAttr(fid=FILE), True),
        (FetchPartial(fid=FILE), True),
        (Fetch(fid=FILE), True),
        (ValidateAttrs(primary=DIRECTORY, piggies=()), True),
        (GetAttr(fid=DIRECTORY), False),
        (FetchPartial(fid=DIRECTORY), False),
        (GetAttr(fid=Fid(VOLUME + 1, 2, 2)), False),
        (GetVolVS(volume=VOLUME), False),
    ],
)
def test_which_calls_take_a_chain_of_locks_in_the_volume(call: Any, harmful: bool) -> None:
    order = LockOrder()
    body = call.pack()
    assert order.is_free(call.OPCODE, body)
    with order.reintegrating(Reintegrate(volume=VOLUME, log_size=1).pack()):
        assert order.is_free(call.OPCODE, body) is not harmful
        order.taken(VOLUME + 1)
        assert order.is_free(call.OPCODE, body) is not harmful
        order.taken(VOLUME)
        assert order.is_free(call.OPCODE, body)
    with order.reintegrating(Reintegrate(volume=VOLUME, log_size=1).pack()):
        assert order.is_free(call.OPCODE, body) is not harmful
    assert order.is_free(call.OPCODE, body)
