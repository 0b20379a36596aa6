"""A cache under a working set ten times its size: it holds its limit, and what is hoarded stays.

    python -m bench.pressure [--minutes 10] [--cache 50] [--data 500] [--seed 1]

An embedded realm is served by a process of its own; the cache manager runs in this one. Files of mixed sizes
are read whole, in random order with a taste for some (Zipf). A tenth of the cache is hoarded with priority
900. After every read it is checked that the cache is within its limit, and that every hoarded file is there;
an error of any read ends the run. The hit rate is printed beside that of a plain LRU cache of the same size
over the same reads.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from realmfs.cache.cache import Cache
from realmfs.cache.limits import Limits
from realmfs.control.walk import Walk
from realmfs.realms.realms import Realms
from realmfs.realms.settings import RealmSettings
from realmfs.rpc2.endpoint import Endpoint, udp_transport
from realmfs.venus.face import Caller
from realmfs.venus.hoardlanguage import parse_wish
from realmfs.venus.settings import VenusSettings
from realmfs.venus.venus import Venus

REALM = "pressure.test"
PRIORITY = "900:d+"
TASTE = 0.9
"""How unequal the files are: the n-th in popularity is read in proportion to n ** -TASTE."""
CHUNK = 128 << 10


class Lru:
    """A cache that knows only recency."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: OrderedDict[str, int] = OrderedDict()
        self._used = 0

    def read(self, path: str, size: int) -> bool:
        """Read a file; tell whether it was there."""
        if path in self._held:
            self._held.move_to_end(path)
            return True
        self._held[path] = size
        self._used += size
        while self._used > self._capacity:
            self._used -= self._held.popitem(last=False)[1]
        return False


@dataclass(slots=True)
class Figures:
    """What came of a run; times in seconds, sizes in bytes."""

    reads: int = 0
    hits: int = 0
    lru_hits: int = 0
    fullest: int = 0
    slowest: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.reads} reads in {self.seconds:.0f} s, hit rate {100 * self.hits / self.reads:.1f} %"
            f" (LRU: {100 * self.lru_hits / self.reads:.1f} %), at most {self.fullest / 1e6:.1f} MB held,"
            f" slowest read {1000 * self.slowest:.0f} ms"
        )


class Pressure:
    """Random reads of `files` (path: size) through a cache manager; `hoarded` of them must stay."""

    def __init__(
        self, venus: Venus, files: Mapping[str, int], hoarded: Sequence[str], seed: int, caller: Caller
    ) -> None:
        self._venus = venus
        self._files = files
        self._caller = caller
        self._random = random.Random(seed)
        self._order = sorted(files)
        self._random.shuffle(self._order)
        self._weights = [(place + 1) ** -TASTE for place in range(len(self._order))]
        self._lru = Lru(venus.cache.limits.bytes)
        self._hoarded = hoarded
        self._numbers: list[int] = []
        self.figures = Figures()

    async def run(self, until: Callable[[Figures], bool]) -> Figures:
        """Read until told. Raises what a read raises, and AssertionError if a rule breaks."""
        self._numbers = [await self._number(path) for path in self._hoarded]
        start = trio.current_time()
        while not until(self.figures):
            (path,) = self._random.choices(self._order, self._weights)
            await self._read(path)
            self._check()
        self.figures.seconds = trio.current_time() - start
        return self.figures

    async def _number(self, path: str) -> int:
        walk = Walk(self._venus, self._caller)
        try:
            return (await walk.to(path)).ino
        finally:
            walk.give_back()

    async def _read(self, path: str) -> None:
        venus, figures = self._venus, self.figures
        start = trio.current_time()
        number = await self._number(path)
        figures.hits += venus.hoard.binder.has_data(venus.core.nodes.by_number(number))
        opened = await venus.open(self._caller, number, os.O_RDONLY)
        size = 0
        while data := await venus.read(opened.handle, size, CHUNK):
            size += len(data)
        await venus.release(opened.handle)
        assert size == self._files[path], f"{path}: {size} bytes instead of {self._files[path]}"
        figures.reads += 1
        figures.lru_hits += self._lru.read(path, size)
        figures.slowest = max(figures.slowest, trio.current_time() - start)

    def _check(self) -> None:
        cache = self._venus.cache
        self.figures.fullest = max(self.figures.fullest, cache.containers.used)
        over = cache.containers.used - cache.limits.bytes
        assert over <= 0, f"the cache is {over} bytes over its limit"
        assert cache.objects.count <= cache.limits.objects, "the cache holds too many objects"
        for number in self._numbers:
            row = cache.objects.load(number)
            assert row is not None, "a hoarded object was dropped"
            assert row.container is not None, "hoarded contents were dropped"
            assert cache.containers.is_whole(row.container), "a part of hoarded contents was dropped"


def make(top: Path, total: int, hoarded: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Write files of `total` bytes into `top`, `hoarded` of them below `keep`; returns sizes and those."""
    source, sizes, kept = random.Random(seed), dict[str, int](), list[str]()
    for directory, wanted in (("keep", hoarded), ("rest", total - hoarded)):
        written = number = 0
        while written < wanted:
            name = f"{directory}/d{number // 50:03d}/f{number:05d}"
            size = min(source.choice((4_000, 30_000, 120_000, 600_000)), max(wanted // 8, 1000))
            file = top / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source.randbytes(size))
            sizes[f"{REALM}/{name}"] = size
            if directory == "keep":
                kept.append(f"{REALM}/{name}")
            written, number = written + size, number + 1
    return sizes, kept


def _serve(room: Path, address: str) -> subprocess.Popen[bytes]:
    """Start an embedded realm on the tree in `room`; returns when it serves."""
    argv = ["-m", "realmfs", "serve", "--realm", REALM, "--data", str(room / "data"), "--address", address]
    with (room / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, *argv, "--import", str(room / "tree")], stdout=log)
    while "serving" not in (room / "log").read_text():
        if server.poll() is not None:
            raise SystemExit("the server has not started")
        time.sleep(0.1)
    (room / "realms").write_text(f"{REALM} {address}\n")
    return server


async def _measure(
    options: argparse.Namespace, room: Path, limits: Limits, files: Mapping[str, int], kept: Sequence[str]
) -> Figures:
    with Cache(room / "cache", limits) as cache:
        venus = Venus(cache, VenusSettings())
        endpoint = Endpoint(await udp_transport())
        realms = Realms(endpoint, RealmSettings(realms_file=room / "realms"), venus, room / "state")
        venus.attach(realms)
        async with trio.open_nursery() as nursery:
            for ring in (endpoint, realms, venus):
                await nursery.start(ring.run)
            figures = await _press(venus, options, files, kept)
            nursery.cancel_scope.cancel()
    return figures


async def _press(
    venus: Venus, options: argparse.Namespace, files: Mapping[str, int], kept: Sequence[str]
) -> Figures:
    caller = Caller(os.getuid(), os.getgid(), 0, kernel=False)
    await venus.hoard.add(caller.uid, f"{REALM}/keep", parse_wish(PRIORITY))
    assert (await venus.hoard.walk()).survey.ready, "the hoarded files have not come"
    end = trio.current_time() + 60 * options.minutes
    pressure = Pressure(venus, files, kept, options.seed, caller)
    return await pressure.run(lambda figures: trio.current_time() >= end)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pressure", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cache", type=int, default=50, metavar="MB")
    parser.add_argument("--data", type=int, default=500, metavar="MB")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    address = f"127.{os.getpid() >> 8 & 127 | 1}.{os.getpid() & 127 | 1}.11:24320"
    with tempfile.TemporaryDirectory(prefix="realmfs-pressure-") as name:
        print(f"{options.cache} MB of cache, {options.data} MB of files, seed {options.seed}", flush=True)
        room, limits = Path(name), Limits(options.cache * 1_000_000, 20_000, 1000, 0)
        files, kept = make(room / "tree", options.data * 1_000_000, limits.bytes // 10, options.seed)
        server = _serve(room, address)
        try:
            print(trio.run(_measure, options, room, limits, files, kept))
        finally:
            server.terminate()
            server.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
