"""Random work, random disconnection, crashes at injected points: nothing lost, nothing twice, nothing hung.

One run is one client on one or three servers, with or without the habits of reference servers (quirks.py).
What was acknowledged is kept in a model beside it (model.py). At the end all comes together: the log must
drain, a second client must see the model, and no server may have executed a record twice.

`REALMFS_SEED` chooses the first seed, `REALMFS_SOAK` how many runs there are; `make soak` does 1000.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from realmfs.cache.log import State
from realmfs.server.catchup import PENDING_FOR, TICK
from realmfs.venus.face import Changes
from realmfs.vice.errors import CodaError, Code
from tests.promises.crashes import KINDS, CrashPoints
from tests.promises.model import File, Link, Model, Tree
from tests.promises.site import ROOT, MortalClient, Site, site
from tests.quirks import Quirk
from tests.repeatable import repeatable
from tests.seeds import first_seed
from tests.t5_venus.test_changes import tree
from tests.t5_venus.world import ME

NAMES = ("a", "b", "c", "a name of 18 byte")
STEPS = 60
RUNS = int(os.environ.get("REALMFS_SOAK") or 80)
PARTS = 8
FIRST = first_seed()
EXCUSES = frozenset({Code.ETIMEDOUT, Code.EAGAIN, Code.EWOULDBLOCK, Code.EBUSY, Code.EIO, Code.ENXIO})
"""What a call may be refused for that would succeed with all servers there."""

Act = Callable[[], Any]


class Died(Exception):  # noqa: N818  # it is what happens to the client, not a mistake
    """The client crashed while something was under way."""


class Run:
    """One run: what is done to a client, and what it owes us."""

    def __init__(self, where: Site, client: MortalClient, points: CrashPoints, rng: random.Random) -> None:
        self.site = where
        self.client = client
        self.points = points
        self.rng = rng
        self.model = Model()
        self.steps = 0
        self.crashes: Counter[str] = Counter()
        self.journal: list[str] = []
        self._under_way: Act | None = None

    # -- one acknowledged step ---------------------------------------------------------------------------

    async def step(self, call: Callable[[], Awaitable[Any]], apply: Act | None = None) -> Any:
        """Make one call; if it returns, it is acknowledged. Raises Died, CodaError, FileNotFoundError."""
        self._under_way = apply
        with trio.CancelScope() as self.points.scope:
            try:
                result = await call()
            except Exception:
                if not self.points.happened:  # a dead client may stumble over anything
                    raise
        if self.points.happened:
            raise Died
        if apply is not None:
            apply()
        self._under_way = None
        return result

    async def recover(self) -> None:
        """Begin the next life; what was under way happened as a whole or not at all."""
        self.crashes[self.points.kind] += 1
        self.journal.append(
            f"crash at {self.points.kind} of {self._said}; in doubt: {self._under_way is not None}"
        )
        await self.client.die_and_rise()
        apply, self._under_way = self._under_way, None
        before = self.model.looks()
        saved = copy.deepcopy(self.model)
        if apply is not None:
            apply()
        seen = await self.look()
        self.journal.append(f"applied: {seen == self.model.looks()}")
        if seen != self.model.looks():
            _compare("after a crash there is", seen, before)
            self.model = saved

    async def look(self) -> dict[str, Any]:
        """Return the tree as the client has it; what it has not, servers may be needed for."""
        try:
            return await tree(self.client, ROOT)
        except CodaError:
            await self.site.all_up()
            await self.client.realms.reconnect()
            self.client.realms.network_changed()
        return await _patiently(self.client)

    # -- random work -------------------------------------------------------------------------------------

    def path(self) -> str:
        """Choose a path of up to three names, most of them in directories that are there."""
        parts: list[str] = []
        where = self.model.root
        while len(parts) < 2 and self.rng.random() < 0.5:
            name = self.rng.choice(sorted(where) or NAMES)
            if not isinstance(where.get(name), dict) and self.rng.random() < 0.9:
                break
            parts.append(name)
            where = where[name] if isinstance(where.get(name), dict) else {}
        old = self.rng.random() < 0.5 and sorted(where)
        path = "/".join([*parts, self.rng.choice(old or NAMES)])
        self._said += " " + path
        return path

    async def work(self) -> None:
        """Do one random thing; the client may only refuse what the model refuses, or have an excuse."""
        acts = [self.write] * 4 + [self.mkdir, self.rename] * 2
        act = self.rng.choice(
            [*acts, self.unlink, self.rmdir, self.symlink, self.chmod, self.truncate, self.link]
        )
        self._said = ""
        try:
            expected = await act()
        except FileNotFoundError as error:
            self.journal.append(f"{act.__name__} {self._said}: no {error}")
            return
        except CodaError as error:
            self.journal.append(f"{act.__name__} {self._said}: {error}")
            if error.code not in EXCUSES and not self._was_impossible:
                raise AssertionError(self.journal[-1]) from error
            return
        assert expected, f"{act.__name__} succeeded here, and must not"
        self.journal.append(f"{act.__name__} {self._said}: done")
        self.steps += 1

    _was_impossible = False
    _said = ""

    def possible(self, is_possible: object) -> bool:
        """Note whether the model would do it."""
        self._was_impossible = not is_possible
        return bool(is_possible)

    async def write(self) -> bool:
        """Create or truncate, write, and close or sync."""
        path, data = self.path(), self.rng.randbytes(self.rng.choice([0, 1, 100, 5000, 9000]))
        place, found = self.model.place(path), self.model.find(path)
        possible = self.possible(place is not None and (found is None or isinstance(found, File)))
        parent, name = await self.step(lambda: self.client._above(f"{ROOT}/{path}"))
        venus = self.client.venus
        if found is None:
            file = File()

            def appear() -> None:
                assert place is not None
                place[0][place[1]] = file

            flags = os.O_WRONLY | os.O_EXCL
            create = venus.create
            opened, _ = await self.step(lambda: create(ME, parent, name, 0o644, flags), appear)
        else:
            file = found
            ino = (await self.step(lambda: venus.lookup(ME, parent, name))).ino
            opened = await self.step(lambda: venus.open(ME, ino, os.O_WRONLY | os.O_TRUNC))
        if not possible:
            return False

        def settle() -> None:
            file.data = data

        handle = opened.handle
        ended = False
        try:
            if data or self.rng.random() < 0.5:
                await self.step(lambda: venus.write(handle, 0, data))
            if self.rng.random() < 0.2:
                await self.step(lambda: venus.fsync(handle, False), settle)
            ended = True
        finally:
            if not self.points.happened:
                # What was written is stored by the close, also of a program that met an error before.
                await self.step(lambda: venus.flush(handle), settle if ended else self._whatever(file))
                await self.step(lambda: venus.release(handle))
        return True

    def _whatever(self, file: File) -> Act:
        def forget() -> None:
            raise AssertionError(f"a write was refused, and {file} is in doubt")

        return forget

    async def mkdir(self) -> bool:
        path = self.path()
        return await self._make(path, lambda: self.client.mkdir(f"{ROOT}/{path}"), {})

    async def symlink(self) -> bool:
        path, text = self.path(), b"to/nowhere"
        return await self._make(path, lambda: self.client.symlink(f"{ROOT}/{path}", text), Link(text))

    async def _make(self, path: str, call: Callable[[], Awaitable[Any]], what: Tree | Link | File) -> bool:
        place = self.model.place(path)
        possible = self.possible(place is not None and place[1] not in place[0])

        def apply() -> None:
            assert place is not None
            place[0][place[1]] = what

        await self.step(call, apply if possible else None)
        return possible

    async def unlink(self) -> bool:
        path = self.path()
        found = self.model.find(path)
        possible = self.possible(isinstance(found, File | Link))
        return await self._remove(path, lambda: self.client.unlink(f"{ROOT}/{path}"), possible)

    async def rmdir(self) -> bool:
        path = self.path()
        possible = self.possible(self.model.find(path) == {})
        return await self._remove(path, lambda: self.client.rmdir(f"{ROOT}/{path}"), possible)

    async def _remove(self, path: str, call: Callable[[], Awaitable[Any]], possible: bool) -> bool:
        place = self.model.place(path)

        def apply() -> None:
            assert place is not None
            del place[0][place[1]]

        await self.step(call, apply if possible else None)
        return possible

    async def rename(self) -> bool:
        old, new = self.path(), self.path()
        source, target, moved = self.model.place(old), self.model.place(new), self.model.find(old)
        over = self.model.find(new)
        possible = self.possible(
            source is not None
            and target is not None
            and moved is not None
            and not (isinstance(moved, dict) and (new + "/").startswith(old + "/") and new != old)
            and (over is None or over is moved or _replaces(moved, over))
            and not (isinstance(moved, File) and self.model.links(moved) > 1 and source[0] is not target[0])
        )

        def apply() -> None:
            assert source is not None
            assert target is not None
            if over is moved:
                return  # two names of one file, or one name: nothing happens
            target[0][target[1]] = source[0].pop(source[1])

        await self.step(
            lambda: self.client.rename(f"{ROOT}/{old}", f"{ROOT}/{new}"), apply if possible else None
        )
        return possible

    async def chmod(self) -> bool:
        path, mode = self.path(), self.rng.choice([0o600, 0o640, 0o755])
        found = self.model.find(path)
        possible = self.possible(isinstance(found, File | dict))

        def apply() -> None:
            if isinstance(found, File):
                found.mode = mode

        await self.step(lambda: self._change(path, mode=mode), apply if possible else None)
        return possible

    async def truncate(self) -> bool:
        path, size = self.path(), self.rng.choice([0, 3, 200])
        found = self.model.find(path)
        possible = self.possible(isinstance(found, File))

        def apply() -> None:
            found.data = found.data[:size].ljust(size, b"\0")

        await self.step(lambda: self._change(path, size=size), apply if possible else None)
        return possible

    async def _change(self, path: str, **changes: int) -> None:
        attr = await self.client.look(f"{ROOT}/{path}")
        await self.client.venus.setattr(ME, attr.ino, Changes(**changes))

    async def link(self) -> bool:
        old, name = self.path(), self.rng.choice(NAMES)
        place, found = self.model.place(old), self.model.find(old)
        possible = self.possible(isinstance(found, File) and place is not None and name not in place[0])

        def apply() -> None:
            assert place is not None
            place[0][name] = found

        new = f"{ROOT}/{os.path.join(os.path.dirname(old), name)}"
        await self.step(lambda: self.client.link(f"{ROOT}/{old}", new), apply if possible else None)
        return possible

    # -- what happens to it ------------------------------------------------------------------------------

    async def weather(self) -> None:
        """Cut, mend, disconnect, kill a server, let time pass, aim at a crash point."""
        chance, rng = self.rng.random(), self.rng
        self.journal.append(f"weather {chance:.2f} at {trio.current_time():.1f}")
        if chance < 0.04:
            self.client.offline()
        elif chance < 0.08:
            self.client.online()
        elif chance < 0.10:
            await self._whatever_happens(self.client.realms.disconnect)
        elif chance < 0.13:
            await self._whatever_happens(self.client.realms.reconnect)
        elif chance < 0.15:
            await self.site.down(rng.choice(self.site.servers.numbers))
        elif chance < 0.19:
            await self.site.start_all()
        elif chance < 0.27:
            await self._whatever_happens(self._time_passes)
        elif chance < 0.29:
            _compare("the client has", await self.step(self.look), self.model.looks())
        elif chance < 0.45:
            kind = rng.choice(KINDS)
            self.points.arm(kind, int(rng.expovariate(0.2)))

    async def _time_passes(self) -> None:
        await trio.sleep(self.rng.random() * 4)

    async def _whatever_happens(self, call: Callable[[], Awaitable[object]]) -> None:
        await self.step(call)

    async def live(self) -> None:
        """Work through the weather, from life to life."""
        for _ in range(STEPS):
            try:
                await self.weather()
                await self.work()
            except Died:
                await self.recover()

    # -- the reckoning -----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Bring all together: everything acknowledged is at the servers, once."""
        self.points.disarm()
        await self.site.all_up()
        client, servers = self.client, self.site.servers
        await client.realms.reconnect()
        client.realms.network_changed()
        _compare("the client has", await self.look(), self.model.looks())
        await client.drained(3600)
        stuck = [e for key in client.cache.log.volumes() for e in client.cache.log.entries(key)]
        assert not [entry for entry in stuck if entry.state is State.BLOCKED]
        await trio.sleep(PENDING_FOR + 2 * TICK)
        other = await self.site.client()
        wanted = self.model.looks()
        _compare("another client sees", await _patiently(other), wanted)
        _compare("the client sees", await _patiently(client), wanted)
        assert not servers.executed_twice()
        assert not servers.quirks.sins
        if not servers.quirks.on:
            await servers.settled()
            servers.assert_equal()


async def _patiently(client: MortalClient) -> dict[str, Any]:
    """Return the tree, however often servers die meanwhile."""
    with trio.fail_after(900):
        while True:
            try:
                return await tree(client, ROOT)
            except CodaError:
                await trio.sleep(1)


def _compare(who: str, seen: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Fail if the trees differ, and say where: contents are long."""
    ours, theirs = _flat(seen), _flat(wanted)
    differ = {
        path: (ours.get(path), theirs.get(path))
        for path in ours.keys() | theirs
        if ours.get(path) != theirs.get(path)
    }
    assert not differ, f"{who} (seen, wanted): {differ}"


def _flat(tree: dict[str, Any], top: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, node in tree.items():
        if isinstance(node, dict):
            found |= {f"{top}{name}/": "directory", **_flat(node, f"{top}{name}/")}
        else:
            found[top + name] = (
                f"{len(node[0])} bytes {node[0][:6]!r} {node[1:]}" if isinstance(node, tuple) else str(node)
            )
    return found


def _replaces(moved: object, over: object) -> bool:
    if isinstance(moved, dict):
        return over == {}
    return not isinstance(over, dict)


def habits(seed: int) -> frozenset[Quirk]:
    """Choose what the servers of a run are like: ours in every other, all habits or some in the rest."""
    rng = random.Random(seed)
    if seed % 2 == 0:
        return frozenset()
    return frozenset(Quirk) if rng.random() < 0.5 else frozenset(rng.sample(list(Quirk), 4))


def size(seed: int) -> int:
    """Choose how many servers there are in a run: one, or a group of three."""
    return 1 if seed % 4 < 2 else 3


async def soak(seed: int, directory: Path, patch: pytest.MonkeyPatch) -> Run:
    """Do one run."""
    rng = random.Random(seed)
    quirks = habits(seed)
    points = CrashPoints(patch)
    async with site(directory, count=size(seed), quirks=quirks, seed=seed) as where:
        where.net.tap = points.tap
        options: dict[str, Any] = {
            "own_servers": not quirks,
            "batch_records": rng.choice([3, 200]),
            "big_store": rng.choice([4000, 1 << 22]),
        }
        client = await where.client(points, **options)
        run = Run(where, client, points, rng)
        await _patiently(client)
        where.net.loss = 0.05 * (rng.random() < 0.3)
        try:
            await run.live()
            await run.settle()
        except BaseException:
            print("\n".join(["", *run.journal[-40:]]))
            raise
        return run


def one(seed: int, directory: Path) -> Run:
    """Do one run, on a clock of its own."""
    directory.mkdir()
    with pytest.MonkeyPatch.context() as patch, repeatable(seed):
        try:
            clock = trio.testing.MockClock(autojump_threshold=0)
            return trio.run(soak, seed, directory, patch, clock=clock)
        except BaseException:
            print(f"\nREALMFS_SEED={seed} REALMFS_SOAK=1")
            raise
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(3600)
@pytest.mark.logs(".")
@pytest.mark.parametrize("part", range(min(PARTS, RUNS)))
def test_nothing_is_lost_nothing_is_done_twice_nothing_hangs(tmp_path: Path, part: int) -> None:
    began = time.monotonic()
    steps, crashes = 0, Counter[str]()
    seeds = range(FIRST + part, FIRST + RUNS, PARTS)
    for seed in seeds:
        run = one(seed, tmp_path / "run")
        steps += run.steps
        crashes += run.crashes
    print(f"seeds {seeds}: {steps} changes, crashes {dict(crashes)}, {time.monotonic() - began:.1f} s")
    assert steps > 10 * len(seeds) or len(seeds) < 10, "it did something"
