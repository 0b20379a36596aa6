"""Who may do what: rights come from the directory, follow its access list and the user's token, and end."""

import errno
import os
from pathlib import Path

import pytest
import trio

from realmfs.realms.tokens import TOKEN_MARGIN
from realmfs.server.access import Acl
from realmfs.venus.face import Caller, Changes
from realmfs.vice.types import Fid, Rights
from tests.t5_venus.test_logins import Door, waiting_for
from tests.t5_venus.world import ALL_RIGHTS, ME, REALM, Client, World, refused, until, world

ROOT = f"/{REALM}"
BOB = Caller(1002, 1002, 0)
ZOE = Caller(1003, 1003, 0)
READ_ONLY = int(Rights.READ | Rights.LOOKUP)
WRITE = int(Rights.READ | Rights.LOOKUP | Rights.INSERT | Rights.WRITE | Rights.DELETE)


async def give(w: World, client: Client, path: str, **rights: int) -> None:
    """Give a directory an access list at the server, as another client's SetACL does; promises break."""
    node = client.venus.core.nodes.by_number((await client.look(path, ZOE)).ino)
    store = w.realm.store
    vnode = store.vnodes.find(Fid(store.volumes.all()[0].id, *node.fid[1:]))
    assert vnode is not None
    names = {"anyuser": "System:AnyUser"}
    entries = [(store.protection.id_of(names.get(name, name)), granted) for name, granted in rights.items()]
    assert all(number is not None for number, _ in entries)
    vnode.acl = Acl(tuple((number, granted) for number, granted in entries if number is not None), ())
    vnode.vv = vnode.vv.raised([0])
    with store.transaction():
        store.vnodes.write([vnode])
    server = next(iter(client.realms.servers()))
    client.venus.callback_broken(server, node.fid)


async def test_nobodys_changes_are_sent_as_nobodys_even_after_a_login(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        a = await w.client()
        await a.mkdir(f"{ROOT}/public")
        await a.drained()
        door = Door(w)
        a.offline()
        await trio.sleep(60)
        await a.write(f"{ROOT}/public/before", b"1")
        door.log_in(a, "alice")
        a.online()
        await a.drained()
        await a.write(f"{ROOT}/public/after", b"2")
        await a.drained()
        b = await w.client()
        assert (await b.look(f"{ROOT}/public/before")).uid != door.ids["alice"]
        assert (await b.look(f"{ROOT}/public/after")).uid == door.ids["alice"]


async def test_without_a_token_one_has_anybodys_rights(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        await a.drained()
        await give(w, a, f"{ROOT}/d", anyuser=WRITE)
        await a.write(f"{ROOT}/d/public", b"of anybody", ZOE)
        await a.drained()
        with refused(errno.EACCES):
            await a.write(f"{ROOT}/f", b"", ZOE)
        assert (await (await w.client()).look(f"{ROOT}/d/public")).uid != door.ids["alice"]


async def test_known_rights_last_offline_but_not_on_line_and_not_over_a_logout(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"private")
        await a.drained()
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS)
        assert await a.read(f"{ROOT}/d/f") == b"private"
        for caller in (BOB, ZOE):
            with refused(errno.EACCES):
                await a.read(f"{ROOT}/d/f", caller)
        door.log_in(a, "alice", TOKEN_MARGIN / 2)  # as good as expired
        with refused(errno.EACCES):
            await a.read(f"{ROOT}/d/f")
        a.offline()
        await trio.sleep(60)
        assert await a.read(f"{ROOT}/d/f") == b"private"
        await a.restart()
        assert await a.read(f"{ROOT}/d/f") == b"private"
        await a.write(f"{ROOT}/d/f", b"written without a token")
        with refused(errno.EACCES):
            await a.read(f"{ROOT}/d/f", BOB)
        a.online()
        await until(lambda: waiting_for(a) == "tokens")
        assert await a.read(f"{ROOT}/d/f") == b"written without a token", "what he has begun he goes on with"
        door.log_in(a, "alice")
        await a.drained()
        a.offline()
        await trio.sleep(60)
        door.log_in(a, None)
        with refused(errno.EACCES):
            await a.read(f"{ROOT}/d/f")
        await a.restart()
        with refused(errno.EACCES):
            await a.read(f"{ROOT}/d/f")


async def test_rights_do_not_pass_to_whom_the_user_is_next(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        await a.drained()
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS)
        await a.ls(f"{ROOT}/d")
        a.offline()
        await trio.sleep(60)
        door.log_in(a, "bob")
        with refused(errno.EACCES):
            await a.ls(f"{ROOT}/d")


async def test_a_file_follows_the_list_of_its_directory_whoever_asks_first(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        door.log_in(a, "bob", caller=BOB)
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"of both")
        await a.drained()
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS, bob=WRITE)
        ino = (await a.look(f"{ROOT}/d/f")).ino
        for caller in (ME, BOB):
            assert await a.read(f"{ROOT}/d/f", caller) == b"of both"
            assert await a.venus.access(caller, ino, os.R_OK | os.W_OK)
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS, bob=int(Rights.LOOKUP))
        assert await a.read(f"{ROOT}/d/f") == b"of both"  # alice's question must not vouch for bob's rights
        for refusing in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            with refused(errno.EACCES):
                await a.venus.open(BOB, ino, refusing)
        assert not await a.venus.access(BOB, ino, os.R_OK)
        assert (await a.look(f"{ROOT}/d/f", BOB)).ino == ino, "he may still look up"
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS)
        with refused(errno.EACCES):
            await a.look(f"{ROOT}/d/f", BOB)
        await a.restart()
        door.log_in(a, "bob", caller=BOB)
        with refused(errno.EACCES):
            await a.read(f"{ROOT}/d/f", BOB)


async def test_a_second_user_costs_a_question_per_directory_not_per_file(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        for number in range(20):
            await a.write(f"{ROOT}/d/{number}", b"x")
        await a.drained()
        for number in range(20):
            await a.read(f"{ROOT}/d/{number}")
        door.log_in(a, "bob", caller=BOB)
        w.realm.counted()
        for number in range(20):
            await a.read(f"{ROOT}/d/{number}", BOB)
        assert sum(w.realm.counted().values()) < 10


@pytest.mark.parametrize("shared", [False, True])
async def test_a_shared_kernel_remembers_only_what_anybody_may_look_up(
    tmp_path: Path, autojump_clock: trio.abc.Clock, shared: bool
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client(shared=shared)
        await a.look(ROOT)
        door.log_in(a, "alice")
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"private")
        await a.drained()
        assert (await a.look(f"{ROOT}/d/f")).entry_timeout > 0
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS)
        lasting = (await a.look(f"{ROOT}/d/f")).entry_timeout
        absent = (await a.venus.lookup(ME, (await a.look(f"{ROOT}/d")).ino, b"none")).entry_timeout
        assert (lasting > 0, absent > 0) == (not shared, not shared)
        assert (await a.look(f"{ROOT}/d")).entry_timeout > 0
        listed = [entry.attr.entry_timeout for entry in await a.entries(f"{ROOT}/d") if entry.attr]
        assert [timeout > 0 for timeout in listed] == [not shared]


async def test_refusals_tell_no_names(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        directory = await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"private")
        link = await a.symlink(f"{ROOT}/d/l", b"secret target")
        await a.drained()
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS)
        await a.ls(f"{ROOT}/d")
        assert await a.venus.readlink(ME, link) == b"secret target"
        with refused(errno.EACCES):
            await a.venus.readlink(BOB, link)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        for name in (b"f", b"absent"):
            with refused(errno.EACCES):
                await a.venus.create(BOB, directory, name, 0o644, flags)
            with refused(errno.EACCES):
                await a.venus.mkdir(BOB, directory, name, 0o755)
            with refused(errno.EACCES):
                await a.venus.unlink(BOB, directory, name)
            with refused(errno.EACCES):
                await a.venus.lookup(BOB, directory, name)
            with refused(errno.EACCES):
                await a.venus.rename(BOB, directory, name, directory, b"new", 0)


async def test_modes_and_owners(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """The rows of "Mode bits and owners" in docs/reference/access.md; the servers take what is taken here."""
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a = Door(w), await w.client()
        await a.look(ROOT)
        door.log_in(a, "alice")
        door.log_in(a, "bob", caller=BOB)
        await a.mkdir(f"{ROOT}/d")
        await a.write(f"{ROOT}/d/f", b"x")
        await a.drained()
        await give(w, a, f"{ROOT}/d", alice=ALL_RIGHTS, bob=WRITE, anyuser=READ_ONLY)
        file, directory = (await a.look(f"{ROOT}/d/f")).ino, (await a.look(f"{ROOT}/d")).ino
        for ino, mode in ((file, 0o444), (directory, 0o700)):
            assert (await a.venus.setattr(BOB, ino, Changes(mode=mode))).mode & 0o7777 == mode
            with refused(errno.EACCES):
                await a.venus.setattr(ZOE, ino, Changes(mode=0o777))
        await a.drained()
        assert await a.ls(f"{ROOT}/d") == ["f"], "the bits of a directory protect nothing"
        assert await a.read(f"{ROOT}/d/f", ZOE) == b"x"
        for caller in (ME, BOB):
            with refused(errno.EACCES):
                await a.venus.open(caller, file, os.O_WRONLY)
        await a.venus.setattr(ME, file, Changes(mode=0o200))
        for caller in (ME, BOB, ZOE):
            with refused(errno.EACCES):
                await a.venus.open(caller, file, os.O_RDONLY)
        with refused(errno.EPERM):
            await a.venus.setattr(ME, file, Changes(mode=0o4755))
        await a.drained()
        with refused(errno.EPERM):
            await a.venus.setattr(BOB, file, Changes(uid=door.ids["bob"]))
        unchanged = await a.venus.setattr(BOB, file, Changes(uid=door.ids["alice"], gid=4711))
        assert (unchanged.uid, a.pending) == (door.ids["alice"], 0), "no owner and no group was changed"
        assert (await a.venus.setattr(ME, file, Changes(uid=door.ids["bob"]))).uid == door.ids["bob"]
        await a.drained()
        assert (await (await w.client()).look(f"{ROOT}/d/f")).uid == door.ids["bob"]
