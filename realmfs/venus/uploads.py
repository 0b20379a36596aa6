"""Bringing the contents of a large store to the servers, beside everything else that is sent.

Contents go into containers that nobody but us knows of (reintegration.md §3). That takes no locks and changes
nothing, so the log goes on meanwhile, except for what depends on this store. Only when the servers have all
of it is the record frozen, given its store id, and executed, which takes a moment.

    waits ──► uploading ──► uploaded ──► frozen, executed
                │   ▲
                ▼   │ a server is back, or the daemon: goes on where each server says it is
            interrupted

The handles are kept with the record in the log. A newer store of the file cancels the record, and with it the
upload.
"""

import trio

from realmfs.cache.log import LogEntry
from realmfs.realms.handles import HandleStore
from realmfs.venus.conflicts import object_of
from realmfs.venus.core import Core
from realmfs.venus.events import ChangeSent, StoreProgress
from realmfs.venus.flight import Contents, full_record, open_contents, sent_as
from realmfs.venus.volume import VolumeState
from realmfs.vice.errors import CodaError, Code

PROGRESS = 0.5  # seconds between two events


class Upload:
    """One. `code` is None while it goes on; SUCCESS when all servers that are up have the contents."""

    def __init__(self, core: Core, volume: VolumeState, entry: LogEntry) -> None:
        """Open the contents. Raises ContentsLost."""
        self.entry = entry
        self.code: Code | None = None
        self._core = core
        self._volume = volume
        self._content = open_contents(core, entry)
        self.store = handle_store(core, volume, entry)
        self.store.source = Contents(self._content)
        self.store.progress = self._progress
        self._scope = trio.CancelScope()
        self._label = core.nodes.by_number(object_of(entry)).label
        self._started = self._told = trio.current_time()
        self._sent = 0

    async def run(self) -> None:
        """Send what the servers lack."""
        self._core.events.publish(
            ChangeSent("SendReintFragment", f"{self._volume.name}, {self._label} [{self._content.length}]")
        )
        code = Code.ETIMEDOUT
        try:
            with self._scope:
                code = (await self._core.group(self._volume).fill_handles(self.store)).code
        except CodaError as error:
            code = error.code
        finally:
            self._content.close()
            self.code = code
        self._tell()

    def cancel(self) -> None:
        """Stop: it is not wanted any more."""
        self._scope.cancel()

    def _progress(self, size: int) -> None:
        self._sent += size
        if trio.current_time() - self._told >= PROGRESS:
            self._tell()

    def _tell(self) -> None:
        self._told = trio.current_time()
        rate = self._sent / max(self._told - self._started, 1e-3) / max(len(self.store.containers), 1)
        event = StoreProgress(self._label, self.store.sent, self.store.source.size, rate)
        self._core.events.publish(event)


def handle_store(core: Core, volume: VolumeState, entry: LogEntry) -> HandleStore:
    """Return a large store as far as it was brought before; its source is still to be set."""
    store = HandleStore(full_record(core, entry).fid, _NOTHING, sent_as(entry))
    store.load(entry.handle)

    def keep() -> None:
        with core.cache.transaction():
            core.cache.log.set_handle(entry, store.dump() if store.containers else None)

    store.changed = keep
    return store


class _Nothing:
    size = 0

    def read(self, offset: int, count: int) -> bytes:
        """Return nothing."""
        return b""


_NOTHING = _Nothing()
