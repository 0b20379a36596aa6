"""Contents that are here already are not fetched; a SHA-1 that lies yields no wrong bytes."""

import hashlib
import os
from pathlib import Path

import trio

from realmfs.vice.calls import FetchPartial
from tests.t5_venus.world import ME, REALM, World, world

ROOT = f"/{REALM}"
CONTENTS = os.urandom(300_000)


async def _served(w: World, *names: str, contents: bytes = CONTENTS) -> None:
    a = await w.client()
    for name in names:
        await a.write(f"{ROOT}/{name}", contents)
    await a.drained(600)


async def test_a_file_of_the_lookaside_directory_is_not_fetched(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    aside = tmp_path / "aside" / "deep"
    aside.mkdir(parents=True)
    (aside / "other").write_bytes(os.urandom(len(CONTENTS)))
    (aside / "same").write_bytes(CONTENTS)
    async with world(tmp_path) as w:
        await _served(w, "file")
        b = await w.client(lookaside=tmp_path / "aside", data_ahead=0)
        ino = (await b.look(f"{ROOT}/file")).ino
        shown = await b.venus.getxattr(ME, ino, b"user.coda.sha1")
        assert shown.decode() == hashlib.sha1(CONTENTS).hexdigest()
        w.realm.counted()
        assert await b.read(f"{ROOT}/file") == CONTENTS
        assert not w.realm.counted()[FetchPartial.OPCODE]
        assert (b.venus.fetcher.lookaside.files, b.venus.fetcher.lookaside.bytes) == (1, len(CONTENTS))
        assert (aside / "same").read_bytes() == CONTENTS


async def test_the_same_contents_in_the_cache_are_not_fetched_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as w:
        await _served(w, "one")
        b = await w.client(data_ahead=0)
        await b.look(f"{ROOT}/one")
        assert await b.read(f"{ROOT}/one") == CONTENTS
        await w.clients[0].write(f"{ROOT}/two", CONTENTS)
        await w.clients[0].drained(600)
        await trio.sleep(1)
        await b.look(f"{ROOT}/two")
        w.realm.counted()
        assert await b.read(f"{ROOT}/two") == CONTENTS
        assert not w.realm.counted()[FetchPartial.OPCODE]
        await b.write(f"{ROOT}/one", b"changed")  # what is shared does not change with it
        assert await b.read(f"{ROOT}/two") == CONTENTS


async def test_a_stale_sha_is_not_believed_of_a_file_stored_twice(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """As the reference's servers do: the SHA-1 of the first contents stays after the second store."""
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "old").write_bytes(CONTENTS)
    newer = os.urandom(len(CONTENTS))
    async with world(tmp_path) as w:
        await _served(w, "file")
        await w.clients[0].write(f"{ROOT}/file", newer)
        await w.clients[0].drained(600)
        w.realm.store.database.execute(
            "UPDATE vnode SET sha = ? WHERE sha IS NOT NULL", (hashlib.sha1(CONTENTS).digest(),)
        )
        b = await w.client(lookaside=aside, data_ahead=0)
        assert await b.read(f"{ROOT}/file") == newer
        assert not b.venus.fetcher.lookaside.files


async def test_a_file_that_is_not_what_its_place_promises_is_fetched(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "liar").write_bytes(bytes(len(CONTENTS)))
    async with world(tmp_path) as w:
        await _served(w, "file")
        b = await w.client(lookaside=aside, data_ahead=0)
        assert await b.read(f"{ROOT}/file") == CONTENTS
        assert not b.venus.fetcher.lookaside.files


async def test_a_sha_of_before_our_own_change_is_forgotten(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "old").write_bytes(CONTENTS)
    newer = os.urandom(len(CONTENTS))
    async with world(tmp_path) as w:
        await _served(w, "file")
        b = await w.client(lookaside=aside, data_ahead=0)
        assert await b.read(f"{ROOT}/file") == CONTENTS
        ino = await b.write(f"{ROOT}/file", newer)
        assert not await b.venus.getxattr(ME, ino, b"user.coda.sha1")
        await b.drained(600)
        assert not await b.venus.getxattr(ME, ino, b"user.coda.sha1")
        node = b.venus.core.nodes.in_memory(ino)
        assert node is not None
        with b.cache.transaction():
            b.venus.core.nodes.drop_data(node)
        assert await b.read(f"{ROOT}/file") == newer
