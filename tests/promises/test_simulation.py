"""Five servers, three clients, random partitions, crashes and restarts: in the end nothing is gone.

`REALMFS_SEED` chooses the seed, `REALMFS_OPERATIONS` the number of operations; `make soak` does 10 000.
The work is one operation at a time, of a random client; reintegration, resolution and catch-up go on
beside it. After the last one all is healed. A replica must then equal the others or be marked in conflict,
and every acknowledged change be at a server, in the log of a client, or replaced by a later one.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
import trio

from realmfs.vice.errors import CodaError
from tests.group import address
from tests.promises.simulated import MARK, Ledger
from tests.promises.site import ROOT, MortalClient, Site, site
from tests.seeds import first_seed
from tests.t5_venus.world import ME

Clock = trio.abc.Clock
SEED = first_seed()
FEW = int(os.environ.get("REALMFS_OPERATIONS") or 150)
MANY = 10_000


class Simulation:
    """One run."""

    def __init__(self, where: Site, clients: list[MortalClient], rng: random.Random) -> None:
        self.site, self.clients, self.rng = where, clients, rng
        self.ledger = Ledger()
        self.counts: Counter[str] = Counter()

    async def operate(self, number: int) -> None:
        """Do one thing at one client; a refusal is no promise."""
        client = self.clients[number]
        kinds = [self.create, self.write, self.write, self.read, self.read, self.mkdir]
        kind = self.rng.choice([*kinds, self.rename, self.remove])
        try:
            await kind(client, number)
            self.counts[kind.__name__] += 1
        except (CodaError, FileNotFoundError):
            self.counts["refused"] += 1

    async def directory(self, client: MortalClient) -> str:
        """Choose a directory, as this client sees them."""
        inside = sorted(name for name in await client.ls(ROOT) if name.startswith("d"))
        return f"{ROOT}/{self.rng.choice(inside)}" if inside and self.rng.random() < 0.7 else ROOT

    async def file(self, client: MortalClient) -> str:
        """Choose a file, as this client sees them."""
        above = await self.directory(client)
        files = sorted(name for name in await client.ls(above) if name.startswith("f"))
        if not files:
            raise FileNotFoundError(above)
        return f"{above}/{self.rng.choice(files)}"

    async def create(self, client: MortalClient, number: int) -> None:
        name = self.ledger.mark("f")
        parent = await client.look(await self.directory(client))
        opened, _ = await client.venus.create(ME, parent.ino, name, 0o644, os.O_WRONLY)
        self.ledger.done(name)
        await self._fill(client, opened.handle, b"")

    async def _fill(self, client: MortalClient, handle: int, over: bytes) -> None:
        """Write a version and close; whatever the close says, the version may be seen from now on."""
        mark = self.ledger.mark("v")
        self.ledger.before[mark] = over
        try:
            await client.venus.write(handle, 0, mark)
            await client.venus.flush(handle)
        finally:
            await client.venus.release(handle)
        self.ledger.done(mark, over)

    async def write(self, client: MortalClient, number: int) -> None:
        attr = await client.look(await self.file(client))
        opened = await client.venus.open(ME, attr.ino, os.O_RDWR)
        over = b""
        try:
            over = bytes(await client.venus.read(opened.handle, 0, MARK))
        except CodaError:
            await client.venus.release(opened.handle)
            raise
        self.ledger.opened(number, over)
        await self._fill(client, opened.handle, over)

    async def read(self, client: MortalClient, number: int) -> None:
        self.ledger.opened(number, await client.read(await self.file(client)))

    async def mkdir(self, client: MortalClient, number: int) -> None:
        name = self.ledger.mark("d")
        if len(await client.ls(ROOT)) < 60:
            await client.mkdir(f"{ROOT}/{name.decode()}")
            self.ledger.done(name)

    async def rename(self, client: MortalClient, number: int) -> None:
        old, name = await self.file(client), self.ledger.mark("f")
        await client.rename(old, f"{await self.directory(client)}/{name.decode()}")
        self.ledger.done(name, old.rpartition("/")[2].encode())

    async def remove(self, client: MortalClient, number: int) -> None:
        path = await self.file(client)
        contents = await client.read(path)
        self.ledger.opened(number, contents)
        await client.unlink(path)
        self.ledger.gone(contents)
        self.ledger.gone(path.rpartition("/")[2].encode())

    async def weather(self) -> None:
        """Cut between two random sides, mend, kill and start servers and clients, let time pass."""
        chance, servers = self.rng.random(), self.site.servers
        if chance < 0.03:
            hosts = [*map(address, servers.numbers), *(client.host for client in self.clients)]
            side = set(self.rng.sample(hosts, self.rng.randint(1, len(hosts) - 1)))
            for one in side:
                for other in set(hosts) - side:
                    self.site.net.partition(one, other)
            self.counts["partitions"] += 1
        elif chance < 0.08:
            self.site.net.heal()
        elif chance < 0.11:
            await self.site.down(self.rng.choice(servers.numbers))
            self.counts["server crashes"] += 1
        elif chance < 0.16:
            await self.site.start_all()
        elif chance < 0.18:
            await self.rng.choice(self.clients).restart()
            self.counts["client crashes"] += 1
        elif chance < 0.28:
            await trio.sleep(self.rng.choice([1, 10, 60]))

    async def settle(self) -> None:
        """Heal everything, look at everything, wait."""
        await self.site.all_up()
        for _ in range(3):
            for client in self.clients:
                client.realms.network_changed()
            await trio.sleep(300)
            for number in range(len(self.clients)):
                await self.look_at_all(number)
        await self.site.servers.settled(900)

    async def look_at_all(self, number: int) -> None:
        """Open everything that a client can open."""
        client = self.clients[number]
        for above in [ROOT, *(f"{ROOT}/{name}" for name in await client.ls(ROOT) if name[0] == "d")]:
            try:
                for name in await client.ls(above):
                    if name.startswith("f"):
                        await self._look_at(client, number, f"{above}/{name}")
            except (CodaError, FileNotFoundError):
                self.counts["unreadable at the end"] += 1

    async def _look_at(self, client: MortalClient, number: int, path: str) -> None:
        try:
            contents = await client.read(path)
        except (CodaError, FileNotFoundError):
            self.counts["unreadable at the end"] += 1
            return
        self.ledger.opened(number, contents)

    def everything(self) -> bytes:
        """Return all contents and names of all replicas and logs."""
        found = [repr(self.site.servers.contents(n)).encode() for n in self.site.servers.numbers]
        for client in self.clients:
            log, containers = client.cache.log, client.cache.containers
            for entry in (entry for volume in log.volumes() for entry in log.entries(volume)):
                self.counts["waiting in logs"] += 1
                found.append(entry.record)
                if entry.container is not None:
                    found.append(containers.path(entry.container).read_bytes())
        return b"\n".join(found)


async def simulate(directory: Path, seed: int, operations: int) -> None:
    """Run one simulation and check what is left."""
    print(f"REALMFS_SEED={seed} REALMFS_OPERATIONS={operations}")
    async with site(directory, count=5, seed=seed) as where:
        clients = [await where.client(own_servers=True) for _ in range(3)]
        run = Simulation(where, clients, random.Random(seed))
        for _ in range(operations):
            await run.operate(run.rng.randrange(len(clients)))
            await run.weather()
        await run.settle()
        missing = run.ledger.missing(run.everything())
        in_conflict = {node for n in where.servers.numbers for node in where.servers.conflicts(n)}
        print(dict(run.counts), "marked in conflict:", len(in_conflict), "at", round(trio.current_time()))
        assert not missing, f"acknowledged, and gone: {missing}"
        where.servers.assert_equal()


@pytest.mark.logs(".")
async def test_a_simulation(tmp_path: Path, autojump_clock: Clock) -> None:
    await simulate(tmp_path, SEED, FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.logs(".")
async def test_a_long_simulation(tmp_path: Path, autojump_clock: Clock) -> None:
    await simulate(tmp_path, SEED, MANY)
