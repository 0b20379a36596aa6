"""Logins over the socket: for whoever the kernel says is calling, told apart, and no secret in any log."""

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from realmfs.cache.cache import Cache
from realmfs.cache.limits import Limits
from realmfs.cache.volumes import VolumeRow
from realmfs.control import messages
from realmfs.control.logins import Logins
from realmfs.control.protocol import ControlError, Kind
from realmfs.realms.realms import Realms
from realmfs.realms.settings import RealmSettings
from realmfs.rpc2.endpoint import Endpoint
from realmfs.server.authserver import AuthServer
from realmfs.server.store import ServerStore
from tests.fakenet import FakeNetwork
from tests.t7_control.conftest import Control

REALM, HOST, DEAD = "r.test", "10.0.0.1", "dead.test"
ALICE = messages.Login(REALM, "alice", "alicepw1")


@dataclass
class Desk:
    logins: Logins
    realms: Realms
    cache: Cache
    store: ServerStore
    forgotten: list[tuple[str, int]]

    def pend(self, uid: int, identity: str) -> None:
        """Have a change of a user wait."""
        with self.cache.transaction():
            realm = self.cache.realms.add(REALM)
            row = VolumeRow(realm.id, 7, "/", 0, (), ())
            self.cache.volumes.save(row)
            self.cache.log.append(row.key, b"record", uid=uid, identity=identity, time=0)


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    net = FakeNetwork(seed=1)
    file = tmp_path / "realms"
    file.write_text(f"{REALM} {HOST}\n{DEAD} 10.0.0.66\n")
    store = ServerStore.create(tmp_path / "server", REALM, HOST)
    store.protection.add_user("alice", b"alicepw1")
    cache = Cache(tmp_path / "cache", Limits(bytes=1 << 20, objects=100, log_records=100, reserve=0))
    async with trio.open_nursery() as nursery:
        await nursery.start(AuthServer(store, Endpoint(net.transport((HOST, 370)))).run)
        endpoint = Endpoint(net.transport(("10.0.0.9", 0)))
        await nursery.start(endpoint.run)
        realms = Realms(endpoint, RealmSettings(realms_file=file), cast("Any", None))
        forgotten: list[tuple[str, int]] = []
        logins = Logins(realms, cache, lambda realm, uid: forgotten.append((realm, uid)))
        yield Desk(logins, realms, cache, store, forgotten)
        nursery.cancel_scope.cancel()
    cache.close()
    store.close()


async def test_a_user_handles_his_own_tokens_only(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        info = await here.logins.log_in(1000, ALICE)
        assert (info.realm, info.uid, info.user, info.state) == (REALM, 1000, "alice", "valid")
        assert info.ends is not None
        assert 89_000 < info.ends - time.time() < 90_001
        mine = await here.logins.give(1000, messages.InRealm("R.test."))
        with pytest.raises(ControlError) as caught:
            await here.logins.give(1001, messages.InRealm(REALM))
        assert caught.value.kind is Kind.UNAUTHENTICATED
        assert await here.logins.list_tokens(1000, everybody=False) == [info]
        assert await here.logins.list_tokens(1001, everybody=False) == []
        assert await here.logins.list_tokens(0, everybody=False) == []
        assert await here.logins.list_tokens(0, everybody=True) == [info]
        with pytest.raises(ControlError) as caught:
            await here.logins.list_tokens(1001, everybody=True)
        assert caught.value.number == 1
        await here.logins.take(1001, mine)
        assert await here.logins.log_out(1001, messages.Logout("other.test")) == []
        assert [gone.uid for gone in await here.logins.log_out(1001, messages.Logout())] == [1001]
        assert [held.uid for held in here.realms.tokens.all()] == [1000]


@pytest.mark.parametrize(
    ("realm", "user", "password", "kind", "text"),
    [
        (REALM, "alice", "wrong", Kind.UNAUTHENTICATED, "password is wrong"),
        (REALM, "nobody", "alicepw1", Kind.UNAUTHENTICATED, "knows this user"),
        (DEAD, "alice", "alicepw1", Kind.UNREACHABLE, "no login server answers"),
        ("nodot", "alice", "alicepw1", Kind.FAILED, "no realm nodot"),
    ],
)
async def test_failures_are_told_apart(
    tmp_path: Path, realm: str, user: str, password: str, kind: Kind, text: str
) -> None:
    async with desk(tmp_path) as here:
        with pytest.raises(ControlError) as caught:
            await here.logins.log_in(1000, messages.Login(realm, user, password))
        assert caught.value.kind is kind
        assert text in caught.value.text
        assert here.realms.tokens.all() == []


async def test_a_bad_token_file_changes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.logins.log_in(1000, ALICE)
        before = here.realms.tokens.all()
        for contents in ("", "x\nnot base64\n", "\u20ac", "*** Coda Token ***\n" + "A" * 107 + "=\n"):
            with pytest.raises(ControlError):
                await here.logins.take(1000, messages.TokenFile(REALM, contents))
        assert here.realms.tokens.all() == before


async def test_changes_that_wait_for_a_login_are_named(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        here.pend(1000, f"501@{REALM}")
        here.pend(1000, f"501@{REALM}")
        (missing,) = await here.logins.list_tokens(1000, everybody=False)
        assert missing == messages.TokenInfo(REALM, 1000, "", 501, "missing", None, 2)
        assert await here.logins.list_tokens(1001, everybody=False) == []
        info = await here.logins.log_in(1000, ALICE)
        assert info.pending == 2
        assert (await here.logins.log_out(1000, messages.Logout()))[0].pending == 2


async def test_who_has_lost_his_token_can_log_out(tmp_path: Path) -> None:
    """As after a restart: what is remembered of him is forgotten, of others not."""
    async with desk(tmp_path) as here:
        here.pend(1000, f"501@{REALM}")
        with here.cache.transaction():
            realm = here.cache.realms.add(REALM).id
            for uid in (1000, 1001):
                here.cache.identities.set(realm, uid, 501)
        assert await here.logins.log_out(1000, messages.Logout("other.test")) == []
        (gone,) = await here.logins.log_out(1000, messages.Logout(REALM.upper()))
        assert gone == messages.TokenInfo(REALM, 1000, "", 501, "missing", None, 1)
        assert here.forgotten == [(REALM, 1000)]


async def test_a_password_is_changed(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        change = messages.ChangePassword(REALM, "alice", "alicepw1", "alice", "p\udcffw")
        await here.logins.change_password(1000, change)
        await here.logins.log_in(1000, messages.Login(REALM, "alice", "p\udcffw"))
        with pytest.raises(ControlError) as caught:
            await here.logins.log_in(1000, ALICE)
        assert caught.value.kind is Kind.UNAUTHENTICATED


@pytest.mark.logs("the request tokens.passwd failed")
async def test_the_kernel_says_who_calls_and_no_log_has_a_secret(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    line = await control.connect()
    answer = await line.call("tokens.login", realm=REALM, user="alice", password="s3cr3tpw")
    assert answer["result"]["uid"] == os.getuid()
    assert control.logins.asked == [(os.getuid(), messages.Login(REALM, "alice", "s3cr3tpw"))]
    answer = await line.call("tokens.login", realm=REALM, user="alice", password="s3cr3tpw", uid=7)
    assert answer["error"]["code"] == -32602
    params = {"realm": REALM, "agent": "a", "password": "s3cr3tpw", "user": "b", "new_password": "s3cr3tnew"}
    answer = await line.call("tokens.passwd", **params)
    assert answer["error"]["code"] == -32603
    assert (await line.call("tokens.get", realm=REALM))["result"]["contents"] == f"of {os.getuid()}"
    assert "s3cr3t" not in caplog.text + str(answer) + repr(control.logins.asked)
