"""The short form of bench/pressure.py: a cache under ten times its size of files, on a fake network."""

from pathlib import Path

import trio

from bench.pressure import Pressure
from realmfs.cache.limits import Limits
from realmfs.venus.hoardlanguage import parse_wish
from tests.t5_venus.world import ME, REALM, world

SEED = 20261122
SIZES = (1000, 5000, 20_000, 60_000)


async def test_hoarded_files_stay_and_the_limit_holds(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    async with world(tmp_path) as here:
        writer = await here.client()
        files: dict[str, int] = {}
        for directory, count in (("keep", 10), ("rest", 300)):
            await writer.mkdir(f"{REALM}/{directory}")
            for number in range(count):
                path = f"{REALM}/{directory}/f{number}"
                files[path] = SIZES[number % len(SIZES)]
                await writer.write(path, bytes(files[path]))
        await writer.drained(600)
        client = await here.client(limits=Limits(sum(files.values()) // 10, 1000, 1000, 0))
        await client.venus.hoard.add(ME.uid, f"{REALM}/keep", parse_wish("900:d+"))
        assert (await client.venus.hoard.walk()).survey.ready
        kept = [path for path in files if "/keep/" in path]
        pressure = Pressure(client.venus, files, kept, SEED, ME)
        figures = await pressure.run(lambda sofar: sofar.reads >= 600)
        print(f"seed {SEED}: {figures}")
        assert figures.hits >= 0.8 * figures.lru_hits, str(figures)
