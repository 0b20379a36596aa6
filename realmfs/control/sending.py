"""When pending changes are sent: now, or as `writeback` says."""

import functools
from collections.abc import Sequence

import trio

from realmfs.control import messages
from realmfs.control.protocol import FAILED, ControlError
from realmfs.control.service import Method
from realmfs.venus.core import Core
from realmfs.venus.reintegrate import Reintegrator
from realmfs.venus.volume import VolumeState

_LONGEST = 3600.0  # seconds that a caller may wait
_ROUNDS = 3  # of sending, and of looking for servers


class Sending:
    """The methods `changes.send` and `writeback`, for the owner of the daemon."""

    def __init__(self, core: Core, reintegrator: Reintegrator) -> None:
        self._core = core
        self._reintegrator = reintegrator

    def methods(self) -> dict[str, Method]:
        """Return them by name."""
        return {
            "changes.send": Method(messages.Send, self._send, owner_only=True),
            "writeback": Method(messages.Writeback, self._writeback, owner_only=True),
        }

    async def _send(self, params: messages.Send) -> Sequence[messages.Unsent]:
        """Send what waits, whatever its age; tell what is left of it, and why."""
        chosen = [volume for volume in self._waiting() if params.volume in (None, _name(volume))]
        if not chosen and params.volume is not None and not self._known(params.volume):
            raise ControlError(FAILED, f"there is no volume {params.volume} here. See `realmfs volumes`")
        with trio.move_on_after(max(0.0, min(params.within, _LONGEST))):
            for _ in range(_ROUNDS):
                await self._send_all(chosen, retry=params.retry)
                if all(volume.reachable or not self._left(volume).pending for volume in chosen):
                    break
                if self._core.volumes.realms is not None:
                    await self._core.volumes.realms.check()  # a person knows more than our probes
        return [left for volume in chosen if (left := self._left(volume)).pending]

    async def _send_all(self, volumes: Sequence[VolumeState], *, retry: bool) -> None:
        async with trio.open_nursery() as nursery:
            for volume in volumes:
                nursery.start_soon(functools.partial(self._reintegrator.send, volume, retry=retry))

    def _waiting(self) -> list[VolumeState]:
        return [self._core.volumes.by_key(key) for key in self._core.cache.log.volumes()]

    def _known(self, name: str) -> bool:
        rows = self._core.cache.volumes.all()
        return any(f"{row.name}@{self._core.cache.realms.get(row.realm).name}" == name for row in rows)

    def _left(self, volume: VolumeState) -> messages.Unsent:
        left = self._core.cache.log.summary(volume.key)
        return messages.Unsent(volume.name, volume.realm, left.records, left.bytes, volume.waiting_for)

    async def _writeback(self, params: messages.Writeback) -> messages.Writeback:
        """Set what is given; return what holds now."""
        for seconds in (params.age, params.time):
            if seconds is not None and not 0 <= seconds <= 1e6:
                raise ControlError(FAILED, f"{seconds} s is not between 0 and 1 000 000 s")
        now = self._reintegrator.set_writeback(params.age, params.time)
        return messages.Writeback(now.age, now.time)


def _name(volume: VolumeState) -> str:
    return f"{volume.name}@{volume.realm}"
