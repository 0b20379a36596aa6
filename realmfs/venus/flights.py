"""One piece of work per key, however many wait for it.

Work that asks the network runs in a nursery of its own, detached from whoever wanted it first: when a waiter
loses patience the work goes on and serves the next request. Each waiter gets the same answer or the same
error.

There are no locks anywhere in this ring. Whoever needs an object in a certain state calls

    while not state_is_there():
        await flights.join(key, bring_it_about)

and then acts without a checkpoint: between the last test and the act no other task runs (trio switches only
at `await`). So nothing is held while waiting, and nothing can deadlock.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import trio

from realmfs.venus.errand import waited_for
from realmfs.vice.errors import CodaError, Code

log = logging.getLogger(__name__)


class Flights:
    """The work in progress, by key. Bounded by the number of keys wanted at once."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._flying: dict[Hashable, Flight] = {}
        self.wanted = 0
        """How many wait for any of it who are not on an errand (errand.py)."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry the work until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def flying(self, key: Hashable) -> bool:
        """Tell whether work under that key is going on."""
        return key in self._flying

    async def join(self, key: Hashable, work: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for the work of that key, starting it if nobody has; return or raise what it did."""
        return await self.land(self.start(key, work))

    async def land(self, flight: "Flight") -> Any:
        """Wait for work that was started; return or raise what it did."""
        await self._landed(flight)
        if flight.error is not None:
            # Each waiter raises an error object of its own: a shared one would collect their tracebacks.
            raise CodaError(flight.error.number, flight.error.text) from None
        return flight.value

    async def wait(self, key: Hashable) -> None:
        """Wait until the work of that key, if any is going on, has ended; how it ended is not told."""
        flight = self._flying.get(key)
        if flight is not None:
            await self._landed(flight)

    async def _landed(self, flight: "Flight") -> None:
        wanted = waited_for()
        if wanted and flight.hurry is not None:
            flight.hurry()
        self.wanted += wanted
        try:
            await flight.landed.wait()
        finally:
            self.wanted -= wanted

    def start(self, key: Hashable, work: Callable[[], Awaitable[Any]], user: int | None = None) -> "Flight":
        """Begin the work of that key without waiting; if it is under way already, leave it.

        `user`: on whose behalf, if another one's outcome could be different.
        """
        flight = self._flying.get(key)
        return self.start_all((key,), work, user) if flight is None else flight

    def start_all(
        self, keys: Sequence[Hashable], work: Callable[[], Awaitable[Any]], user: int | None = None
    ) -> "Flight":
        """Begin work that is of several keys; none of them may be flying."""
        if self._nursery is None:
            raise CodaError(Code.ETIMEDOUT, "the cache manager is not running")
        flight = Flight(user)
        self._flying.update(dict.fromkeys(keys, flight))
        self._nursery.start_soon(self._fly, keys, flight, work, name=f"flight {keys[0]}")
        return flight

    async def _fly(
        self, keys: Sequence[Hashable], flight: "Flight", work: Callable[[], Awaitable[Any]]
    ) -> None:
        try:
            flight.value = await work()
        except CodaError as error:
            flight.error = error
        except OSError as error:
            flight.error = CodaError.from_oserror(error)
        except Exception:
            log.exception("work for %s failed", keys[0])
            flight.error = CodaError(Code.EIO, "internal error")
        except BaseException:
            flight.error = CodaError(Code.ETIMEDOUT, "abandoned")
            raise
        finally:
            for key in keys:
                del self._flying[key]
            flight.landed.set()


class Flight:
    """Work under way."""

    __slots__ = ("error", "hurry", "landed", "user", "value")

    def __init__(self, user: int | None) -> None:
        self.user = user
        self.landed = trio.Event()
        self.hurry: Callable[[], None] | None = None
        """Called when somebody begins to wait for what was begun on an errand."""
        self.value: Any = None
        self.error: CodaError | None = None
