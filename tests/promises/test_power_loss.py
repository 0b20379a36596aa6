"""Power loss: of what was not synced any part may be missing (promise 1).

The syncs of the cache are recorded: what each file held when it was last synced, and which names a directory
had. After random work disks are made as power loss may leave them. The write-ahead log ends anywhere behind
its synced part, perhaps in a torn page; a container that was not synced since is cut, zeroed, old or gone.

On each of them the next start must find a state that was acknowledged at or after the last sync. Where the
contents of a file are older than its record, or missing, the damage is named.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from realmfs.cache import disk
from tests.promises.crashes import CrashPoints
from tests.promises.site import ROOT, MortalClient, Site, site
from tests.promises.test_soak import FIRST, Run
from tests.t5_venus.test_changes import tree

RUNS = 60 if os.environ.get("REALMFS_SLOW") else 12
STEPS = 50
IMAGES = 6
LOG = "cache.db-wal"


class Disk:
    """Knows what has reached the disk; `fail` makes a copy with less on it."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.synced: dict[Path, bytes] = {}
        self.names: dict[Path, set[str]] = {}
        self.log_syncs = 0
        self._real = disk.sync_descriptor, disk.sync_directory
        patch.setattr(disk, "sync_descriptor", self._sync)
        patch.setattr(disk, "sync_directory", self._sync_names)

    def _sync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if self.top in path.parents and path.exists():
            self.synced[path.relative_to(self.top)] = path.read_bytes()
            self.log_syncs += path.name == LOG

    def _sync_names(self, directory: Path) -> None:
        if self.top in directory.parents:
            self.names[directory.relative_to(self.top)] = set(os.listdir(directory))

    def fail(self, target: Path, rng: random.Random) -> None:
        """Make a disk as power loss might leave it."""
        shutil.copytree(self.top, target, ignore=shutil.ignore_patterns("*-shm"))
        for path in sorted(target.rglob("*")):
            place = path.relative_to(target)
            if not path.is_file() or place.parts[0] != "cache":
                continue
            now, synced = path.read_bytes(), self.synced.get(place, b"")
            if path.name == LOG:
                assert now.startswith(synced[:4096]), "it was not begun anew"
                cut = rng.randint(len(synced), len(now))
                path.write_bytes(now[:cut] + rng.choice([b"", rng.randbytes(min(len(now) - cut, 700))]))
            elif "containers" in place.parts and now != synced:
                self._damage(path, now, synced, rng, named=path.name in self.names.get(place.parent, ()))

    def _damage(self, path: Path, now: bytes, synced: bytes, rng: random.Random, *, named: bool) -> None:
        ways = [now, synced, now[: rng.randint(0, len(now))], bytes(len(now))]
        way = rng.randrange(len(ways) + (not named))
        if way < len(ways):
            path.write_bytes(ways[way])
        else:
            path.unlink()


class Worker(Run):
    """Works without servers and remembers every acknowledged state."""

    def __init__(self, where: Site, client: MortalClient, points: CrashPoints, rng: random.Random) -> None:
        super().__init__(where, client, points, rng)
        self.states: list[dict[str, Any]] = [{}]
        self.safe = 0
        """The first of the states that may be found after power loss."""

    async def run_through(self, machine: Disk) -> None:
        """Do random things; note what is safe after each sync."""
        for _ in range(STEPS):
            syncs = machine.log_syncs
            before = len(self.states)
            await self.work()
            if self.rng.random() < 0.1:
                await trio.sleep(self.rng.choice([1, 6]))
            if machine.log_syncs > syncs:
                # What was acknowledged before the sync is safe; what came with it perhaps as well.
                self.safe = before - 1
            if self.rng.random() < 0.05:
                await self.client.cache.sync()
                self.safe = len(self.states) - 1

    async def step(self, call: Any, apply: Any = None) -> Any:
        """Make one call and remember the state that it leaves."""
        result = await super().step(call, apply)
        if apply is not None:
            self.states.append(self.model.looks())
        return result


def shape(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree without contents."""
    return {
        name: shape(node) if isinstance(node, dict) else (node[1:] if isinstance(node, tuple) else node)
        for name, node in tree.items()
    }


def contents(tree: dict[str, Any], top: str = "") -> dict[str, bytes]:
    """Return the contents of all files."""
    found: dict[str, bytes] = {}
    for name, node in tree.items():
        if isinstance(node, dict):
            found |= contents(node, f"{top}{name}/")
        elif isinstance(node, tuple):
            found[top + name] = node[0]
    return found


def explain(seen: dict[str, Any], worker: Worker, lost: set[bytes]) -> str:
    """Say why this can't be after power loss; nothing if it can."""
    why = ["no acknowledged state since the last sync has these names"]
    known = {data for state in worker.states[worker.safe :] for data in contents(state).values()}
    for state in worker.states[worker.safe :]:
        if shape(state) != shape(seen):
            continue
        ours, theirs = contents(state), contents(seen)
        wrong = [path for path in ours if ours[path] != theirs[path]]
        unnamed = [path for path in wrong if os.fsencode(path.split("/")[-1]) not in lost]
        invented = [path for path in wrong if theirs[path] and theirs[path] not in known]
        if not unnamed and not invented:
            return ""
        why.append(f"other contents, and not named: {unnamed}; never acknowledged: {invented}")
    return "; ".join(why)


async def lose_power(seed: int, directory: Path, patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Do one run; return how many images were tried, and how many damages were named."""
    rng = random.Random(seed)
    boots = iter(range(1000))
    patch.setattr(disk, "boot_id", lambda: f"boot {next(boots)}")
    points = CrashPoints(patch)
    async with site(directory, seed=seed) as where:
        client = await where.client(points)
        assert await tree(client, ROOT) == {}
        machine = Disk(client.directory, patch)
        await client.cache.sync()
        client.offline()
        worker = Worker(where, client, points, rng)
        await worker.run_through(machine)
        named = 0
        images = [directory / f"image{number}" for number in range(IMAGES)]
        for image in images:
            machine.fail(image, rng)
        await client.kill()
        for image in images:
            client.directory = image
            await client.start()
            client.offline()
            lost = {copy.name for copy in client.cache.findings.lost_stores}
            named += len(lost)
            assert client.cache.damage is None
            assert client.cache.findings.power_lost
            seen = await tree(client, ROOT)
            why = explain(seen, worker, lost)
            assert not why, (why, worker.journal[-20:])
            await client.write(f"{ROOT}/next", b"life")
            await client.kill()
        return len(images), named


@pytest.mark.timeout(600)
@pytest.mark.logs(".")
def test_what_was_synced_survives_power_loss(tmp_path: Path) -> None:
    tried = named = 0
    for seed in range(FIRST, FIRST + RUNS):
        directory = tmp_path / str(seed)
        directory.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            clock = trio.testing.MockClock(autojump_threshold=0)
            try:
                images, damages = trio.run(lose_power, seed, directory, patch, clock=clock)
            except BaseException:
                print(f"REALMFS_SEED={seed}")
                raise
        tried, named = tried + images, named + damages
        shutil.rmtree(directory)
    print(f"REALMFS_SEED={FIRST}: {tried} disks after power loss; {named} damaged stores, all named")
    assert tried == RUNS * IMAGES
