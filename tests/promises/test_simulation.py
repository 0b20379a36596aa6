"""Five servers, three clients, random partitions, crashes and restarts: in the end nothing is gone.

`REALMFS_SEED` chooses the seed, `REALMFS_OPERATIONS` the number of operations; `make soak` does 10 000.
Each client gives and takes away names of what it has made itself, and writes to all files: so files may be
in conflict, directories never. The work is one operation at a time, of a random client; reintegration,
resolution and catch-up go on beside it, and now and then somebody settles a conflict. One of the clients has
a cache too small for all there is, so that things go from it.

    each operation   succeeds, or is refused for a reason that there is: trouble now or lately, a name that
                     somebody else took away or that no server which can be reached has heard of, a conflict.
                     It never shows a version older than one that the client has in its cache; what goes
                     from there is told
    at the end       all is healed. A replica equals the others or is marked in conflict; every acknowledged
                     change is at a server, in the log of a client, or replaced by a later one; a log holds
                     only what waits for a decision; all clients see what the servers have
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio

from realmfs.cache.errors import CacheFull
from realmfs.cache.limits import Limits
from realmfs.control import messages
from realmfs.control.conflicts import Conflicts
from realmfs.control.protocol import ControlError
from realmfs.venus.batch import Why
from realmfs.venus.events import Replaced, Watcher
from realmfs.venus.face import Caller
from realmfs.venus.node import Node
from realmfs.vice.errors import CodaError, Code
from tests.group import address
from tests.promises.holdings import Holdings
from tests.promises.reasons import Reasons
from tests.promises.simulated import MARK, Ledger
from tests.promises.site import ROOT, MortalClient, Site, site
from tests.repeatable import repeatable
from tests.seeds import first_seed
from tests.t5_venus.world import LIMITS, ME

Clock = trio.abc.Clock
SEED = first_seed()
FEW = int(os.environ.get("REALMFS_OPERATIONS") or 150)
MANY = int(os.environ.get("REALMFS_OPERATIONS") or 10_000)
SMALL = Limits(bytes=64 << 20, objects=48, log_records=20_000, reserve=0)
MARKS = re.compile(rb"[fdv]\d{8}")
OWNER = Caller(ME.uid, ME.gid, 0, kernel=False)
Act = Callable[[MortalClient, int], Awaitable[None]]


class Gone(Exception):  # noqa: N818  # it is what happens to names, not a mistake
    """A name that a client had seen is not there."""


class OwnersConflicts(Conflicts):
    """The conflicts as the daemon's owner sees them: all of them."""

    def _may_see(self, caller: Caller, node: Node) -> bool:
        return True


class Simulation:
    """One run."""

    def __init__(self, where: Site, clients: list[MortalClient], rng: random.Random) -> None:
        self.site, self.clients, self.rng = where, clients, rng
        self.ledger = Ledger()
        self.counts: Counter[str] = Counter()
        self.known: list[deque[str]] = [deque(maxlen=20) for _ in clients]
        self.own: list[set[bytes]] = [set() for _ in clients]
        self.watchers: list[Watcher | None] = [None for _ in clients]
        self.holdings = [Holdings(f"client {number}", self.ledger) for number in range(len(clients))]
        self.reasons = Reasons(where, self.ledger)
        self._open = ExitStack()
        for number in range(len(clients)):
            self.watch(number)

    # -- one operation ---------------------------------------------------------------------------------

    async def operate(self, number: int) -> None:
        """Do one thing at one client; a refusal is no promise, but needs a reason."""
        client = self.clients[number]
        acts = [self.create, self.write, self.write, self.write, self.read, self.read, self.read, self.read]
        act: Act = self.rng.choice([*acts, self.mkdir, self.rename, self.remove])
        self._at = ""
        try:
            await act(client, number)
        except CodaError as error:
            self._refused(client, number, act.__name__, error.code)
        except (FileNotFoundError, Gone):
            self._refused(client, number, act.__name__, Code.ENOENT)
        else:
            self.counts[act.__name__] += 1
        self.holdings[number].check(client.venus.core)

    _at = ""
    """The path that is worked on."""

    def _refused(self, client: MortalClient, number: int, what: str, code: Code) -> None:
        """Fail unless there is a reason for a refusal."""
        self.counts[f"refused: {code.name}"] += 1
        if self._at in self.known[number]:
            self.known[number].remove(self._at)
        names = [part.encode() for part in self._at.split("/")[2:]]
        assert self.reasons.explain(client, names, code), (
            f"{what} {self._at} at client {number}: {code.name}, {self.reasons.tell(client, names)}"
        )

    # -- choosing --------------------------------------------------------------------------------------

    async def directory(self, client: MortalClient) -> str:
        """Choose a directory, as this client sees them."""
        self._at = ROOT
        inside = sorted(name for name in await client.ls(ROOT) if name.startswith("d"))
        self._at = f"{ROOT}/{self.rng.choice(inside)}" if inside and self.rng.random() < 0.7 else ROOT
        return self._at

    async def file(self, client: MortalClient, number: int) -> str:
        """Choose a file, as this client sees them: often one that it has worked with."""
        known = self.known[number]
        if known and self.rng.random() < 0.6:
            self._at = self.rng.choice(sorted(known))
            return self._at
        for _ in range(6):
            above = await self.directory(client)
            files = sorted(name for name in await client.ls(above) if name.startswith("f"))
            if files:
                self._at = f"{above}/{self.rng.choice(files)}"
                known.append(self._at)
                return self._at
        await self.create(client, number)
        return self._at

    async def _found(self, client: MortalClient, number: int) -> tuple[str, int]:
        """Choose a file that is one file; return where it is."""
        for _ in range(5):
            path = await self.file(client, number)
            attr = await client.look(path)
            if attr.mode & 0o170000 != 0o040000:
                return path, attr.ino
        raise CodaError(Code.EISDIR, path)

    # -- work ------------------------------------------------------------------------------------------

    async def create(self, client: MortalClient, number: int) -> None:
        name = self.ledger.mark("f")
        above = await self.directory(client)
        parent = await client.look(above)
        self.ledger.made(name)
        opened, _ = await client.venus.create(ME, parent.ino, name, 0o644, os.O_WRONLY)
        self.ledger.done(name)
        self.own[number].add(name)
        self._at = f"{above}/{name.decode()}"
        self.known[number].append(self._at)
        await self._fill(client, opened.handle, b"")

    async def _fill(self, client: MortalClient, handle: int, over: bytes) -> None:
        """Write a version and close; whatever the close says, the version may be seen from now on."""
        mark = self.ledger.mark("v")
        self.ledger.before[mark] = over
        try:
            await client.venus.write(handle, 0, mark)
            await client.venus.flush(handle)
        except CodaError as error:
            self.ledger.tell(self._at.rpartition("/")[2].encode(), f"{mark!r} over {over!r}: {error}")
            raise
        finally:
            await client.venus.release(handle)
        self.ledger.done(mark, over)
        self.ledger.tell(self._at.rpartition("/")[2].encode(), f"has {mark!r} over {over!r}")

    async def write(self, client: MortalClient, number: int) -> None:
        path, ino = await self._found(client, number)
        opened = await client.venus.open(ME, ino, os.O_RDWR)
        over = b""
        try:
            over = bytes(await client.venus.read(opened.handle, 0, MARK))
        except CodaError:
            await client.venus.release(opened.handle)
            raise
        self._shown(number, path, over)
        await self._fill(client, opened.handle, over)

    async def read(self, client: MortalClient, number: int) -> None:
        path, _ = await self._found(client, number)
        self._shown(number, path, await client.read(path))

    def _shown(self, number: int, path: str, contents: bytes) -> None:
        """Check what a client shows against what it has shown, and has not let go of."""
        self.listen(number)
        self.ledger.opened(number, path.rpartition("/")[2].encode(), contents)

    def listen(self, number: int) -> None:
        """Hear what a client has let go of."""
        watcher = self.watchers[number]
        assert watcher is not None
        for event in watcher.waiting():
            if isinstance(event, Replaced):
                self.ledger.evicted(number, event.object)

    async def mkdir(self, client: MortalClient, number: int) -> None:
        name = self.ledger.mark("d")
        self._at = ROOT
        if len([one for one in await client.ls(ROOT) if one.startswith("d")]) < 20:
            await client.mkdir(f"{ROOT}/{name.decode()}")
            self.ledger.done(name)

    async def rename(self, client: MortalClient, number: int) -> None:
        above, name = await self.directory(client), self.ledger.mark("f")
        old, _ = await self._found(client, number)
        gone = old.rpartition("/")[2].encode()
        if gone not in self.own[number]:
            return
        self.ledger.moved(gone, name)
        self.ledger.tell(gone, f"client {number} renames it to {name.decode()}")
        await client.rename(old, f"{above}/{name.decode()}")
        self.ledger.done(name, gone)
        self.own[number] ^= {name, gone}
        self._forget(gone)

    def _forget(self, gone: bytes) -> None:
        """Nobody need look for a name that is not there any more."""
        for known in self.known:
            for path in [path for path in known if path.endswith(gone.decode())]:
                known.remove(path)

    async def remove(self, client: MortalClient, number: int) -> None:
        path, _ = await self._found(client, number)
        contents, name = await client.read(path), path.rpartition("/")[2].encode()
        self._shown(number, path, contents)
        if name not in self.own[number]:
            return
        await client.unlink(path)
        self.ledger.tell(name, f"client {number} removed it")
        self.ledger.gone(contents)
        self.ledger.gone(name)
        self._forget(name)

    # -- what happens to them --------------------------------------------------------------------------

    async def weather(self) -> None:
        """Cut between two random sides, mend, kill and start servers and clients, let time pass."""
        chance, servers = self.rng.random(), self.site.servers
        if chance < 0.01 or (chance < 0.04 and self.site.net.is_cut):
            self._cut()
        elif chance < 0.06:
            self.site.net.heal()
        elif chance < 0.07:
            await self.site.down(self.rng.choice(servers.numbers))
            self.counts["server crashes"] += 1
        elif chance < 0.10:
            await self.site.start_all()
        elif chance < 0.11:
            await self._restart(self.rng.randrange(len(self.clients)))
        elif chance < 0.21:
            await trio.sleep(self.rng.choice([1, 10, 60, 100]))
        elif chance < 0.26 and not self.reasons.is_trouble:
            await self.decide(self.rng.randrange(len(self.clients)))
        self.reasons.note_trouble()

    async def decide(self, number: int) -> None:
        """Settle the conflicts that a client knows of, as a person would; of files one version may go."""
        client = self.clients[number]
        for node in client.venus.core.conflicts.all():
            versions = await self._versions(client, node)
            choice = await self._choice(client, node)
            settle = OwnersConflicts(client.venus, client.directory).methods(OWNER)["conflicts.settle"]
            try:
                await settle.run(choice)
            except (ControlError, CodaError, CacheFull) as error:
                print(f"not settled with {choice.keep}: {node}: {error}")
                self.counts[f"not settled with {choice.keep}"] += 1
                continue
            self.counts[f"settled with {choice.keep}"] += 1
            how = f"{choice.keep} {choice.server or ''}"
            self.ledger.tell(node.name, f"client {number} settled with {how}: {versions}")
            self.ledger.decided(versions)

    async def _choice(self, client: MortalClient, node: Node) -> messages.Settle:
        """Choose what to keep of an object in conflict."""
        ways = ["both"] if node.is_directory else ["server", "both"]
        if not node.is_directory and client.venus.core.conflicts.held(node.ino):
            ways.append("local")
        keep, server = self.rng.choice(ways), None
        if keep == "server" and node.conflict:
            server = address(self.rng.choice(self.site.servers.numbers))
        return messages.Settle(id=node.ino, keep=keep, server=server)

    async def _versions(self, client: MortalClient, node: Node) -> set[bytes]:
        """Return the contents or names that the versions of an object in conflict have: some may go."""
        found = {node.name}
        for record in client.venus.core.conflicts.about(node.ino):
            found |= set(MARKS.findall(record.record))
        if not node.is_directory:
            found |= self._held_by_servers(node)
        with suppress(CodaError):
            for version in await client.venus.versions.all(ME, node):
                if version.node.is_directory:
                    directory = await client.venus.fetcher.directory(version.node, ME.uid)
                    found |= set(directory.names())
                else:
                    async with client.venus.fetcher.contents(version.node, ME.uid) as content:
                        found.add(bytes(content.read(0, MARK)))
        return found

    def _held_by_servers(self, node: Node) -> set[bytes]:
        """Return what the replicas of a file hold, also those that a client cannot be shown just now."""
        found, servers = set(), self.site.servers
        for number in servers.numbers:
            with suppress(AssertionError):  # it does not have the file
                found.add(servers.data(number, node.fid)[:MARK])
        return found

    def _cut(self) -> None:
        """Cut in two, other sides than before: servers that have an update, and a client who knows it."""
        self.site.net.heal()
        hosts = [*map(address, self.site.servers.numbers), *(client.host for client in self.clients)]
        side = set(self.rng.sample(hosts, self.rng.randint(1, len(hosts) - 1)))
        for one in side:
            for other in set(hosts) - side:
                self.site.net.partition(one, other)
        self.counts["partitions"] += 1

    async def _restart(self, number: int) -> None:
        self.listen(number)
        await self.clients[number].restart()
        self.counts["client crashes"] += 1
        self.reasons.note_crash()
        self.watch(number)

    def watch(self, number: int) -> None:
        """Listen to the events of a client's present life."""
        self.watchers[number] = self._open.enter_context(self.clients[number].venus.events.watch(100_000))

    # -- the end ---------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Heal everything, look at everything, wait."""
        await self.site.all_up()
        self.reasons.note_trouble()
        for _ in range(3):
            for client in self.clients:
                client.realms.network_changed()
            await trio.sleep(300)
            for number in range(len(self.clients)):
                await self.look_at_all(number)
        await self.site.servers.settled(900)

    async def look_at_all(self, number: int) -> dict[bytes, bytes]:
        """Open everything that a client can open; return the contents by name."""
        client, found = self.clients[number], dict[bytes, bytes]()
        self._at = ROOT
        for above in [ROOT, *(f"{ROOT}/{name}" for name in await client.ls(ROOT) if name[0] == "d")]:
            self._at = above
            try:
                names = await client.ls(above)
            except (CodaError, FileNotFoundError) as error:
                self._refused(client, number, "list", getattr(error, "code", Code.ENOENT))
                continue
            for name in names:
                if name.startswith("f"):
                    await self._look_at(client, number, f"{above}/{name}", found)
        return found

    async def _look_at(self, client: MortalClient, number: int, path: str, found: dict[bytes, bytes]) -> None:
        self._at = path
        try:
            contents = await client.read(path)
        except (CodaError, FileNotFoundError) as error:
            self._refused(client, number, "read", getattr(error, "code", Code.ENOENT))
            return
        self._shown(number, path, contents)
        found[path.rpartition("/")[2].encode()] = contents

    async def check(self) -> None:
        """Compare what there is with what there must be."""
        servers = self.site.servers
        missing = self.ledger.missing(self.everything())
        assert not missing, f"acknowledged, and gone: {missing}\n{self.ledger.stories(missing)}"
        servers.assert_equal()
        assert not [node for n in servers.numbers for node in servers.conflicts(n) if node[0] & 1]
        for number, client in enumerate(self.clients):
            log = client.cache.log
            for key in log.volumes():
                volume = client.venus.core.volumes.by_key(key)
                assert volume.waiting_for == Why.DECISION.value, f"client {number}: {volume.waiting_for}"
                assert list(log.blocked()), f"client {number} waits for a decision about nothing"
            if not log.count and not any(map(servers.conflicts, servers.numbers)):
                assert await self.look_at_all(number) == self._at_servers(), f"client {number}"

    def _at_servers(self) -> dict[bytes, bytes]:
        """Return the files of a replica by name."""
        contents = self.site.servers.contents(self.site.servers.numbers[0])
        entries = [entry for row in contents.values() if isinstance(row[-1], list) for entry in row[-1]]
        files = [(name, node) for name, *node in entries if name.startswith(b"f")]
        return {name: contents[vnode, unique][-1] or b"" for name, (vnode, unique) in files}

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
        limits = (LIMITS, LIMITS, SMALL)
        clients = [await where.client(own_servers=True, limits=one) for one in limits]
        run = Simulation(where, clients, random.Random(seed))
        try:
            for _ in range(operations):
                await run.operate(run.rng.randrange(len(clients)))
                await run.weather()
            await run.settle()
            await run.check()
        finally:
            in_conflict = {node for n in where.servers.numbers for node in where.servers.conflicts(n)}
            print("story:", run.ledger.digest(), end=" ")
            print(dict(run.counts), "evictions told:", run.ledger.evictions, end=" ")
            print("marked in conflict:", len(in_conflict), "at", round(trio.current_time()))
        refused = sum(count for what, count in run.counts.items() if what.startswith("refused"))
        assert refused < operations / 3, "most of it is done"


@pytest.mark.timeout(600)
@pytest.mark.logs(".")
async def test_a_simulation(tmp_path: Path, autojump_clock: Clock) -> None:
    with repeatable(SEED):
        await simulate(tmp_path, SEED, FEW)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.logs(".")
async def test_a_long_simulation(tmp_path: Path, autojump_clock: Clock) -> None:
    with repeatable(SEED):
        await simulate(tmp_path, SEED, MANY)
