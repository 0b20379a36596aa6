"""Room for more objects than the cache may hold, and work that nobody waits for."""

from pathlib import Path

import pytest
import trio

from realmfs.cache.errors import CacheFull
from realmfs.cache.limits import Limits
from realmfs.venus.errand import errand
from tests.t5_venus.world import REALM, world

FEW = Limits(bytes=1 << 20, objects=60, log_records=1000, reserve=0)


async def test_a_tree_larger_than_the_cache_can_be_listed(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        writer = await here.client()
        for number in range(150):
            await writer.write(f"{REALM}/f{number}", b"%d" % number)
        await writer.drained()
        reader = await here.client(limits=FEW)
        for number in range(150):
            assert (await reader.look(f"{REALM}/f{number}")).size == len(str(number))
        assert reader.cache.objects.count <= FEW.objects


async def test_an_errand_is_no_use_and_replaces_nothing_more_important(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    async with world(tmp_path) as here:
        client = await here.client(limits=Limits(100_000, 1000, 1000, 0))
        await client.write(f"{REALM}/f", bytes(60_000))
        await client.drained()
        ino = (await client.look(f"{REALM}/f")).ino
        used = client.cache.objects.tick
        with errand(100):
            assert await client.read(f"{REALM}/f") == bytes(60_000)
            assert client.cache.objects.tick == used
            with pytest.raises(CacheFull):
                await client.venus.core.room(size=50_000)
        await client.venus.core.room(size=50_000)
        row = client.cache.objects.load(ino)
        assert row is not None
        assert row.container is None
