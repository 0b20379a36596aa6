"""What is known of the kernel's requests: those that wait for an answer, and what became of the others."""

import errno
from collections import Counter
from dataclasses import dataclass

from realmfs.vice.errors import CodaError

_LARGEST_ERRNO = 133  # EHWPOISON, the last of Linux


@dataclass(frozen=True, slots=True)
class Running:
    """A request that has no answer yet: the operation, and the trio time at which it came."""

    operation: str
    since: float


class Requests:
    """Counts by operation; `deadline` in seconds is where a request that does not move data is given up."""

    def __init__(self, deadline: float) -> None:
        """Nothing has been asked yet."""
        self.deadline = deadline
        self.answered: Counter[str] = Counter()
        self.succeeded: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.waiting: dict[int, Running] = {}

    def running(self) -> list[Running]:
        """Return the requests that wait for an answer, the oldest first."""
        return list(self.waiting.values())

    def count(self, operation: str, number: int) -> None:
        """Note that a request was answered with errno `number`, 0 for success."""
        self.answered[operation] += 1
        if number:
            self.failed[errno.errorcode.get(number, str(number))] += 1
        else:
            self.succeeded[operation] += 1


def errno_of(error: BaseException) -> int | None:
    """Return the errno that `error` carries, also through groups of one; None for a defect."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, CodaError | Refusal) and 0 < error.errno <= _LARGEST_ERRNO:
        return error.errno
    return None


class Refusal(Exception):  # noqa: N818  # an answer, not a failure
    """A request is answered with this errno, by the layer itself."""

    def __init__(self, number: int) -> None:
        """Take the errno."""
        super().__init__(errno.errorcode.get(number, str(number)))
        self.errno = number
