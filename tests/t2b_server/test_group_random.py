"""Random changes at random servers of a group, with partitions, kills and resolutions in between.

At the end, with everybody back, all replicas are equal or marked, and nothing that was acknowledged is gone
that nobody has removed. The seed is the test's parameter.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from realmfs.rpc2.errors import RpcError
from realmfs.server.merge import Merged, merge
from realmfs.server.replica import LocalReplica
from realmfs.server.views import Node, ReplicaViews
from realmfs.vice.errors import CodaError
from realmfs.vice.log import AnyRecord
from realmfs.vice.types import Fid, ObjectType, StoreId
from tests.group import GroupClient, Servers, address, group
from tests.seeds import first_seed

EVERYBODY = (1, 2, 3)
NAMES = [b"a", b"b", b"c", b"d", b"e"]
FIRST = first_seed()
SEEDS = range(FIRST, FIRST + 3)
Clock = trio.abc.Clock


class Chaos:
    """A client that does what comes to its mind."""

    def __init__(self, servers: Servers, nursery: trio.Nursery, client: GroupClient, seed: int) -> None:
        self.servers = servers
        self.nursery = nursery
        self.client = client
        self.random = random.Random(seed)
        self._sizes = itertools.count(1)
        self.made: set[Node] = set()
        self.removed: set[Node] = set()
        self.named: dict[tuple[Node, StoreId], Any] = {}
        """The names in a directory by its store id, as whoever was looked at first has them."""

    async def step(self, *, outages: bool) -> None:
        """Do one thing."""
        choices: list[Any] = [self.make] * 6 + [self.remove] * 3 + [self.rename] * 3 + [self.write] * 3
        choices += [self.resolve] * 2 + [self.link]
        if outages:
            choices += [self.cut, self.kill, self.back, self.back]
        with contextlib.suppress(CodaError, RpcError, OSError):  # then it was not acknowledged
            await self.random.choice(choices)()
        self.check_names()
        await trio.sleep(self.random.random() * 3)

    def contents(self) -> bytes:
        """Return bytes of a length of their own: what a late server fetches for an older store is refused."""
        return self.random.randbytes(next(self._sizes))

    def at(self) -> list[int]:
        """Return some servers that run."""
        running = sorted(self.servers.running)
        return self.random.sample(running, self.random.randint(1, len(running)))

    def pick(self, number: int, *, directory: bool | None = None) -> tuple[Fid, bytes, Fid]:
        """Return a directory, and a name and child in it, as a server has them."""
        found = []
        for node, row in self.servers.contents(number).items():
            if node[0] & 1:
                for name, *child in row[-1]:
                    is_wanted = directory is None or directory == bool(child[0] & 1)
                    if name not in (b".", b"..") and is_wanted:
                        found.append((node, name, child))
        if not found:
            raise OSError("nothing there")
        node, name, child = self.random.choice(sorted(found))
        return self.fid(node), name, self.fid((child[0], child[1]))

    def fid(self, node: Node) -> Fid:
        """Return the fid of a node."""
        return Fid(self.client.volume, *node)

    def home(self, number: int) -> Fid:
        """Return some directory of a server."""
        nodes = sorted(node for node in self.servers.contents(number) if node[0] & 1)
        return self.fid(self.random.choice(nodes))

    async def update(self, records: list[AnyRecord], at: list[int]) -> list[int]:
        """Have it executed wherever it can be; the second phase gets lost now and then."""
        done, known = [], await self.client.vectors_at(at[0], records)
        for number in at:  # the same at each: a client knows one version, whoever has another one refuses
            try:
                await self.client.update(records, (number,), cop2=False, known=known)
                done.append(number)
            except (CodaError, RpcError):
                continue
        if not done:
            raise OSError("nobody did it")
        if self.random.random() < 0.8:
            with contextlib.suppress(CodaError, RpcError):
                await self.client.cop2(done)
        return done

    async def make(self) -> None:
        at, name = self.at(), self.random.choice(NAMES)
        parent = self.home(at[0])
        if self.random.random() < 0.3:
            fid = await self.client.fid_from(at[0], ObjectType.DIRECTORY)
            await self.update([self.client.mkdir(name, fid, parent)], at)
        else:
            fid = await self.client.fid_from(at[0])
            data = self.client.data[fid] = self.contents()
            await self.update([self.client.create(name, fid, parent), self.client.store(fid, len(data))], at)
        self.made.add(fid[1:])

    async def remove(self) -> None:
        at = self.at()
        parent, name, child = self.pick(at[0])
        record: AnyRecord = (
            self.client.rmdir(name, child, parent)
            if child.is_directory
            else self.client.remove(name, child, parent)
        )
        for number in at:  # a directory is removed by its name, whichever that is at a server
            for node, row in self.servers.contents(number).items():
                if node == parent[1:]:
                    self.removed |= {(vnode, unique) for what, vnode, unique in row[-1] if what == name}
        await self.update([record], at)

    async def rename(self) -> None:
        at = self.at()
        parent, name, child = self.pick(at[0])
        await self.update(
            [self.client.rename((parent, name), (self.home(at[0]), self.random.choice(NAMES)), child)], at
        )

    async def link(self) -> None:
        at = self.at()
        parent, _, child = self.pick(at[0], directory=False)
        await self.update([self.client.link(self.random.choice(NAMES), child, parent)], at)

    async def write(self) -> None:
        at = self.at()
        _, _, child = self.pick(at[0], directory=False)
        data = self.client.data[child] = self.contents()
        await self.update([self.client.store(child, len(data))], at)

    async def resolve(self) -> None:
        number = self.at()[0]
        await self.client.resolve(number, self.home(number))

    async def cut(self) -> None:
        one, two = self.random.sample(EVERYBODY, 2)
        self.servers.net.partition(address(one), address(two))

    async def kill(self) -> None:
        if len(self.servers.running) > 1:
            await self.servers.stop(self.at()[0])

    async def back(self) -> None:
        self.servers.net.heal()
        for number in EVERYBODY:
            if number not in self.servers.running:
                await self.servers.start(number, self.nursery)

    def check_names(self) -> None:
        """Directories of one store id have the same names, whoever has them, whenever."""
        for number in EVERYBODY:
            for node, row in self.servers.contents(number).items():
                if node[0] & 1 and row[8] != StoreId.zero():
                    assert self.named.setdefault((node, row[8]), row[-1]) == row[-1], f"{node} {row[8]}"

    def check(self) -> None:
        """Nothing acknowledged is gone, unless it was removed, or is in or below a conflict."""
        marked: set[Node] = set()
        present: dict[Node, Any] = {}
        for number in EVERYBODY:
            contents = self.servers.contents(number)
            marked |= {node for node, row in contents.items() if row[9] & 1}
            present |= contents
        for node in self.made - self.removed:
            assert node in present, f"{node} is gone"
            homes = [self.servers.contents(number) for number in EVERYBODY]
            if not marked:
                assert all(node in home for home in homes)


@pytest.mark.logs("a conflict|tied together|answers nonsense")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("outages", [False, True], ids=["up", "outages"])
async def test_nothing_acknowledged_is_lost(
    tmp_path: Path, autojump_clock: Clock, seed: int, outages: bool
) -> None:
    async with group(tmp_path) as (servers, nursery):
        chaos = Chaos(servers, nursery, await servers.client(nursery), seed)
        for number in range(60):
            await chaos.step(outages=outages)
            if number % 10 == 9:
                check_commutes(servers)
        await chaos.back()
        await trio.sleep(400)
        await servers.settled()
        servers.assert_equal()
        chaos.check()


def check_commutes(servers: Servers) -> None:
    """Whoever merges, and in whatever order it got the answers: the result is the same."""
    results = []
    for order in itertools.permutations(sorted(servers.running)):
        views, tied = [], {(1, 1)}
        for number in order:
            view = ReplicaViews(number - 1)
            replica = LocalReplica(servers.running[number].state, servers.volume(number))
            everything = tuple(sorted(servers.contents(number)))
            nodes = tuple(sorted({node for one in servers.running for node in servers.contents(one)}))
            directories = tuple(node for node in nodes if node[0] & 1)
            view.add(directories, nodes, replica.look(directories, nodes))
            assert everything
            views.append(view)
        merged = merge(views, tied, 0)
        results.append(
            (merged.directories, merged.conflicts, merged.dead) if isinstance(merged, Merged) else merged
        )
    assert all(result == results[0] for result in results)
