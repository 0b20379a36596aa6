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
            "writeback": Method(messages.volumes.SetWriteback, self._writeback, owner_only=True),
        }

    async def _send(self, params: messages.Send) -> Sequence[messages.Unsent]:
        """Send what waits, whatever its age; tell what is left of it, and why."""
        chosen = [volume for volume in self._waiting() if params.volume in (None, _name(volume))]
        if not chosen and params.volume is not None:
            self._key(params.volume)
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

    def _key(self, name: str) -> int:
        """Return the key of `volume@realm`. Raises ControlError."""
        for row in self._core.cache.volumes.all():
            if f"{row.name}@{self._core.cache.realms.get(row.realm).name}" == name:
                return row.key
        raise ControlError(FAILED, f"there is no volume {name} here. See `realmfs volumes`")

    def _left(self, volume: VolumeState) -> messages.Unsent:
        left = self._core.cache.log.summary(volume.key)
        return messages.Unsent(volume.name, volume.realm, left.records, left.bytes, volume.waiting_for)

    async def _writeback(self, params: messages.volumes.SetWriteback) -> messages.volumes.Writeback:
        """Set what is given; return what holds now."""
        for seconds in (params.age, params.time):
            if seconds is not None and not 0 <= seconds <= 1e6:
                raise ControlError(FAILED, f"{seconds} s is not between 0 and 1 000 000 s")
        policies = self._reintegrator.policies
        key = None if params.volume is None else self._key(params.volume)
        if params.default:
            policies.use_default(key)
        if params.age is not None or params.time is not None:
            policies.set(params.age, params.time, key)
        if params.paused is not None:
            policies.pause(params.paused)
        self._reintegrator.wake_all()
        holds = policies.default if key is None else policies.of(key)
        own = [_name(self._core.volumes.by_key(one)) for one in policies.with_own]
        return messages.volumes.Writeback(holds.age, holds.time, params.volume or "", policies.paused, own)


def _name(volume: VolumeState) -> str:
    return f"{volume.name}@{volume.realm}"
