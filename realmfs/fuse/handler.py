"""What every request of the kernel passes through: deadline, error mapping, trace.

pyfuse3 lets one exception out of a handler, FUSEError; any other ends its main loop and with it the mount.
So a handler here ends in an answer or an errno, whatever happens below:

    CodaError          its errno deadline passed    ETIMEDOUT, and an error in the log: the cache manager
    keeps its own patience, so this is a bug anything else      EIO, with the traceback in the log

A handler that moves data has no deadline of its own here: it may go on as long as data advance, which only
the cache manager sees. Nor has one that never waits. Cancellation passes through: it comes when the whole
session ends.
"""

import errno
import functools
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from realmfs.vice.errors import CodaError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_AGAIN = 1.0  # s between the tries of who would rather wait
_LARGEST_ERRNO = 133  # EHWPOISON, the last of Linux; libfuse refuses what is far above


class Running(NamedTuple):
    """A request that has no answer yet: the operation, and the trio time at which it came."""

    operation: str
    since: float


class Requests:
    """The requests under way and what became of the finished ones; `status` shows both."""

    def __init__(self, deadline: float) -> None:
        """`deadline` in seconds is where a request that does not move data is given up."""
        self.deadline = deadline
        self.patient: set[int] = set()
        """Local users who would rather wait than be told that nobody answers (see `waits`)."""
        self.answered: Counter[str] = Counter()
        self.succeeded: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._running: dict[int, Running] = {}
        self._serial = itertools.count()

    def running(self) -> list[Running]:
        """Return the requests that wait for an answer, the oldest first."""
        return list(self._running.values())

    def waits(self, arguments: Sequence[object]) -> bool:
        """Tell whether a request that timed out is tried again for ever, by the wish of who makes it.

        It has not been applied. Requests about an open file do not say whose they are, and are not.
        """
        if not self.patient:
            return False
        return any(isinstance(one, pyfuse3.RequestContext) and one.uid in self.patient for one in arguments)

    def begin(self, operation: str) -> int:
        """Note that a request came; returns its ticket."""
        ticket = next(self._serial)
        self._running[ticket] = Running(operation, trio.current_time())
        return ticket

    def end(self, ticket: int, number: int) -> None:
        """Note that the request was answered with errno `number`, 0 for success."""
        request = self._running.pop(ticket)
        self.answered[request.operation] += 1
        if number:
            self.failed[errno.errorcode.get(number, str(number))] += 1
        else:
            self.succeeded[request.operation] += 1
        if log.isEnabledFor(logging.DEBUG):
            spent = (trio.current_time() - request.since) * 1000
            outcome = errno.errorcode.get(number, str(number)) if number else "ok"
            log.debug("%s: %s after %.1f ms", request.operation, outcome, spent)


class Tracked(Protocol):
    """An object whose methods are handlers."""

    requests: Requests


S = TypeVar("S", bound=Tracked)
Handler = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def errno_of(error: BaseException) -> int | None:
    """Return the errno that `error` carries, also through groups of one; None for a defect."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, CodaError) and 0 < error.errno <= _LARGEST_ERRNO:
        return error.errno
    return error.errno if isinstance(error, pyfuse3.FUSEError) else None


def handler(*, deadline: bool = True) -> Callable[[Handler[S, P, R]], Handler[S, P, R]]:
    """Turn an async method into a handler that lets out nothing but FUSEError (and cancellation)."""

    def decorate(method: Handler[S, P, R]) -> Handler[S, P, R]:
        operation = method.__name__

        @functools.wraps(method)
        async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            requests = self.requests
            ticket = requests.begin(operation)
            number = errno.EINTR  # what is counted if the session ends under us
            try:
                while True:
                    try:
                        if not deadline:
                            answer = await method(self, *args, **kwargs)
                            number = 0
                            return answer
                        # A bare scope: `fail_after` around it would cost a request a tenth of its time.
                        with trio.CancelScope(deadline=trio.current_time() + requests.deadline):
                            answer = await method(self, *args, **kwargs)
                            number = 0
                            return answer
                        late = requests.deadline
                        log.error("%s took longer than %.0f s; answered with ETIMEDOUT", operation, late)
                        number = errno.ETIMEDOUT
                    except Exception as error:
                        number = errno_of(error) or 0
                        if not number:
                            log.exception("%s failed; answered with EIO", operation)
                            number = errno.EIO
                    if number != errno.ETIMEDOUT or not requests.waits(args):
                        break
                    await trio.sleep(_AGAIN)
            finally:
                requests.end(ticket, number)
            raise pyfuse3.FUSEError(number)

        return guarded

    return decorate
