"""auth2: who may bind, what each operation answers, what its tokens are good for (auth.md §2, §3)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Connection, Endpoint
from realmfs.rpc2.errors import RpcError, WrongSecret
from realmfs.rpc2.service import ANONYMOUS, Address, Credentials, Level
from realmfs.server.authserver import BY_PASSWORD, AuthServer
from realmfs.server.database import StoreError
from realmfs.vice import auth, calls
from realmfs.vice.auth import AUTH_SUBSYSTEM, AuthCode, password_key
from realmfs.vice.tokens import Token
from realmfs.vice.wire import Request
from tests.t2b_server.harness import ALL, NOW, Realm, serving

AUTH: Address = ("10.0.0.1", 370)


class Login:
    """A program like clog."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def bind(
        self, name: bytes, password: str, subsystem: int = AUTH_SUBSYSTEM, level: int = 66
    ) -> Connection:
        credentials = Credentials(level, name, password_key(password.encode()), BY_PASSWORD)
        return await self.endpoint.bind(AUTH, subsystem, credentials, side_effects=False)


async def ask(connection: Connection, request: Request[Any]) -> tuple[int, bytes]:
    reply = await connection.call(request.OPCODE, request.pack())
    return reply.code, reply.body


@asynccontextmanager
async def logins(directory: Path) -> AsyncIterator[tuple[Realm, trio.Nursery, Login]]:
    async with serving(directory) as (realm, nursery):
        realm.add_user("ann", administrator=True)
        realm.add_user("bob")
        realm.store.protection.add_user("nopass")
        server = AuthServer(realm.store, Endpoint(realm.net.transport(AUTH)), clock=lambda: realm.now)
        await nursery.start(server.run)
        client = Endpoint(realm.net.transport(("10.0.9.9", 0)), rng=random.Random(3))
        await nursery.start(client.run)
        yield realm, nursery, Login(client)


@pytest.mark.parametrize("subsystem", [AUTH_SUBSYSTEM, 0x256A1E00, 77])
async def test_login_gives_a_token_that_file_servers_take(
    tmp_path: Path, autojump_clock: MockClock, subsystem: int
) -> None:
    async with logins(tmp_path / "data") as (realm, nursery, login):
        connection = await login.bind(b"bob\0", "bob", subsystem)
        code, body = await ask(connection, auth.GetTokens())
        assert (code, len(body)) == (0, 80)
        token = Token.from_reply(auth.GetTokens.Reply.unpack(body))
        bob = realm.store.protection.id_of("bob")
        assert (token.clear.vice_id, token.clear.end) == (bob, NOW + 90000)
        client = await realm.client(nursery, introduce=False)
        await client.bind(token)
        await client.introduce()
        realm.set_root_acl(0, (bob or 0, ALL))
        assert (await client.status(realm.root)).my_rights == ALL
        assert (await ask(connection, auth.Quit()))[0] == 0
        assert (await ask(connection, auth.GetTokens()))[0] == AuthCode.FAILED


async def test_names_and_numbers(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with logins(tmp_path / "data") as (realm, _, login):
        bob = realm.store.protection.id_of("bob")
        connection = await login.bind(b"%d\0" % (bob or 0), "bob")
        code, body = await ask(connection, auth.NameToId(name=b"ann"))
        assert (code, auth.NameToId.Reply.unpack(body).vice_id) == (0, realm.store.protection.id_of("ann"))
        code, body = await ask(connection, auth.NameToId(name=b"nobody"))
        assert (code, len(body)) == (AuthCode.FAILED, 4)


async def test_who_is_refused_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with logins(tmp_path / "data") as (realm, _, login):
        realm.store.protection.close_account(realm.store.protection.id_of("bob") or 0)
        start = trio.current_time()
        for name in (b"nobody\0", b"nopass\0", b"bob\0", b"", b"\xff\xfe\0", b"99999999999999\0", b"1x\0",
                     b"System:Administrators\0"):  # fmt: skip
            with pytest.raises(RpcError) as caught:
                await login.bind(name, "bob")
            assert caught.value.code == Rpc2Code.NOTAUTHENTICATED, name
        with pytest.raises(RpcError) as caught:
            await login.bind(b"ann\0", "ann", level=Level.AUTHONLY)
        assert caught.value.code == Rpc2Code.NOTAUTHENTICATED
        with pytest.raises(RpcError):
            await login.endpoint.bind(AUTH, AUTH_SUBSYSTEM, ANONYMOUS, side_effects=False)
        assert trio.current_time() - start < 1
        with pytest.raises(WrongSecret):
            await login.bind(b"ann\0", "wrong")


async def test_passwords_are_changed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with logins(tmp_path / "data") as (realm, _, login):
        db = realm.store.protection
        ann, bob, nopass = (db.id_of(name) or 0 for name in ("ann", "bob", "nopass"))
        asann, asbob = await login.bind(b"ann\0", "ann"), await login.bind(b"bob\0", "bob")
        change = auth.ChangePassword
        cases: list[tuple[Connection, Request[Any], AuthCode]] = [
            (asbob, change(vice_id=bob, password=b"new password"), AuthCode.SUCCESS),
            (asbob, change(vice_id=ann, password=b"x"), AuthCode.DENIED),
            (asann, change(vice_id=nopass, password=b"x"), AuthCode.FAILED),
            (asann, change(vice_id=-1, password=b"x"), AuthCode.FAILED),
            (asbob, change(vice_id=bob, password=b""), AuthCode.BADKEY),
            (asbob, change(vice_id=bob, password=b"\xff" * 8), AuthCode.BADKEY),
            (asbob, auth.NewUser(vice_id=nopass, key=b"12345678"), AuthCode.DENIED),
            (asbob, auth.ChangeUser(vice_id=ann, key=b"12345678"), AuthCode.DENIED),
            (asbob, auth.DeleteUser(vice_id=ann), AuthCode.DENIED),
            (asann, auth.NewUser(vice_id=nopass, key=b"12345678"), AuthCode.SUCCESS),
            (asann, auth.NewUser(vice_id=nopass, key=b"12345678"), AuthCode.FAILED),
            (asann, auth.NewUser(vice_id=99999, key=b"12345678"), AuthCode.FAILED),
            (asann, auth.ChangeUser(vice_id=nopass, key=b"87654321"), AuthCode.SUCCESS),
            (asann, auth.ChangeUser(vice_id=99999, key=b"87654321"), AuthCode.FAILED),
            (asann, auth.ChangeUser(vice_id=nopass, key=bytes(8)), AuthCode.BADKEY),
            (asann, auth.DeleteUser(vice_id=99999), AuthCode.FAILED),
        ]
        for connection, request, code in cases:
            assert (await connection.call(request.OPCODE, request.pack())).code == code, request
        await login.bind(b"bob\0", "new pass")
        await login.bind(b"nopass\0", "87654321")
        gone = auth.DeleteUser(vice_id=nopass)
        assert (await asann.call(gone.OPCODE, gone.pack())).code == 0
        again = auth.NewUser(vice_id=nopass, key=b"12345678")
        assert (await asann.call(again.OPCODE, again.pack())).code == AuthCode.FAILED, "its id stays in use"
        for password in ("87654321", "\xff" * 8):
            with pytest.raises(RpcError) as caught:
                await login.bind(b"nopass\0", password)
            assert caught.value.code == Rpc2Code.NOTAUTHENTICATED


async def test_rubbish_is_answered(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with logins(tmp_path / "data") as (_, _, login):
        connection = await login.bind(b"bob\0", "bob")
        assert (await connection.call(6, b"\xff" * 9)).code == Rpc2Code.BADDATA
        assert (await connection.call(99, b"")).code == Rpc2Code.INVALIDOPCODE
        assert (await ask(connection, auth.GetTokens()))[0] == 0


async def test_tokens_of_the_last_key_are_good_and_others_not(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        user = realm.add_user("ann")
        token = realm.token(user)
        client = await realm.client(nursery, introduce=False)
        realm.store.change_token_key(now=realm.now)
        await client.bind(token)
        with pytest.raises(StoreError, match="hold for 25"):
            realm.store.change_token_key(now=realm.now)
        realm.store.change_token_key(now=realm.now, revoke=True)
        for bad in (token, realm.token(user, lifetime=-1)):
            with pytest.raises(RpcError) as caught:
                await client.bind(bad)
            assert caught.value.code == Rpc2Code.NOTAUTHENTICATED
        stranger = realm.token(4711)
        await client.bind(stranger)
        assert (await client.status(realm.root)).my_rights == 9, "an unknown id is nobody"
        assert (await client.ask_code(calls.GetVolumeInfo(name=b"/")))[0] == 0


def test_ports_below_1024_are_not_insisted_on(tmp_path: Path) -> None:
    from realmfs.server import serving as module

    tried: list[int] = []

    async def bind(address: str, port: int) -> object:
        tried.append(port)
        if port in (370, 12433):
            raise StoreError("taken")
        return port

    async def run() -> object:
        module_bind, module._bind = module._bind, bind  # type: ignore[assignment]  # a stand-in
        try:
            return await module._bind_auth("127.0.0.1", 12432, None)
        finally:
            module._bind = module_bind

    assert trio.run(run) == 0
    assert tried == [370, 12433, 0]
