"""Large files: the first bytes and the last ones come before the middle, and what is replaced comes again."""

import os
from pathlib import Path

import pytest
import trio

from realmfs.cache.hoard import Expand
from realmfs.cache.limits import Limits
from realmfs.venus.hoardlanguage import Wish
from realmfs.venus.node import Node
from realmfs.vice.calls import FetchPartial
from tests.t5_venus.world import ME, REALM, Client, World, refused, world

ROOT = f"/{REALM}"
SIZE = 24 << 20
MIB = 1 << 20


async def _served(w: World, path: str, size: int = SIZE, settings: int = 50 * MIB) -> tuple[bytes, Client]:
    """Have a file on the server; return it and a client that has nothing of it."""
    a = await w.client()
    contents = os.urandom(size)
    await a.write(path, contents)
    await a.drained(600)
    return contents, await w.client(partial_size=settings)


async def _opened(client: Client, path: str, flags: int = os.O_RDONLY) -> tuple[int, Node]:
    opened = await client.venus.open(ME, (await client.look(path)).ino, flags)
    return opened.handle, client.venus.files.file(opened.handle).node


def _here(node: Node) -> int:
    assert node.content is not None
    return node.content.present.total


async def _xattr(client: Client, path: str, name: bytes) -> bytes:
    return await client.venus.getxattr(ME, (await client.look(path)).ino, b"user.coda." + name)


@pytest.mark.parametrize("partial_size", [8 * MIB, 50 * MIB], ids=["partial", "streamed"])
async def test_the_first_and_the_last_bytes_do_not_wait_for_the_middle(
    tmp_path: Path, autojump_clock: trio.abc.Clock, partial_size: int
) -> None:
    async with world(tmp_path) as w:
        contents, b = await _served(w, f"{ROOT}/big", settings=partial_size)
        handle, node = await _opened(b, f"{ROOT}/big")
        assert await b.venus.read(handle, 0, 4096) == contents[:4096]
        assert _here(node) < SIZE / 20, "a twentieth was fetched before the first byte"
        assert await b.venus.read(handle, SIZE - 4096, 4096) == contents[-4096:]
        assert _here(node) < SIZE / 8
        assert await b.venus.read(handle, SIZE // 2, 4096) == contents[SIZE // 2 : SIZE // 2 + 4096]
        assert _here(node) < SIZE / 4
        await trio.sleep(60)
        if partial_size < SIZE:
            assert _here(node) < SIZE, "what nobody wants came"
            assert await _xattr(b, f"{ROOT}/big", b"state") == b"partial"
            assert (await _xattr(b, f"{ROOT}/big", b"cached")).startswith(b"partial:")
        else:
            assert _here(node) == SIZE, "the gap is not filled"
            assert await _xattr(b, f"{ROOT}/big", b"state") == b"cached"
        await b.venus.release(handle)
        assert await b.read(f"{ROOT}/big") == contents


async def test_a_partial_file_survives_a_restart(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        contents, b = await _served(w, f"{ROOT}/big", settings=8 * MIB)
        handle, node = await _opened(b, f"{ROOT}/big")
        assert await b.venus.read(handle, SIZE - 10, 10) == contents[-10:]
        await trio.sleep(10)
        here = _here(node)
        await b.restart()
        handle, node = await _opened(b, f"{ROOT}/big")
        assert _here(node) == here
        w.realm.counted()  # a server is asked whether it knows FetchPartial by calling it
        assert await b.venus.read(handle, SIZE - 10, 10) == contents[-10:]
        assert _here(node) == here
        assert not w.realm.counted()[FetchPartial.OPCODE], "fetched what was there"
        await b.venus.release(handle)
        assert await b.read(f"{ROOT}/big") == contents


async def test_ranges_of_two_versions_are_never_mixed(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        _, b = await _served(w, f"{ROOT}/big", settings=8 * MIB)
        a = w.clients[0]
        handle, _ = await _opened(b, f"{ROOT}/big")
        await b.venus.read(handle, SIZE - 10, 10)
        await b.venus.release(handle)
        newer = os.urandom(SIZE - 5)
        await a.write(f"{ROOT}/big", newer)
        await a.drained(600)
        await trio.sleep(1)
        handle, _ = await _opened(b, f"{ROOT}/big")
        for at in (SIZE - 100, 0, SIZE // 2):
            assert await b.venus.read(handle, at, 95) == newer[at : at + 95]
        await b.venus.release(handle)
        await b.restart()
        assert await b.read(f"{ROOT}/big") == newer


async def test_a_file_larger_than_the_cache_is_read_all_the_same(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        contents, _ = await _served(w, f"{ROOT}/big")
        limits = Limits(bytes=8 * MIB, objects=2000, log_records=2000, reserve=0)
        c = await w.client(limits=limits)
        handle, node = await _opened(c, f"{ROOT}/big")
        for at in (*range(0, SIZE, MIB), 5, SIZE - MIB, SIZE // 2):
            assert await c.venus.read(handle, at, MIB) == contents[at : at + MIB]
            assert _here(node) <= limits.bytes
        await c.venus.release(handle)
        await trio.sleep(10)
        assert c.cache.containers.used <= limits.bytes
        assert await c.read(f"{ROOT}/big") == contents
        assert c.cache.containers.used <= limits.bytes


async def test_writing_completes_a_partial_file_first(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        contents, b = await _served(w, f"{ROOT}/big", settings=8 * MIB)
        a = w.clients[0]
        handle, _ = await _opened(b, f"{ROOT}/big", os.O_RDWR)
        await b.venus.write(handle, 10 * MIB, b"mine")
        await b.venus.flush(handle)
        await b.venus.release(handle)
        await b.drained(600)
        expected = contents[: 10 * MIB] + b"mine" + contents[10 * MIB + 4 :]
        assert await b.read(f"{ROOT}/big") == expected
        await trio.sleep(1)
        assert await a.read(f"{ROOT}/big") == expected


async def test_what_is_missing_of_a_partial_file_is_refused_without_servers(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        contents, b = await _served(w, f"{ROOT}/big", settings=8 * MIB)
        handle, _ = await _opened(b, f"{ROOT}/big")
        await trio.sleep(5)  # of a first run that breaks nothing is kept
        b.offline()
        with refused(110):
            await b.venus.read(handle, SIZE - 10, 10)
        assert await b.venus.read(handle, 0, 10) == contents[:10]
        b.online()
        await trio.sleep(20)
        assert await b.venus.read(handle, SIZE - 10, 10) == contents[-10:]
        await b.venus.release(handle)


async def test_a_hoarded_large_file_becomes_whole(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as w:
        contents, b = await _served(w, f"{ROOT}/big", settings=8 * MIB)
        handle, _ = await _opened(b, f"{ROOT}/big")
        assert await b.venus.read(handle, SIZE - 10, 10) == contents[-10:]
        await b.venus.release(handle)
        await b.venus.hoard.add(ME.uid, f"{REALM}/big", Wish(600, Expand.NONE))
        outcome = await b.venus.hoard.walk()
        assert outcome.survey.ready, outcome.survey.lacks
        assert await _xattr(b, f"{ROOT}/big", b"cached") == b"full"
        b.offline()
        assert await b.read(f"{ROOT}/big") == contents
