"""Getting what was acknowledged onto the disk: every 5 seconds, and when someone calls fsync(2).

Order of a round
----------------
    1  trio thread   note the containers without `synced` and the unsafe stores
    2  other thread  sync each container (stores first), take the SHA-256 of the stores
    3  trio thread   one transaction: those containers are synced, those stores are safe
    4  other thread  sync the write-ahead log; move old pages of it into the database file
    5  trio thread   delete the container files that waited for it

Contents come before the mark that calls them safe, so the mark is true whenever it is found; records and
marks reach the disk together in step 4, so `sync()` may return then. Containers of stores never change
after they were logged: what step 2 reads is what was acknowledged. A container released during a round is
not there in step 3; nothing is marked then.

Rounds do not overlap. Who calls `sync` while one runs waits for the next one, together with all others who
do: a hundred fsyncs cost two rounds.

Fetched data only has to be synced for not being fetched again after power loss, so a fetched container is
left to the kernel's own write-back for `_LAZY` seconds, after which the sync costs next to nothing.
"""

import hashlib
import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from realmfs.cache import disk
from realmfs.cache.containers import Containers
from realmfs.cache.database import Database, connect
from realmfs.cache.home import Reserve

logger = logging.getLogger(__name__)

PERIOD: Final = 5.0
"""Seconds between rounds (promise 1)."""
HURRY: Final = 1000
"""Commits after which a round does not wait for the period, so that the write-ahead log stays short."""
_LONG_LOG: Final = 4 << 20
"""Bytes of write-ahead log above which pages are moved to the database file, in the thread."""
_TOO_LONG_LOG: Final = 64 << 20
"""Bytes above which what the thread could not move under continuous writing is moved on the trio thread."""
_LAZY: Final = 7
"""Rounds that a fetched container is left alone."""
_BATCH: Final = 256
"""Fetched containers synced per round."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A container to sync; for a store also the record that waits for it."""

    container: int
    path: Path
    store: tuple[int, int] | None  # volume key, sequence


@dataclass(frozen=True, slots=True)
class _Synced:
    work: _Work
    length: int
    digest: bytes | None


class Durability:
    """Runs the rounds. `rounds` counts those completed."""

    def __init__(self, database: Database, containers: Containers, reserve: Reserve, last: Reserve) -> None:
        self._database = database
        self._containers = containers
        self._reserve = reserve
        self._last = last
        self._running = trio.Lock()
        self._waiting: list[trio.Event] = []
        self._synced_commits = -1
        self._lazy: dict[int, int] = {}  # fetched container, rounds that it has been left alone
        self._hurry = trio.Event()
        self.rounds = 0

    def watch(self) -> None:
        """Look after the disk and the length of the write-ahead log.

        The database calls it every few commits.
        """
        self._watch_disk()
        if self._database.commits - self._synced_commits > HURRY:
            self._hurry.set()

    def _watch_disk(self) -> None:
        self._last.watch(last=True)
        self._reserve.watch()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run a round every PERIOD seconds if there is anything to do."""
        task_status.started()
        while True:
            with trio.move_on_after(PERIOD):
                await self._hurry.wait()
            self._hurry = trio.Event()
            self._watch_disk()
            if self._database.damage is None and (
                self._database.commits != self._synced_commits or self._lazy
            ):
                try:
                    await self.sync()
                except OSError as error:  # the next round tries again; nothing was marked
                    logger.error("cannot sync the cache: %s", error)

    async def sync(self) -> None:
        """Return when everything committed before the call survives power loss.

        OSError if the disk refuses.
        """
        done = trio.Event()
        self._waiting.append(done)
        async with self._running:
            if done.is_set():
                return
            waiting, self._waiting = self._waiting, []
            await self._round(everything=False)
            for event in waiting:
                event.set()

    async def sync_all(self) -> None:
        """As `sync`, fetched data included: at a clean stop."""
        async with self._running:
            await self._round(everything=True)

    async def _round(self, *, everything: bool) -> None:
        work = self._due(everything)
        synced = await trio.to_thread.run_sync(_sync_contents, work) if work else []
        if synced:
            with self._database.transaction():
                self._mark(synced)
        commits, graves = self._database.commits, self._containers.graves
        length = await trio.to_thread.run_sync(_sync_log, self._database.path)
        self._synced_commits = commits
        if length > _TOO_LONG_LOG:
            self._database.checkpoint()
        self._containers.bury(graves)
        self.rounds += 1

    def _due(self, everything: bool) -> list[_Work]:
        stores = {
            container: (volume, sequence)
            for volume, sequence, container in self._database.rows(
                "SELECT volume, sequence, container FROM log WHERE safe = 0 AND container IS NOT NULL"
            )
        }
        path = self._containers.path
        work = [_Work(container, path(container), store) for container, store in stores.items()]
        fetched = [
            number
            for (number,) in self._database.rows("SELECT id FROM container WHERE synced = 0 AND writing = 0")
            if number not in stores
        ]
        self._lazy = {number: self._lazy.get(number, 0) + 1 for number in fetched}
        due = [number for number in fetched if everything or self._lazy[number] > _LAZY]
        for number in due if everything else due[:_BATCH]:
            work.append(_Work(number, path(number), None))
            del self._lazy[number]
        return work

    def _mark(self, synced: list[_Synced]) -> None:
        for done in synced:
            container = done.work.container
            self._database.write(
                "UPDATE container SET synced = 1 WHERE id = ? AND length = ?", (container, done.length)
            )
            if done.work.store is not None:
                self._database.write(
                    "UPDATE log SET safe = 1, digest = ?"
                    " WHERE volume = ? AND sequence = ? AND container = ? AND length = ?",
                    (done.digest, *done.work.store, container, done.length),
                )


def _sync_contents(work: list[_Work]) -> list[_Synced]:
    """Sync files and their names; runs in a thread. A file that is gone is left out."""
    done = []
    for one in work:
        try:
            with one.path.open("rb", buffering=0) as file:
                disk.sync_descriptor(file.fileno())
                digest = hashlib.file_digest(file, "sha256").digest() if one.store is not None else None
                done.append(_Synced(one, file.seek(0, 2), digest))
        except FileNotFoundError:
            continue
    for directory in {one.work.path.parent for one in done}:
        disk.sync_directory(directory)
    return done


def _sync_log(path: Path) -> int:
    """Sync the write-ahead log; if it is long, move what can be moved into the database file.

    Runs in a thread.

    Returns the length of the log before, in bytes.
    """
    log = path.with_name(path.name + "-wal")
    if not disk.sync_file(log):
        return 0
    length = log.stat().st_size
    if length > _LONG_LOG:
        connection = connect(path)
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.OperationalError as error:  # the log just stays as long as it is
            logger.info("no checkpoint of %s: %s", path, error)
        finally:
            connection.close()
    return length
