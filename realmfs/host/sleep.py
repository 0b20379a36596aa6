"""Sleep and wake-up of the machine, from logind over the system's D-Bus.

    we                                  logind
    Inhibit("sleep", ..., "delay")  ──►              a lock: sleep waits for us, some seconds at most
                                    ◄── PrepareForSleep(true)
    take leave of the servers
    close the lock                  ──►              the machine sleeps
                                    ◄── PrepareForSleep(false), after wake-up
    look for the servers; a new lock ──►

Without this a server would go on to hold promises for a client that cannot be called, and the next writer of
any file we have read would wait for us (vice.md §4.3). Where there is no bus or no logind (containers,
servers) one line in the log says so. That the machine *has* slept shows there from its clocks, of which one
stands still meanwhile: who was away unseen has to ask servers at once whether they still know him.
"""

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from jeepney import (
    DBusAddress,
    DBusErrorResponse,
    HeaderFields,
    MatchRule,
    Message,
    message_bus,
    new_method_call,
)
from jeepney.auth import AuthenticationError
from jeepney.fds import FileDescriptor
from jeepney.io.trio import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

log = logging.getLogger(__name__)

AGAIN = 60.0
"""Seconds until a bus that was lost is tried again."""
LOOK = 5.0
"""Seconds between two looks at the clocks."""
_ASLEEP_FOR = 1.0
_ANSWER_WITHIN = 5.0
_LOGIND = DBusAddress(
    "/org/freedesktop/login1", "org.freedesktop.login1", interface="org.freedesktop.login1.Manager"
)
_SIGNAL = MatchRule(
    type="signal", interface=_LOGIND.interface, member="PrepareForSleep", path=_LOGIND.object_path
)
_TROUBLE = (
    OSError,
    AuthenticationError,
    DBusErrorResponse,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)


def seconds_asleep() -> float:
    """Return for how long the machine has slept since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


async def watch_clocks(woken: Callable[[], None], asleep: Callable[[], float] = seconds_asleep) -> None:
    """Call `woken` each time when the machine has slept, at most LOOK seconds afterwards; for ever."""
    known = asleep()
    while True:
        await trio.sleep(LOOK)
        before, known = known, asleep()
        if known - before > _ASLEEP_FOR:
            log.info("the machine has slept for %.0f s", known - before)
            woken()


class SleepWatch:
    """Calls `fall_asleep` before the machine sleeps, which then waits for it, and `wake_up` afterwards."""

    def __init__(
        self, fall_asleep: Callable[[], Awaitable[None]], wake_up: Callable[[], None], bus: str = "SYSTEM"
    ) -> None:
        """`bus` is SYSTEM, SESSION or an address."""
        self._fall_asleep = fall_asleep
        self._wake_up = wake_up
        self._bus = bus

    async def run(self) -> None:
        """Watch for ever; without a bus or logind return at once."""
        while True:
            logind = None
            try:
                logind = await Logind.connect(self._bus)
                await self._follow(logind)
            except _TROUBLE as error:
                log.info("sleep of the machine is not noticed: %s", str(error) or repr(error))
            except Exception:  # of the library: whatever the bus sends must not end the daemon
                log.exception("sleep of the machine is not noticed")
            finally:
                if logind is not None:
                    logind.close()
            if logind is None:
                return
            self._wake_up()  # should it sleep now, nobody could tell us of its end
            await trio.sleep(AGAIN)

    async def _follow(self, logind: "Logind") -> None:
        while True:
            if await logind.next():
                log.info("the machine is about to sleep")
                try:
                    await self._fall_asleep()
                finally:
                    logind.let_sleep()
            else:
                log.info("the machine has woken up")
                self._wake_up()
                await logind.delay_sleep()


class Logind:
    """A connection to logind, holding a lock that delays sleep. One task uses it."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self._signals: deque[bool] = deque(maxlen=8)
        self._lock: FileDescriptor | None = None

    @classmethod
    async def connect(cls, bus: str) -> "Logind":
        """Connect, ask for the signals and take the lock. Raises what is in _TROUBLE."""
        with trio.fail_after(_ANSWER_WITHIN):
            made = cls(await open_dbus_connection(bus, enable_fds=True))
            try:
                await made._call(message_bus.AddMatch(_SIGNAL))
                await made.delay_sleep()
            except BaseException:
                made.close()
                raise
        return made

    def close(self) -> None:
        """Let go of everything."""
        self.let_sleep()
        self._connection.socket.close()

    async def delay_sleep(self) -> None:
        """Take the lock, unless it is held."""
        if self._lock is None:
            asked = ("sleep", "realmfs", "takes leave of file servers", "delay")
            with trio.fail_after(_ANSWER_WITHIN):
                (self._lock,) = await self._call(new_method_call(_LOGIND, "Inhibit", "ssss", asked))

    def let_sleep(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def next(self) -> bool:
        """Wait for the next signal: True, sleep begins; False, it has ended."""
        while not self._signals:
            self._take(await self._connection.receive())
        return self._signals.popleft()

    async def _call(self, message: Message) -> tuple[Any, ...]:
        serial = next(self._connection.outgoing_serial)
        await self._connection.send(message, serial=serial)
        while True:
            answer = await self._connection.receive()
            if answer.header.fields.get(HeaderFields.reply_serial) == serial:
                return tuple(unwrap_msg(answer))
            self._take(answer)

    def _take(self, message: Message) -> None:
        if _SIGNAL.matches(message):
            self._signals.append(bool(message.body[0]))
