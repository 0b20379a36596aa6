"""All senders (sender.py): one per volume with waiting records, and what concerns all of them."""

import trio

from realmfs.rpc2.transfer import Source
from realmfs.venus.commit import Committer
from realmfs.venus.core import Core
from realmfs.venus.fids import Fids
from realmfs.venus.sender import Sender
from realmfs.venus.volume import VolumeState
from realmfs.venus.writeback import Policies
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.types import Fid

PUSH_MARGIN = 0.25  # s


class Reintegrator:
    """All senders. A volume gets one with its first record and keeps it."""

    def __init__(self, core: Core, fids: Fids, committer: Committer) -> None:
        self._core = core
        self._fids = fids
        self._committer = committer
        self._senders: dict[int, Sender] = {}
        self.policies = Policies(core)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what waits, for ever."""
        async with trio.open_nursery() as self._nursery:
            for key in self._core.cache.log.volumes():
                self.wake(self._core.volumes.by_key(key))
            task_status.started()
            await trio.sleep_forever()

    def logged(self, volume: VolumeState) -> None:
        """Something was logged or closed: look at the volume's log, unless it is backing off."""
        self.wake(volume, urgent=False)

    def wake(self, volume: VolumeState, *, urgent: bool = True) -> None:
        """Look at a volume's log: something has come up, or a person wants it."""
        sender = self._senders.get(volume.key)
        if sender is None:
            if self._nursery is None or not self._core.cache.log.summary(volume.key).records:
                return
            sender = self._senders[volume.key] = Sender(
                self._core, self._fids, self._committer, volume, self.policies
            )
            self._nursery.start_soon(sender.run)
        sender.wake(urgent=urgent)

    def wake_all(self) -> None:
        """Look at all logs: a token has come, or we are on line again."""
        for volume in self._core.volumes:
            self.wake(volume)

    async def send(self, volume: VolumeState, *, retry: bool) -> None:
        """Send all that waits in a volume whatever its age; returns when it is done or nothing more can go.

        `retry`: what servers have refused, too.
        """
        waiting = self._core.cache.log
        if retry:
            with self._core.cache.transaction():
                waiting.unblock(volume.key)
        self.wake(volume)
        sender = self._senders.get(volume.key)
        if sender is not None:
            await sender.send_all()

    async def push(self, volume: VolumeState) -> None:
        """If changes of the volume are synchronous, return when servers have them or cannot be told now.

        It ends before the call around it must: what that has changed is done, and must not look failed.
        """
        policies = self.policies
        if policies.of(volume.key).synchronous and volume.reachable and not policies.paused:
            with trio.move_on_at(trio.current_effective_deadline() - PUSH_MARGIN):
                await self.send(volume, retry=False)

    def source(self, volume: VolumeState, fid: Fid) -> Source:
        """Return the frozen contents that a server fetches back. Raises CodaError ENOENT."""
        sender = self._senders.get(volume.key)
        if sender is None:
            raise CodaError(Code.ENOENT, f"nothing of {volume.name} is on its way")
        return sender.source(fid)
