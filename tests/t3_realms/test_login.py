"""auth.md §1 to §3: logging in at real login servers on a fake network, and at those that misbehave."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from realmfs.realms.login import LoginError, LoginService, Refusal
from realmfs.realms.lookup import RootServer
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.service import Reply, Request, ServerConnection
from realmfs.server.authserver import AuthServer
from realmfs.server.store import ServerStore
from realmfs.vice.auth import AuthCode, ChangePassword, GetTokens, Quit
from realmfs.vice.tokens import TokenKey, verify
from tests.fakenet import FakeNetwork

NOW = 1_800_000_000
HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


@pytest.fixture(autouse=True)
def disk_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps must not jump while a thread of the server syncs its files."""

    async def run_here(function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


class CountingAuth(AuthServer):
    """Notes its calls; answers some of them as told."""

    asked: list[int]
    answers: dict[int, Reply]

    async def call(self, connection: ServerConnection, request: Request) -> Reply:
        self.asked.append(request.opcode)
        if request.opcode in self.answers:
            return self.answers[request.opcode]
        return await super().call(connection, request)


@dataclass
class Place:
    """Three login servers, each with a store of its own: what one learns the others do not."""

    net: FakeNetwork
    client: Endpoint
    stores: list[ServerStore] = field(default_factory=list)
    servers: list[CountingAuth] = field(default_factory=list)

    def as_user(self, user: str, password: str, hosts: tuple[str, ...] = HOSTS) -> LoginService:
        # Priorities, so that the order of asking is that of the hosts.
        roots = [RootServer(host, (host, 370), priority=place) for place, host in enumerate(hosts)]
        return LoginService(self.client, roots, user, password.encode())

    def ident(self, user: str) -> int:
        found = self.stores[0].protection.id_of(user)
        assert found is not None
        return found


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    net = FakeNetwork(seed=1, latency=0.01)
    async with trio.open_nursery() as nursery:
        client = Endpoint(net.transport(("10.0.0.9", 0)), rng=random.Random(1))
        await nursery.start(client.run)
        made = Place(net, client)
        for host in HOSTS:
            store = ServerStore.create(directory / host, "r.test", host)
            for name in ("alice", "root1"):
                user = store.protection.add_user(name, f"{name}-pw".encode())
            store.protection.add_member(store.protection.administrators, user)
            server = CountingAuth(store, Endpoint(net.transport((host, 370))), clock=lambda: NOW)
            server.asked, server.answers = [], {}
            await nursery.start(server.run)
            made.stores.append(store)
            made.servers.append(server)
        yield made
        nursery.cancel_scope.cancel()
    for store in made.stores:
        store.close()


async def refusal_of(service: LoginService) -> Refusal:
    with pytest.raises(LoginError) as caught:
        await service.token()
    return caught.value.refusal


async def test_a_password_becomes_a_token(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with place(tmp_path) as here:
        for name in ("alice", str(here.ident("alice"))):
            token = await here.as_user(name, "alice-pw and more than counts").token()
            key = TokenKey(here.stores[0].token_keys()[0])
            assert verify(token.secret, [key], NOW).vice_id == token.clear.vice_id == here.ident("alice")
        assert here.servers[0].asked == [GetTokens.OPCODE, Quit.OPCODE] * 2
        assert not here.servers[1].asked, "the first answer is enough"


async def test_failures_are_told_apart_and_soon(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with place(tmp_path) as here:
        start = trio.current_time()
        assert await refusal_of(here.as_user("alice", "nonsense")) is Refusal.WRONG_PASSWORD
        assert trio.current_time() - start < 3
        start = trio.current_time()
        assert await refusal_of(here.as_user("nobody", "alice-pw")) is Refusal.UNKNOWN_USER
        assert trio.current_time() - start < 1
        start = trio.current_time()
        assert await refusal_of(here.as_user("alice", "alice-pw", ("10.0.0.66",))) is Refusal.NO_SERVER
        assert await refusal_of(here.as_user("alice", "alice-pw", ())) is Refusal.NO_SERVER
        assert trio.current_time() - start < 6
        for bad in ("", "x" * 65, "a\0b"):
            with pytest.raises(LoginError):
                here.as_user(bad, "alice-pw")


async def test_a_silent_server_holds_nobody_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with place(tmp_path) as here:
        here.net.partition(HOSTS[0])
        start = trio.current_time()
        await here.as_user("alice", "alice-pw").token()
        assert await refusal_of(here.as_user("alice", "nonsense")) is Refusal.WRONG_PASSWORD
        assert trio.current_time() - start < 5


async def test_a_wrong_password_is_shown_to_one_server_only(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with place(tmp_path) as here:
        here.stores[2].protection.set_key(here.ident("alice"), b"newpw\0\0\0")
        heard: Counter[str] = Counter()

        def tap(datagram: bytes, sender: tuple[str, int], receiver: tuple[str, int]) -> bool:
            heard[receiver[0]] += 1
            return True

        here.net.tap = tap
        assert await refusal_of(here.as_user("alice", "newpw")) is Refusal.WRONG_PASSWORD
        assert not heard[HOSTS[1]], "one server only is kept waiting by it"
        here.net.partition(HOSTS[0])
        here.net.partition(HOSTS[1])
        assert (await here.as_user("alice", "newpw").token()).clear.vice_id == here.ident("alice")


async def test_a_server_that_fails_or_talks_nonsense_is_passed_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with place(tmp_path) as here:
        here.servers[0].answers[GetTokens.OPCODE] = Reply(AuthCode.FAILED, bytes(80))
        here.servers[1].answers[GetTokens.OPCODE] = Reply(0, b"short")
        assert (await here.as_user("alice", "alice-pw").token()).clear.vice_id
        assert await refusal_of(here.as_user("alice", "alice-pw", HOSTS[:2])) is Refusal.FAILED


async def test_only_one_server_takes_changes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with place(tmp_path) as here:
        read_only = Reply(AuthCode.READONLY)
        here.servers[0].answers[ChangePassword.OPCODE] = read_only
        await here.as_user("alice", "alice-pw").change_password("alice", b"another")
        assert await refusal_of(here.as_user("alice", "alice-pw", HOSTS[1:2])) is Refusal.WRONG_PASSWORD
        await here.as_user("alice", "another", HOSTS[1:2]).token()
        with pytest.raises(LoginError) as caught:
            await here.as_user("alice", "alice-pw", HOSTS[:1]).change_password("alice", b"another")
        assert caught.value.refusal is Refusal.READ_ONLY


async def test_whose_password_one_may_change(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with place(tmp_path) as here:
        await here.as_user("root1", "root1-pw").change_password("alice", b"given")
        await here.as_user("alice", "given").token()
        cases = [
            ("alice", "given", "root1", b"mine", Refusal.DENIED),
            ("alice", "given", "nobody", b"mine", Refusal.UNKNOWN_USER),
            ("alice", "given", "alice", b"", Refusal.BAD_KEY),
            ("alice", "given", "alice", b"a\0b", Refusal.BAD_KEY),
            ("alice", "given", "alice", b"\xff" * 8, Refusal.BAD_KEY),
            ("alice", "wrong", "alice", b"mine", Refusal.WRONG_PASSWORD),
        ]
        for user, password, target, new, refusal in cases:
            with pytest.raises(LoginError) as caught:
                await here.as_user(user, password, HOSTS[:1]).change_password(target, new)
            assert caught.value.refusal is refusal, (user, target)


async def test_a_lossy_network(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with place(tmp_path) as here:
        here.net.loss, here.net.duplicates, here.net.jitter = 0.15, 0.2, 0.05
        assert (await here.as_user("alice", "alice-pw").token()).clear.vice_id == here.ident("alice")
