"""vice.md §6.4, reintegration.md §2.7: after a log has been sent, all servers have the same versions."""

import random
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.realms.core import Core as GroupCore
from realmfs.realms.group import Group
from realmfs.realms.types import Reintegrated
from realmfs.server.store import ServerStore
from realmfs.server.volumes import ROOT_VOLUME
from realmfs.venus.commit import Committer
from realmfs.venus.volume import VolumeState
from realmfs.vice.calls import Resolve
from realmfs.vice.directory import Directory
from realmfs.vice.types import Fid, StoreId
from tests.promises.site import ROOT, MortalClient, Site, site
from tests.quirks import Quirk, QuirkyServer
from tests.seeds import first_seed

DIRECTORIES = 4
SOON = 1.0
"""Seconds; sooner than our own servers catch up with one another."""


def versions(store: ServerStore) -> dict[object, object]:
    volume = store.volumes.named(ROOT_VOLUME)
    assert volume is not None
    return {vnode.fid[1:]: vnode.vv for vnode in store.vnodes.all(volume.id)}


async def assert_equal(where: Site, client: MortalClient) -> None:
    """Once the log is empty: nothing is left to be resolved, for others nor for ourselves."""
    await client.drained()
    await trio.sleep(SOON)
    first, *others = (versions(store) for store in where.servers.stores.values())
    assert not [vv for vv in first.values() if vv.cop2_pending]  # type: ignore[attr-defined]
    for other in others:
        assert other == first
    for server in where.servers.running.values():
        assert isinstance(server, QuirkyServer)
        assert not server.calls[Resolve.OPCODE]


async def repository(client: MortalClient, top: str, rng: random.Random) -> None:
    """What git does: many directories, each file made under another name first."""
    for directory in range(DIRECTORIES):
        await client.mkdir(f"{top}/{directory}")
        for number in range(rng.randrange(1, 4)):
            path = f"{top}/{directory}/f{number}"
            await client.write(f"{path}.new", rng.randbytes(rng.randrange(1, 500)))
            await client.change(f"{path}.new", mode=0o600)
            await client.rename(f"{path}.new", path)


async def edit(client: MortalClient, top: str, rng: random.Random) -> None:
    """Change files where they are, move some, remove some, make some."""
    for directory in range(DIRECTORIES):
        for name in await client.ls(f"{top}/{directory}"):
            path, what = f"{top}/{directory}/{name}", rng.randrange(6)
            if what < 2:
                await client.write(path, rng.randbytes(rng.randrange(1, 500)))
            elif what == 2:
                await client.change(path, mtime_ns=rng.randrange(1, 10**9) * 10**9)
            elif what == 3:
                await client.rename(path, f"{top}/{rng.randrange(DIRECTORIES)}/{rng.randrange(10**6)}")
            elif what == 4:
                await client.unlink(path)
            else:
                await client.write(f"{path}.more", b"more")


@pytest.mark.parametrize(("habit", "records"), [(True, 4), (True, 100), (False, 10)])
async def test_all_servers_count_the_same(
    tmp_path: Path, autojump_clock: trio.abc.Clock, habit: bool, records: int
) -> None:
    rng = random.Random(first_seed())
    quirks = {Quirk.PARENT_RAISED} if habit else set()
    async with site(tmp_path, count=3, quirks=quirks) as where:
        client = await where.client(own_servers=not habit, batch_records=records)
        top = f"{ROOT}/git"
        await client.mkdir(top)
        await repository(client, top, rng)
        await assert_equal(where, client)
        for _ in range(2):
            client.offline()
            await edit(client, top, rng)
            client.online()
            await assert_equal(where, client)
        assert bool(where.servers.quirks.shown[Quirk.PARENT_RAISED]) == habit


async def test_a_directory_whose_files_alone_change_need_not_be_fetched_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """What the servers count without a change, we count as well."""
    async with site(tmp_path, count=3, quirks={Quirk.PARENT_RAISED}) as where:
        client = await where.client(own_servers=False)
        await client.mkdir(f"{ROOT}/d")
        await client.write(f"{ROOT}/d/f", b"old")
        await client.drained()
        for _ in range(3):
            await client.write(f"{ROOT}/d/f", b"new")
            await assert_equal(where, client)
        node = client.venus.core.nodes.in_memory((await client.look(f"{ROOT}/d")).ino)
        assert node is not None
        assert node.status is not None
        (first, *_) = where.servers.stores.values()
        assert node.status.vv == versions(first)[node.fid[1:]]


async def test_who_shares_a_directory_changes_the_version_that_the_servers_have(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a reference server gives the directory an id of its own, and it must be resolved (certify.py)."""
    monkeypatch.setattr(GroupCore, "all_ours", False)
    stale: list[Fid] = []
    reintegrate = Group.reintegrate

    async def noting(self: Group, *arguments: Any, **options: Any) -> Reintegrated:
        outcome = await reintegrate(self, *arguments, **options)
        stale.extend(outcome.stale_dirs)
        return outcome

    async with site(tmp_path, count=3, quirks={Quirk.PARENT_RAISED}) as where:
        ann, bob = [await where.client(own_servers=False) for _ in range(2)]
        top = f"{ROOT}/both"
        await ann.mkdir(top)
        await ann.drained()
        await bob.ls(top)
        await bob.write(f"{top}/first", b"so that it is known to be shared")
        await bob.drained()
        await ann.ls(top)
        monkeypatch.setattr(Group, "reintegrate", noting)
        for number in range(5):
            for client, name in ((ann, "a"), (bob, "b")):
                client.offline()
                await client.write(f"{top}/{name}{number}", b"contents")
                if number > 1:
                    await client.rename(f"{top}/{name}{number - 1}", f"{top}/{name}v{number - 1}")
            for client in (ann, bob):
                client.online()
                await client.drained()
        assert not stale
        assert await ann.ls(top) == await bob.ls(top)
        assert len(await ann.ls(top)) == 11
        for client in (ann, bob):
            await assert_equal(where, client)


def held(client: MortalClient, ino: int) -> tuple[StoreId, list[bytes]]:
    """Return which version of a directory a client believes to have, and the names that it has."""
    node, image = client.venus.core.nodes.in_memory(ino), client.cache.directories.load(ino)
    assert node is not None
    assert node.status is not None
    assert image is not None
    return node.status.vv.store_id, sorted(set(Directory.parse(image).names()) - {b".", b".."})


async def test_names_upon_a_version_that_was_not_known_are_of_no_version(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the one before, nor of the one that the servers have now: others' names are in that."""
    monkeypatch.setattr(GroupCore, "all_ours", False)
    found: list[tuple[StoreId, list[bytes]]] = []
    commit = Committer.commit

    def noting(self: Committer, volume: VolumeState, *arguments: Any) -> None:
        commit(self, volume, *arguments)
        if volume in ann.venus.core.volumes:
            found.append(held(ann, ino))

    async with site(tmp_path, count=3) as where:
        ann, bob = [await where.client() for _ in range(2)]
        top = f"{ROOT}/both"
        await ann.mkdir(top)
        await ann.drained()
        ino = (await ann.look(top)).ino
        await bob.write(f"{top}/first", b"so that it is known to be shared")
        await bob.drained()
        await ann.ls(top)
        before, names = held(ann, ino)
        assert names == [b"first"]
        ann.offline()
        await ann.write(f"{top}/ann", b"")
        await bob.write(f"{top}/bob", b"")
        await bob.drained()
        monkeypatch.setattr(Committer, "commit", noting)
        ann.online()
        await ann.drained()
        ((version, names),) = found
        assert names == [b"ann", b"first"]
        assert await ann.ls(top) == ["ann", "bob", "first"]
        after, _ = held(ann, ino)
        assert len({before, version, after}) == 3
