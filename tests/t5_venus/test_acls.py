"""Access lists as they are read and set: by names, with the version read, seen by everybody at once."""

import errno
from pathlib import Path

import pytest
import trio

from realmfs.realms.group import Group
from realmfs.vice.acl import AccessList
from realmfs.vice.errors import CodaError, Code
from tests.t5_venus.test_logins import Door
from tests.t5_venus.test_rights import BOB, READ_ONLY, ROOT
from tests.t5_venus.world import ME, Client, World, refused, world

ACL = b"user.coda.acl"


async def set_list(client: Client, path: str, text: str) -> None:
    ino = (await client.look(path)).ino
    await client.venus.setxattr(ME, ino, ACL, text.encode())


async def get_list(client: Client, path: str) -> str:
    return (await client.venus.getxattr(ME, (await client.look(path)).ino, ACL)).decode()


async def prepared(w: World) -> tuple[Door, Client, Client]:
    """Alice has a directory of her own with a file in it; bob sits at another client."""
    door, a, b = Door(w), await w.client(), await w.client()
    for client in (a, b):
        await client.look(ROOT)
    door.log_in(a, "alice")
    door.log_in(b, "bob", caller=BOB)
    w.realm.store.protection.add_group("team")
    await a.mkdir(f"{ROOT}/d")
    await a.write(f"{ROOT}/d/f", b"hers")
    return door, a, b


async def test_a_list_is_set_at_once_and_holds_for_everybody(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        _, a, b = await prepared(w)
        await set_list(a, f"{ROOT}/d", "alice all\nbob rl\nteam rlidw\n-bob r")
        stands = AccessList.from_text(await get_list(a, f"{ROOT}/d"))
        assert stands.same_entries(AccessList((("alice", 127), ("bob", 9), ("team", 31)), (("bob", 1),)))
        assert not a.pending, "it had to be at the server first"
        assert await a.read(f"{ROOT}/d/f") == b"hers"
        assert (await b.look(f"{ROOT}/d/f", BOB)).size == 4
        with refused(errno.EACCES):
            await b.read(f"{ROOT}/d/f", BOB)
        await set_list(a, f"{ROOT}/d", "alice all\nbob rl")
        assert await b.read(f"{ROOT}/d/f", BOB) == b"hers"
        await a.write(f"{ROOT}/d/g", b"later")
        await a.drained()
        assert await b.read(f"{ROOT}/d/g", BOB) == b"later"
        await set_list(a, f"{ROOT}/d", "alice all")
        with refused(errno.EACCES):
            await b.look(f"{ROOT}/d/f", BOB)
        assert await get_list(a, f"{ROOT}/d") == "alice rlidwka"


async def test_what_servers_and_we_refuse(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        door, a, b = await prepared(w)
        await a.drained()
        for text, number in (
            ("nobody-here rl", errno.ENOENT),
            ("alice xyz", errno.EINVAL),
            ("alice", errno.EINVAL),
            ("alice all\n-bob r\n-team r", errno.EINVAL),
            ("\n".join(f"user{n} r" for n in range(21)), errno.E2BIG),
        ):
            with refused(number):
                await set_list(a, f"{ROOT}/d", text)
        with refused(errno.EACCES):
            await b.venus.setxattr(BOB, (await b.look(f"{ROOT}/d", BOB)).ino, ACL, b"bob all")
        for path in (f"{ROOT}/d/f", "/"):
            with refused(errno.EOPNOTSUPP):
                await set_list(a, path, "alice all")
        with refused(errno.EOPNOTSUPP):
            await a.venus.setxattr(ME, (await a.look(f"{ROOT}/d")).ino, b"user.coda.fid", b"1.1.1")
        door.log_in(a, None)
        with refused(errno.EACCES):
            await set_list(a, f"{ROOT}/d", "alice all")
        a.offline()
        await trio.sleep(60)
        with refused(errno.ETIMEDOUT):
            await set_list(a, f"{ROOT}/d", "alice all")


async def test_a_change_beside_another_client_s_is_made_anew(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        _, a, _ = await prepared(w)
        await a.drained()
        node = a.venus.core.nodes.by_number((await a.look(f"{ROOT}/d")).ino)
        send, tries = Group.set_acl, []

        async def beaten_once(self: Group, *args: object, **kwargs: object) -> object:
            tries.append(args)
            if len(tries) == 1:
                raise CodaError(Code.ERETRY)
            return await send(self, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr(Group, "set_acl", beaten_once)
        stands = await a.venus.acls.change(ME, node, lambda acl: acl.changed("bob", 9))
        assert len(tries) == 2
        assert ("bob", 9) in stands.positive


async def test_a_list_that_servers_mix_up_is_told(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        _, a, _ = await prepared(w)
        await a.drained()
        send = Group.set_acl

        async def mixed_up(self: Group, fid: object, text: bytes, *args: object) -> object:
            return await send(self, fid, text.replace(b"9", b"8"), *args)  # type: ignore[arg-type]  # as above

        monkeypatch.setattr(Group, "set_acl", mixed_up)
        with refused(errno.EIO):
            await set_list(a, f"{ROOT}/d", "alice all\nbob rl")


async def test_the_list_of_a_directory_made_here_is_read_once_the_servers_have_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path, anyuser=READ_ONLY) as w:
        _, a, _ = await prepared(w)
        await a.drained()
        await a.mkdir(f"{ROOT}/e")
        assert a.pending
        assert "alice rlidwka" in await get_list(a, f"{ROOT}/e")
        a.offline()
        await a.mkdir(f"{ROOT}/g")
        with refused(errno.ETIMEDOUT):
            await get_list(a, f"{ROOT}/g")
