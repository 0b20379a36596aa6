"""When pending changes go to the servers: what holds for all volumes, and for single ones."""

from dataclasses import dataclass

from realmfs.venus.core import Core


@dataclass(slots=True)
class Policy:
    """`age`: seconds records wait at least; `time`: seconds of transfer in one batch.

    With time 0 changes are synchronous, as by `cfs strong`: the call that makes one waits until the servers
    have it, as long as its patience allows.
    """

    age: float
    time: float

    @property
    def synchronous(self) -> bool:
        """Whether calls wait until the servers have what they change."""
        return self.time == 0


class Policies:
    """Those of all volumes; they outlast a restart. While `paused` nothing goes by itself."""

    def __init__(self, core: Core) -> None:
        self._cache = core.cache
        kept = core.cache.log.writeback()
        age, time, paused = kept or (core.settings.send_age, core.settings.send_time, False)
        self.default = Policy(age, time)
        self.paused = paused
        self._own = {key: Policy(*own) for key, own in core.cache.log.own_writebacks().items()}

    def of(self, volume: int) -> Policy:
        """Return what holds for the volume of that key."""
        return self._own.get(volume, self.default)

    @property
    def with_own(self) -> list[int]:
        """The keys of the volumes with a policy of their own."""
        return sorted(self._own)

    def set(self, age: float | None, time: float | None, volume: int | None = None) -> None:
        """Set what is given, for one volume or as the default."""
        holds = self.default if volume is None else self.of(volume)
        policy = Policy(holds.age if age is None else age, holds.time if time is None else time)
        if volume is None:
            self.default = policy
        else:
            self._own[volume] = policy
        with self._cache.transaction():
            if volume is None:
                self._cache.log.set_writeback(policy.age, policy.time, self.paused)
            else:
                self._cache.log.set_own_writeback(volume, policy.age, policy.time)

    def use_default(self, volume: int | None) -> None:
        """Let the default hold for a volume again; None: for all."""
        with self._cache.transaction():
            for key in [*self._own] if volume is None else [volume]:
                self._own.pop(key, None)
                self._cache.log.forget_own_writeback(key)

    def pause(self, paused: bool) -> None:
        """Send nothing by itself from now on, or go on."""
        self.paused = paused
        with self._cache.transaction():
            self._cache.log.set_writeback(self.default.age, self.default.time, paused)
