"""Who one is: rights follow logins, changes wait for theirs, and nothing goes out under a wrong name."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from realmfs.realms.tokens import TOKEN_MARGIN
from realmfs.server.access import Acl
from realmfs.venus.events import Event, TokenEnds, TokenNews, Waiting, Watcher
from realmfs.venus.face import Caller
from realmfs.vice.tokens import Token, TokenKey
from realmfs.vice.types import Fid, Rights
from tests.t5_venus.world import ME, REALM, Client, World, refused, until, world

ROOT = f"/{REALM}"
OTHER = Caller(1001, 1001, 0)
READ_ONLY = int(Rights.READ | Rights.LOOKUP)
DAY = 86400


class Door:
    """The users of the world's realm: alice and bob; only alice may write."""

    def __init__(self, made: World) -> None:
        store = made.realm.store
        self.store = store
        self.key = TokenKey(store.token_keys()[0])
        self.ids = {name: store.protection.add_user(name, b"password") for name in ("alice", "bob")}
        volume = store.volumes.all()[0]
        self.volume = volume.id
        self.give(Fid.root(volume.id), "alice", Rights.ALL)

    def give(self, fid: Fid, name: str, rights: Rights) -> None:
        """Let a user have these rights in a directory, and anybody those to read."""
        store = self.store
        directory = store.vnodes.find(Fid(self.volume, fid.vnode, fid.unique))
        anyuser = store.protection.id_of("System:AnyUser")
        assert directory is not None
        assert anyuser is not None
        directory.acl = Acl(((anyuser, READ_ONLY), (self.ids[name], int(rights))), ())
        with store.transaction():
            store.vnodes.write([directory])

    def token(self, name: str, lifetime: float = DAY, key: TokenKey | None = None) -> Token:
        return (key or self.key).mint(
            self.ids[name], int(time.time()), handshake_key=b"handshak", iv=bytes(16), lifetime=int(lifetime)
        )

    def log_in(self, client: Client, name: str | None, lifetime: float = DAY, caller: Caller = ME) -> None:
        realm = client.realms.realm_named(REALM)
        assert realm is not None
        realm.set_token(caller.uid, None if name is None else self.token(name, lifetime), name or "")


@contextmanager
def watching(client: Client) -> Iterator[Watcher]:
    with client.venus.events.watch() as watcher:
        yield watcher


def of_kind(events: list[Event], kind: type[Event]) -> list[str]:
    return [event.text() for event in events if isinstance(event, kind)]


def waiting_for(client: Client) -> str:
    (volume,) = [volume for volume in client.venus.core.volumes if volume.realm == REALM]
    return volume.waiting_for


async def test_rights_follow_login_and_logout(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        with refused(errno.EACCES):
            await a.mkdir(f"{ROOT}/early")
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        assert await a.write(f"{ROOT}/d/f", b"hers")
        await a.drained()
        with refused(errno.EACCES):
            await a.write(f"{ROOT}/d/f", b"not his", OTHER)
        door.log_in(a, "bob")
        with refused(errno.EACCES):
            await a.mkdir(f"{ROOT}/bobs")
        door.log_in(a, None)
        with refused(errno.EACCES):
            await a.mkdir(f"{ROOT}/late")
        assert await a.read(f"{ROOT}/d/f") == b"hers"
        b = await w.client()
        attr = await b.look(f"{ROOT}/d/f")
        assert attr.uid == door.ids["alice"], "servers know who made it"


async def test_rights_of_objects_that_left_memory_are_asked_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client(objects_in_memory=2)
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        for name in "wxyz":
            await a.write(f"{ROOT}/d/{name}", b"1")
        await a.drained()
        door.log_in(a, None)
        for name in "wxyz":
            with refused(errno.EACCES):
                await a.write(f"{ROOT}/d/{name}", b"2")


async def test_cached_rights_serve_while_servers_are_away(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.write(f"{ROOT}/f", b"1")
        await a.drained()
        a.offline()
        await trio.sleep(60)
        door.log_in(a, "alice", TOKEN_MARGIN / 2)  # as good as expired
        await a.write(f"{ROOT}/f", b"2")
        assert a.pending
        with watching(a) as watcher:
            a.online()
            await until(lambda: waiting_for(a) == "tokens")
            assert of_kind(watcher.waiting(), Waiting) == [f"Reintegrate / pending tokens for uid = {ME.uid}"]
        await trio.sleep(600)
        assert a.pending, "an expired token is not sent, nor is anything behind its back"
        assert (await (await w.client()).read(f"{ROOT}/f")) == b"1"
        door.log_in(a, "alice")
        await a.drained()


async def test_changes_wait_for_their_author(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:  # anybody may write where the realm does not say otherwise
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        await a.drained()
        a.offline()
        await trio.sleep(60)
        await a.write(f"{ROOT}/d/first", b"1")
        door.log_in(a, "alice", TOKEN_MARGIN / 2)  # as good as expired
        await a.write(f"{ROOT}/d/second", b"2")
        door.log_in(a, "bob")
        a.online()
        await until(lambda: waiting_for(a) == "tokens")
        await trio.sleep(300)
        assert a.pending == 4
        door.log_in(a, "alice")
        await a.drained()
        b = await w.client()
        for name in ("first", "second"):
            assert (await b.look(f"{ROOT}/d/{name}")).uid == door.ids["alice"]


async def test_what_a_former_user_changed_waits_for_him(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.write(f"{ROOT}/f", b"1")
        await a.drained()
        a.offline()
        await a.restart()
        await a.write(f"{ROOT}/f", b"2")
        a.online()
        await until(lambda: waiting_for(a) == "tokens")
        door.log_in(a, "alice")
        await a.drained()
        assert (await (await w.client()).read(f"{ROOT}/f")) == b"2"


async def test_a_refused_token_is_dropped_and_reading_goes_on(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.write(f"{ROOT}/f", b"1")
        await a.drained()
        with watching(a) as watcher:
            realm = a.realms.realm_named(REALM)
            assert realm is not None
            realm.set_token(ME.uid, door.token("alice", key=TokenKey(b"elsewise")), "alice")
            assert await a.ls(ROOT) == ["f"]
            assert await a.read(f"{ROOT}/f") == b"1"
            with refused(errno.EACCES):
                await a.write(f"{ROOT}/f", b"2")
            assert a.realms.tokens.all() == []
            news = of_kind(watcher.waiting(), TokenNews)
        assert [one.rpartition(" ")[2] for one in news] == ["taken", "refused"]


async def test_the_end_of_a_token_is_announced(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        start, begun = time.time(), trio.current_time()
        monkeypatch.setattr(a.venus.core, "now", lambda: start + trio.current_time() - begun)
        door.log_in(a, "alice", 2 * 3600 + TOKEN_MARGIN)
        with watching(a) as watcher:
            await trio.sleep(3600 - 60)
            assert of_kind(watcher.waiting(), TokenEnds) == []
            await trio.sleep(120)
            (warning,) = of_kind(watcher.waiting(), TokenEnds)
            assert f"user {ME.uid} in {REALM} will be rejected" in warning
            await trio.sleep(3600)
            later = of_kind(watcher.waiting(), TokenEnds)
            assert len(later) == 12
            assert later[-1].endswith("has expired")
            await trio.sleep(3600)
            assert of_kind(watcher.waiting(), TokenEnds) == []


async def test_who_one_was_is_known_after_a_restart_without_the_token(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """What is changed off line then waits for the login, even where servers would take it from anybody."""
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/public")
        await a.drained()
        door = Door(w)
        door.log_in(a, "alice")
        await a.write(f"{ROOT}/public/f", b"1")
        await a.drained()
        a.offline()
        await a.restart()
        await a.write(f"{ROOT}/public/f", b"2")
        await a.write(f"{ROOT}/public/new", b"new")
        await a.change(f"{ROOT}/public/new", mode=0o600)
        assert (await a.look(f"{ROOT}/public/new")).uid == door.ids["alice"]
        assert identities(a) == {f"{door.ids['alice']}@{REALM}"}
        await a.restart()
        a.online()
        await until(lambda: waiting_for(a) == "tokens")
        door.log_in(a, "bob")
        await trio.sleep(300)
        assert a.pending, "neither nobody's nor bob's"
        door.log_in(a, "alice")
        await a.drained()
        b = await w.client()
        assert [(await b.look(f"{ROOT}/public/{one}")).uid for one in ("f", "new")] == [door.ids["alice"]] * 2


async def test_with_servers_in_reach_who_has_no_token_is_nobody(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/public")
        await a.drained()
        door = Door(w)
        door.log_in(a, "alice")
        await a.ls(f"{ROOT}/public")
        await a.restart()
        await a.ls(f"{ROOT}/public")
        await a.write(f"{ROOT}/public/f", b"of nobody")
        await a.drained()
        assert (await (await w.client()).look(f"{ROOT}/public/f")).uid != door.ids["alice"]


@pytest.mark.parametrize("how", ["log out", "log in as another"])
async def test_rights_from_before_a_restart_end_with_who_had_them(
    tmp_path: Path, autojump_clock: trio.abc.Clock, how: str
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.write(f"{ROOT}/f", b"1")
        await a.drained()
        a.offline()
        await a.restart()
        await a.write(f"{ROOT}/f", b"2")
        if how == "log out":
            a.venus.logins.forget(REALM, ME.uid)
        else:
            door.log_in(a, "bob")
        with refused(errno.EACCES):
            await a.write(f"{ROOT}/f", b"3")
        await a.restart()
        with refused(errno.EACCES):
            await a.write(f"{ROOT}/f", b"3")
        assert identities(a) == {f"{door.ids['alice']}@{REALM}"}, "what she did waits for her"


def identities(client: Client) -> set[str]:
    """Return under which identities changes wait."""
    return {entry.identity for key in client.cache.log.volumes() for entry in client.cache.log.entries(key)}
