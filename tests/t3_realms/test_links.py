"""The pool of connections to one server, with connections that are no more than a flag."""

import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio
import trio.testing

from realmfs.realms.links import Link, Links
from realmfs.realms.tokens import TOKEN_MARGIN, usable
from realmfs.realms.types import ANYUSER
from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import Reply
from realmfs.vice.tokens import Token


@dataclass
class Wire:
    """Stands for a Connection."""

    usable: bool = True
    hang: bool = False

    async def call(self, opcode: int, body: bytes, *, source: Any, sink: Any) -> Reply:
        if self.hang:
            await trio.sleep_forever()
        return Reply(0, body)

    def close(self) -> None:
        self.usable = False


@dataclass
class Maker:
    made: list[Link] = field(default_factory=list)
    fail: bool = False
    wait: float = 0.0

    async def __call__(self, user: int, token: Token | None) -> Link:
        await trio.sleep(self.wait)
        if self.fail:
            raise RpcError(Rpc2Code.DEAD)
        self.made.append(Link(cast("Any", Wire()), user, token))
        return self.made[-1]


async def test_an_idle_link_is_used_again() -> None:
    maker = Maker()
    links = Links(2, maker)
    link = await links.acquire(ANYUSER, None)
    assert await link.call(1, b"x") == (0, b"x")
    links.release(link)
    assert await links.acquire(ANYUSER, None) is link
    assert len(maker.made) == 1


async def test_identities_do_not_mix(token: Token) -> None:
    links = Links(8, Maker())
    first = await links.acquire(ANYUSER, None)
    links.release(first)
    second = await links.acquire(5, token)
    assert second is not first
    links.release(second)
    assert links.take(6, token) is None
    assert links.take(5, None) is None
    assert links.take(ANYUSER, None) is first


async def test_there_is_a_limit_and_a_queue(autojump_clock: trio.testing.MockClock) -> None:
    maker = Maker()
    links = Links(2, maker)
    held = [await links.acquire(ANYUSER, None) for _ in range(2)]
    got: list[int] = []

    async def wants(number: int) -> None:
        link = await links.acquire(ANYUSER, None)
        got.append(number)
        await trio.sleep(1)
        links.release(link)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wants, number)
            await trio.testing.wait_all_tasks_blocked()
        assert got == []
        links.release(held[0])
    assert got == [0, 1, 2]
    assert len(maker.made) == 2


async def test_a_cancelled_waiter_passes_its_turn_on(autojump_clock: trio.testing.MockClock) -> None:
    links = Links(1, Maker())
    held = await links.acquire(ANYUSER, None)
    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope(), trio.CancelScope()]
        got: list[int] = []

        async def wants(number: int) -> None:
            with scopes[number]:
                links.release(await links.acquire(ANYUSER, None))
                got.append(number)

        nursery.start_soon(wants, 0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wants, 1)
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        links.release(held)  # wakes the one who is going away
        await trio.testing.wait_all_tasks_blocked()
        assert got == [1]


async def test_another_identity_gets_the_place_of_an_idle_one(token: Token) -> None:
    links = Links(1, Maker())
    first = await links.acquire(ANYUSER, None)
    links.release(first)
    second = await links.acquire(5, token)
    assert not first.connection.usable
    assert len(links) == 1
    links.release(second)


async def test_a_failure_to_make_one_frees_the_place() -> None:
    maker = Maker(fail=True)
    links = Links(1, maker)
    for _ in range(3):
        with pytest.raises(RpcError):
            await links.acquire(ANYUSER, None)
    assert len(links) == 0


async def test_drop_ends_calls_and_spares_what_is_in_the_making(
    autojump_clock: trio.testing.MockClock,
) -> None:
    maker = Maker(wait=1.0)
    links = Links(8, maker)
    idle = await links.acquire(ANYUSER, None)
    busy = await links.acquire(ANYUSER, None)
    cast("Any", busy.connection).hang = True
    links.release(idle)
    outcome: list[tuple[int, bytes]] = []
    fresh: list[Link] = []

    async def calls() -> None:
        outcome.append(await busy.call(1, b""))
        links.release(busy)

    async def makes() -> None:
        links.take(ANYUSER, None)  # the idle one, so that another must be made
        fresh.append(await links.acquire(ANYUSER, None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls)
        nursery.start_soon(makes)
        await trio.sleep(0.5)
        links.drop(Rpc2Code.NAKED)
    assert outcome == [(Rpc2Code.NAKED, b"")]
    assert not busy.connection.usable
    links.release(fresh[0])
    assert links.take(ANYUSER, None) is fresh[0]


async def test_a_broken_link_is_not_kept() -> None:
    links = Links(1, Maker())
    link = await links.acquire(ANYUSER, None)
    link.connection.close()
    links.release(link)
    assert len(links) == 0


async def test_losing_a_token_closes_its_links(token: Token) -> None:
    links = Links(4, Maker())
    idle, lent = await links.acquire(5, token), await links.acquire(5, token)
    links.release(idle)
    links.drop_user(5)
    assert not idle.connection.usable
    links.release(lent)
    assert not lent.connection.usable
    assert len(links) == 0


async def test_nothing_is_sent_on_an_expired_token(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links(4, Maker())
    link = await links.acquire(5, token)
    links.release(link)
    assert usable(token) is token
    monkeypatch.setattr(time, "time", lambda: token.clear.end - TOKEN_MARGIN)
    assert usable(token) is None
    links.drop_expired()
    assert not link.connection.usable
