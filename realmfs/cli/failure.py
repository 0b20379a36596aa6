"""Exit statuses, and what becomes of errors: a line that says what happened, why, and what to do."""

from enum import IntEnum

import click

from realmfs.control.client import NoDaemonError
from realmfs.control.protocol import ControlError, Kind
from realmfs.host.settings import ConfigError


class Exit(IntEnum):
    """The exit statuses of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    UNREACHABLE = 4
    UNAUTHENTICATED = 5
    CONFLICT = 6


_STATUS = {
    Kind.FAILED: Exit.FAILED,
    Kind.UNREACHABLE: Exit.UNREACHABLE,
    Kind.UNAUTHENTICATED: Exit.UNAUTHENTICATED,
    Kind.CONFLICT: Exit.CONFLICT,
    Kind.VERSION: Exit.FAILED,
}
_ADVICE = {
    Exit.UNREACHABLE: "No server answers: see `realmfs servers --check`",
    Exit.UNAUTHENTICATED: "Log in: realmfs login",
    Exit.CONFLICT: "See `realmfs conflicts`",
}


class Failure(click.ClickException):
    """An error for the user, printed as one line on stderr."""

    def __init__(self, text: str, status: Exit = Exit.FAILED) -> None:
        """`text` says what happened, why, and what to do."""
        super().__init__(text)
        self.exit_code = int(status)  # type: ignore[misc]  # an instance has its own


def failure_of(error: Exception) -> Failure | None:
    """Return the failure that an exception means; None for a defect, which deserves its traceback."""
    if isinstance(error, NoDaemonError):
        return Failure(str(error), Exit.NO_DAEMON)
    if isinstance(error, ConfigError):
        return Failure(str(error), Exit.USAGE)
    if isinstance(error, ControlError):
        status = _STATUS[error.kind]
        advice = _ADVICE.get(status)
        return Failure(f"{error.text}. {advice}" if advice else error.text, status)
    if isinstance(error, OSError) and error.filename is not None:
        return Failure(f"{error.filename}: {error.strerror}")
    return None
