"""What a group of servers cannot agree on: shown with each server's version, repaired, equal everywhere."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from realmfs.control import messages
from realmfs.control.conflicts import Conflicts
from realmfs.control.protocol import ControlError
from realmfs.venus.face import Caller
from realmfs.vice.errors import CodaError
from tests.group import address
from tests.t2b_server.test_group_client import HOME, GroupWorld, world
from tests.t5_venus.test_changes import tree
from tests.t5_venus.test_conflicts import strip
from tests.t5_venus.world import ME, Client, until

pytestmark = pytest.mark.logs("a conflict$")

Step = Callable[[Client], Awaitable[object]]
AUTHOR = Caller(ME.uid, ME.gid, 0, kernel=False)
S1, S2, S3 = (address(number) for number in (1, 2, 3))


def write(name: str, data: bytes) -> Step:
    return lambda c: c.write(f"{HOME}/{name}", data)


def mkdir(name: str) -> Step:
    return lambda c: c.mkdir(f"{HOME}/{name}")


def symlink(name: str, text: bytes) -> Step:
    return lambda c: c.symlink(f"{HOME}/{name}", text)


@asynccontextmanager
async def split(
    directory: Path, common: list[Step], here: list[Step], there: list[Step]
) -> AsyncIterator[tuple[GroupWorld, Client, Client]]:
    """Let two clients work on the two sides of a split: `a` with the first server, `b` with the others."""
    async with world(directory) as made:
        a, b = await made.client(), await made.client()
        for step in common:
            await step(a)
        await a.drained()
        assert await tree(a, HOME) == await tree(b, HOME)
        await trio.sleep(30)
        for one, other in ((a.host, S2), (a.host, S3), (b.host, S1), (S1, S2), (S1, S3)):
            made.net.partition(*sorted((one, other)))
        await trio.sleep(120)
        for step in here:
            await step(a)
        for step in there:
            await step(b)
        await a.drained(600)
        await b.drained(600)
        made.net.heal()
        for client in (a, b):
            client.realms.network_changed()
        await until(lambda: all(server.available for client in (a, b) for server in client.realms.servers()))
        await trio.sleep(120)
        yield made, a, b


async def look_at_all(client: Client, path: str = HOME) -> None:
    """Look at every name, twice: what diverged is resolved or found out."""
    for _ in range(2):
        try:
            for name in await client.ls(path):
                await client.look(f"{path}/{name}")
        except CodaError:
            await trio.sleep(5)


async def settle(client: Client, state: Path, params: messages.Settle) -> messages.Settled:
    method = Conflicts(client.venus, state).methods(AUTHOR)["conflicts.settle"]
    result = await method.run(params)
    assert isinstance(result, messages.Settled)
    return result


async def equal(made: GroupWorld) -> None:
    await trio.sleep(60)
    await made.servers.settled()
    made.servers.assert_equal()


FILE = ([write("f", b"common")], [write("f", b"through 1")], [write("f", b"through 2 and 3")])
PATH = f"{HOME}/f".lstrip("/")


async def test_what_one_side_alone_has_changed_is_no_conflict(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    here, there = [write("x", b"1")], [write("y", b"2"), write("f", b"changed")]
    async with split(tmp_path, FILE[0], here, there) as (made, a, b):
        await look_at_all(a)
        await until_quiet(a)
        wanted = {"f": b"changed", "x": b"1", "y": b"2"}
        for client in (a, b):
            assert strip(await tree(client, HOME)) == wanted
            assert client.venus.core.conflicts.all() == []
        await equal(made)


async def until_quiet(client: Client) -> None:
    await trio.sleep(60)
    await look_at_all(client)


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        (messages.Settle(path=PATH, keep="server", server=S1), {"f": b"through 1"}),
        (messages.Settle(path=PATH, keep="server", server=S3), {"f": b"through 2 and 3"}),
        (messages.Settle(path=PATH, keep="both"), None),
        (messages.Settle(path=PATH, contents="merged"), {"f": b"merged by hand"}),
    ],
)
async def test_a_file_written_on_both_sides(
    tmp_path: Path,
    autojump_clock: trio.abc.Clock,
    params: messages.Settle,
    wanted: dict[str, bytes] | None,
) -> None:
    if params.contents is not None:
        merged = tmp_path / params.contents
        merged.write_bytes(b"merged by hand")
        params = messages.Settle(path=PATH, contents=str(merged))
    async with split(tmp_path, *FILE) as (made, a, b):
        await look_at_all(a)
        (node,) = a.venus.core.conflicts.all()
        assert a.venus.core.conflicts.kind(node) == "server"
        for client in (a, b):
            await look_at_all(client)
            assert await client.ls(f"{HOME}/f") == [S1, S2, S3]
            assert await client.read(f"{HOME}/f/{S1}") == b"through 1"
            assert await client.read(f"{HOME}/f/{S2}") == b"through 2 and 3"
        with pytest.raises(ControlError, match="there is no local version"):
            await settle(a, tmp_path, messages.Settle(path=PATH, keep="local"))
        with pytest.raises(ControlError, match="name the server"):
            await settle(a, tmp_path, messages.Settle(path=PATH, keep="server"))
        with pytest.raises(ControlError, match="no version of nobody"):
            await settle(a, tmp_path, messages.Settle(path=PATH, keep="server", server="nobody"))
        result = await settle(a, tmp_path, params)
        assert result.kind == "no"
        await a.drained()
        for client in (a, b):
            found = strip(await tree(client, HOME))
            if wanted is None:
                assert isinstance(found, dict)
                assert set(found) == {"f", *result.names}
                assert len(result.names) == 1
                assert set(found.values()) == {b"through 1", b"through 2 and 3"}
            else:
                assert found == wanted
            assert client.venus.core.conflicts.all() == []
        await equal(made)


async def test_it_is_still_in_conflict_after_a_restart_and_settled_by_somebody_else(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with split(tmp_path, *FILE) as (made, a, b):
        await look_at_all(a)
        await look_at_all(b)
        await a.restart()
        assert [node.conflict for node in a.venus.core.conflicts.all()] == [True]
        await settle(b, tmp_path, messages.Settle(path=PATH, keep="server", server=S2))
        await trio.sleep(60)
        assert await a.read(f"{HOME}/f") == b"through 2 and 3"
        assert a.venus.core.conflicts.all() == []
        await equal(made)


SAME = (
    [mkdir("d"), write("d/old", b"old")],
    [write("d/same", b"1"), write("d/x", b"x"), mkdir("d/sub"), write("d/sub/deep", b"deep")],
    [write("d/same", b"23"), write("d/y", b"y"), symlink("d/link", b"y")],
)
D = f"{HOME}/d".lstrip("/")
LEFT = {"old": b"old", "same": b"1", "x": b"x", "sub": {"deep": b"deep"}}
RIGHT = {"old": b"old", "same": b"23", "y": b"y", "link": b"y"}


@pytest.mark.parametrize("keep", [S1, S3, "both", "fix"])
async def test_a_name_made_on_both_sides(tmp_path: Path, autojump_clock: trio.abc.Clock, keep: str) -> None:
    async with split(tmp_path, *SAME) as (made, a, b):
        await look_at_all(a)
        (node,) = a.venus.core.conflicts.all()
        assert node.is_directory
        assert strip(await tree(a, f"{HOME}/d/{S1}")) == LEFT
        assert strip(await tree(a, f"{HOME}/d/{S2}")) == RIGHT
        how = messages.Settle(path=D, keep="server", server=keep)
        if keep == "both":
            how = messages.Settle(path=D, keep="both")
        elif keep == "fix":
            fix = Conflicts(a.venus, tmp_path).methods(AUTHOR)["conflicts.fixfile"]
            text = (await fix.run(messages.FixFile(path=D, server=S2))).text
            assert text.count("replica ") == 3
            how = messages.Settle(path=D, fix=text)
        result = await settle(a, tmp_path, how)
        assert result.kind == "no"
        await trio.sleep(60)
        for client in (a, b):
            found = strip(await tree(client, f"{HOME}/d"))
            assert isinstance(found, dict)
            if keep == "both":
                (other,) = set(found) - {*LEFT, *RIGHT}
                assert {found.pop("same"), found.pop(other)} == {b"1", b"23"}
                assert found == {k: v for k, v in (LEFT | RIGHT).items() if k != "same"}
            else:
                assert found == (LEFT if keep == S1 else RIGHT)
            assert client.venus.core.conflicts.all() == []
        await equal(made)


async def test_what_was_done_before_a_crash_is_found_done_though_the_servers_have_merged_since(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """One server has removed the file and could not say so; with the others' changes the store id went."""
    async with world(tmp_path) as made:
        a, b = await made.client(own_servers=False), await made.client()
        await a.write(f"{HOME}/gone", b"")
        await a.drained()
        await trio.sleep(30)
        for one, other in ((a.host, S1), (a.host, S2), (b.host, S3), (S1, S3), (S2, S3)):
            made.net.partition(*sorted((one, other)))
        await trio.sleep(120)
        await b.mkdir(f"{HOME}/new")
        await b.drained()

        def is_done() -> bool:
            return b"gone" not in made.servers.names(3)

        made.net.tap = lambda datagram, sender, receiver: sender[0] != S3 or not is_done()
        await a.unlink(f"{HOME}/gone")
        await until(is_done)
        await a.kill()
        made.net.tap = None
        made.net.heal()
        await trio.sleep(120)
        await a.start()
        await a.drained(600)
        assert a.venus.core.conflicts.all() == []
        assert await a.ls(HOME) == ["new"]
        await equal(made)


@pytest.mark.parametrize("own_servers", [True, False])
async def test_what_rests_on_an_update_that_only_a_dead_server_has_waits_for_it(
    tmp_path: Path, autojump_clock: trio.abc.Clock, own_servers: bool
) -> None:
    """The others refuse it, but not because of anybody's change."""
    async with world(tmp_path) as made:
        a = await made.client(own_servers=own_servers)
        await a.write(f"{HOME}/f", b"before")
        await a.drained()
        await trio.sleep(30)
        for one, other in ((a.host, S2), (a.host, S3), (S1, S2), (S1, S3)):
            made.net.partition(*sorted((one, other)))
        await trio.sleep(60)
        await a.mkdir(f"{HOME}/d")
        await a.write(f"{HOME}/f", b"at the first")
        await a.drained()
        made.net.heal()
        made.net.partition(S1)
        a.realms.network_changed()
        await trio.sleep(60)
        await a.write(f"{HOME}/d/new", b"new")
        await a.write(f"{HOME}/f", b"at last")
        await trio.sleep(60)
        assert a.pending
        assert a.venus.core.conflicts.all() == []
        made.net.heal()
        a.realms.network_changed()
        await a.drained(600)
        assert a.venus.core.conflicts.all() == []
        assert strip(await tree(a, HOME)) == {"d": {"new": b"new"}, "f": b"at last"}
        await equal(made)


async def test_what_a_server_does_not_know_that_is_behind_is_not_gone(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Also where a change of ours waits in the directory, so that nobody asks for its version."""
    async with world(tmp_path) as made:
        a = await made.client()
        for one in (a.host, S1, S2):
            made.net.partition(*sorted((one, S3)))
        await trio.sleep(60)
        await a.write(f"{HOME}/f", b"there")
        await a.drained()
        assert await a.read(f"{HOME}/f") == b"there"
        made.net.partition(a.host)
        a.venus.reintegrator.policies.pause(True)
        await a.write(f"{HOME}/g", b"waits")
        made.net.heal()
        for one, other in ((a.host, S1), (a.host, S2), (S1, S3), (S2, S3)):
            made.net.partition(*sorted((one, other)))
        a.realms.network_changed()
        await trio.sleep(30)
        assert a.pending
        assert await a.read(f"{HOME}/f") == b"there"
