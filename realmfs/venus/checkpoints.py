"""Copies of what has waited long, outside the cache: what `changes export` would write, every ten minutes.

The reference client does so, too. The log is safe in the cache's database; the copies are for the day when
that is damaged or deleted. A volume whose changes go out within the time never gets one, and one that has
drained loses it. They are made only while they take little of the free disk space.
"""

import logging
import shutil
from pathlib import Path

import trio

from realmfs.cache.log import LogEntry
from realmfs.venus.archive import export
from realmfs.venus.core import Core
from realmfs.venus.volume import VolumeState

log = logging.getLogger(__name__)

EVERY = 600.0  # s
SHARE = 0.1
"""Of the free disk space that a copy may take."""


class Checkpoints:
    """Keeps the copies in `directory`, as VOLUME@REALM.tar."""

    def __init__(self, core: Core, directory: Path, every: float = EVERY) -> None:
        """`every` so many seconds, of changes that are older."""
        self._core = core
        self._directory = directory
        self._every = every
        self._written: dict[int, tuple[int, int, int]] = {}  # by volume: what of its log is in the copy
        self._too_large: set[int] = set()  # volumes for which that was said

    async def run(self) -> None:
        """Write and remove copies for ever."""
        while True:
            await trio.sleep(self._every)
            try:
                await self.once()
            except OSError as error:
                log.warning("no copy of the pending changes could be made: %s", error)

    async def once(self) -> None:
        """Bring the copies up to date. Raises OSError."""
        volumes = [self._core.volumes.by_key(key) for key in self._core.cache.log.volumes()]
        wanted = {self._file(volume) for volume in volumes}
        if self._directory.exists():
            for old in set(self._directory.glob("*.tar")) - wanted:
                old.unlink()
        for volume in volumes:
            await self._copy(volume)

    def _file(self, volume: VolumeState) -> Path:
        return self._directory / f"{volume.name.replace('/', '%')}@{volume.realm}.tar"

    async def _copy(self, volume: VolumeState) -> None:
        waiting = self._core.cache.log.summary(volume.key)
        if waiting.oldest > self._core.now() - self._every:
            return
        entries: list[LogEntry] = []
        for entry in self._core.cache.log.walk(volume.key, 200):
            entries.append(entry)
            if len(entries) % 100 == 0:
                await trio.lowlevel.checkpoint()
        if not entries:
            return
        stand = (entries[0].sequence, entries[-1].sequence, len(entries))
        if self._written.get(volume.key) == stand or not self._fits(volume, waiting.bytes):
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(volume)
        beside = file.with_suffix(".new")
        beside.unlink(missing_ok=True)
        await export(self._core, entries, beside)
        beside.replace(file)
        self._written[volume.key] = stand
        log.info("%d pending changes of %s are copied to %s", len(entries), volume.name, file)

    def _fits(self, volume: VolumeState, size: int) -> bool:
        """Tell whether there is ample room; say once when there is not."""
        above = next(one for one in (self._directory, *self._directory.parents) if one.exists())
        if size <= shutil.disk_usage(above).free * SHARE:
            self._too_large.discard(volume.key)
            return True
        if volume.key not in self._too_large:
            self._too_large.add(volume.key)
            log.info("the pending changes of %s are too large for a copy: %d bytes", volume.name, size)
        return False
