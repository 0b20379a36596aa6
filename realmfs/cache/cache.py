"""The cache as a whole: opening and closing it, and the stores it is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import trio

from realmfs.cache import disk
from realmfs.cache.containers import Containers
from realmfs.cache.contents import Contents
from realmfs.cache.database import Database, Transaction
from realmfs.cache.directories import Directories
from realmfs.cache.durability import Durability
from realmfs.cache.errors import CacheDamaged, Damage
from realmfs.cache.hoard import HoardTable
from realmfs.cache.home import Home, Reserve
from realmfs.cache.identities import Identities
from realmfs.cache.inodes import Inodes
from realmfs.cache.limits import Limits
from realmfs.cache.log import ModifyLog
from realmfs.cache.objects import Objects
from realmfs.cache.realms import Realms
from realmfs.cache.recovered import Recovered
from realmfs.cache.recovery import Findings, Recovery
from realmfs.cache.replacement import Replacement
from realmfs.cache.volumes import Volumes

_NUMBERS_PER_OBJECT: Final = 4
_FEWEST_ENTRIES: Final = 42  # of the hoard database (client.md §11)


class Cache:
    """Everything that is on this disk.

    `Cache(directory, limits)` opens or makes it, recovers from a crash, and holds a lock on it until
    `close`. It raises CacheInUse, CacheTooNew and OSError. A damaged database is no error: `damage` names
    it and the cache is read-only. Reads are synchronous and quick; every change is made inside

        with cache.transaction():
            ...

    which contains no checkpoint, may be nested, and commits as a whole or not at all. `run` belongs in a
    nursery: without it nothing but `sync` reaches the disk by itself. `boot_id` is for tests.
    """

    def __init__(self, directory: Path, limits: Limits, *, boot_id: str | None = None) -> None:
        self.limits = limits
        self.directory = directory
        self._home = Home(directory)
        try:
            self._reserve = Reserve(directory / "reserve", limits.reserve)
            self._last = Reserve(directory / "reserve.last", limits.last_reserve, "sending what waits")
            self._open(self._home.database, disk.boot_id() if boot_id is None else boot_id)
        except BaseException:
            self._home.close()
            raise

    def _open(self, path: Path, boot: str) -> None:
        self._database = Database(path, relieve=self._reserve.release)
        try:
            self._start(boot)
        except CacheDamaged:
            # Not even the small tables can be read: an empty cache stands in, read-only.
            self._database.stand_in()
            self._build()
            self.findings = Findings(clean=False)
        except BaseException:
            self._database.close()
            raise

    def _start(self, boot: str) -> None:
        row = self._database.row("SELECT clean, boot, uuid FROM state")
        assert row is not None
        clean, last_boot, self.uuid = row
        if not clean:
            self._database.check()
        self._build()
        self.findings = Findings()
        if self._database.damage is not None:
            self.findings = Findings(clean=False)
            return
        recovery = None
        with self._database.transaction():
            if not clean:
                recovery = self._recovery(power_lost=boot != last_boot or not boot)
                recovery.run()
            self.volumes.take_ranges()
            self.inodes.prune()
            self._database.write("UPDATE state SET clean = 0, boot = ?", (boot,))
        # Power loss must not bring back the clean flag together with the granted fids that are now in use.
        disk.sync_file(self._home.database.with_name("cache.db-wal"))
        if recovery is not None:
            recovery.sweep()
            self.findings = recovery.findings
        self._database.watch = self.durability.watch

    def _build(self) -> None:
        database, limits = self._database, self.limits
        self.realms = Realms(database)
        self.identities = Identities(database)
        self.volumes = Volumes(database)
        self.inodes = Inodes(database, _NUMBERS_PER_OBJECT * limits.objects)
        self.directories = Directories(database)
        self.containers = Containers(database, self._home.containers, self._reserve.check)
        self.objects = Objects(database, self.containers, self.directories, limits.objects)
        self.log = ModifyLog(database, self.containers, limits.log_records, self._last.check)
        self.hoard = HoardTable(database, max(_FEWEST_ENTRIES, limits.objects // 2))
        self.recovered = Recovered(database, self.containers)
        self.replacement = Replacement(database, limits, self.objects, self.containers)
        self.durability = Durability(database, self.containers, self._reserve, self._last)
        self.contents = Contents(database, self.objects, self.containers, self.sync)

    def _recovery(self, *, power_lost: bool) -> Recovery:
        return Recovery(
            self._database, self.containers, self.objects, self.log, self.recovered, power_lost=power_lost
        )

    @property
    def damage(self) -> Damage | None:
        """What is wrong with the database.

        None = nothing. While there is damage every change raises CacheReadOnly.
        """
        return self._database.damage

    def free(self) -> int:
        """Return how many bytes of new contents could come in: clean copies would go, pending ones stay."""
        pending = sum(self.log.summary(volume).bytes for volume in self.log.volumes())
        clean = max(self.containers.used - pending, 0)
        on_disk = self._reserve.disk_free() + clean if self._reserve.held else 0
        return max(min(self.limits.bytes - pending, on_disk), 0)

    def shortage(self) -> int:
        """Return how many bytes the disk lacks for contents to be taken in again."""
        return max(self._reserve.shortage(), self._last.shortage())

    def last_resort(self) -> bool:
        """Give up the last of the disk so that what waits can be sent; true if that freed any.

        Until there is room again no change is taken in.
        """
        return self._last.release()

    def change_limits(self, limits: Limits) -> None:
        """Obey other limits from now on. What is too much by them goes by `replacement.trim`."""
        self.limits = limits
        self.objects.change_bound(limits.objects)
        self.log.change_bound(limits.log_records)
        self.replacement.change_limits(limits)

    def troubles(self) -> list[str]:
        """Say for people what keeps the cache from doing all it should: damage, a disk without room."""
        found = [] if self.damage is None else [str(self.damage)]
        if not self._reserve.held:
            found.append(self._reserve.missing())
        return found

    def transaction(self) -> Transaction:
        """Return the context manager for a change; see database.py."""
        return self._database.transaction()

    def on_rollback(self, act: Callable[[], None]) -> None:
        """Call `act` if the open transaction is rolled back: to put right what memory knows of it."""
        self._database.on_rollback(act)

    def on_commit(self, act: Callable[[], None]) -> None:
        """Call `act` after the open transaction has been committed."""
        self._database.on_commit(act)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bring changes to the disk every 5 s, for ever."""
        await self.durability.run(task_status=task_status)

    async def sync(self) -> None:
        """Return when all that was committed before survives power loss (fsync).

        OSError if the disk refuses.
        """
        await self.durability.sync()

    async def aclose(self) -> None:
        """Stop cleanly.

        Everything is on the disk, granted fids are kept, the next start has nothing to recover.
        """
        if self._database.damage is None:
            with self._database.transaction():
                self.objects.flush_ticks()
                self.volumes.put_ranges()
            await self.durability.sync_all()
            with self._database.transaction():
                self._database.write("UPDATE state SET clean = 1")
            await self.durability.sync_all()
        self.close()

    def close(self) -> None:
        """Leave the directory as it is; after `aclose` that was clean, else the next start recovers."""
        self.containers.close()
        self._database.close()
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
