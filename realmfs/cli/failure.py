"""Exit statuses, and what becomes of errors: a line that says what happened, why, and what to do."""

import errno
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


_BY_ERRNO = {
    errno.EACCES: "See what you may do there (realmfs acl get), and who you are there (realmfs tokens)",
    errno.EDQUOT: "The volume is full: see `realmfs quota`",
    errno.ENOSPC: "See what takes the room: `realmfs cache usage` and `realmfs changes`",
    errno.EROFS: "See `realmfs status` and `realmfs doctor`",
    errno.EIO: "The daemon's log has the reason: `realmfs config show` names it (log_file)",
    errno.EBUSY: "It is in use. Try again when it is not",
    errno.EMFILE: "It has been changed here, or is open. See `realmfs changes`",
    errno.EUSERS: "End one of those who watch first",
}
"""What to do about errors whose text says only what happened."""


_OF_OURS = {
    errno.ENOENT: "Is the path right?",
    errno.EACCES: "Choose a place where you may do that, or ask who owns it",
    errno.EROFS: "Choose a place that can be written",
    errno.ENOSPC: "The disk is full. Make room on it, or choose another place",
    errno.EDQUOT: "Your quota on that disk is used up. Make room, or choose another place",
}
"""What to do about errors of files outside the tree."""


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
        advice = _ADVICE.get(status) or _BY_ERRNO.get(error.number)
        if not advice or (error.kind is Kind.FAILED and ". " in error.text):
            return Failure(error.text, status)  # it says itself what to do
        return Failure(f"{error.text}. {advice}", status)
    if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE):  # click ends quietly then
        place = "" if error.filename is None else f"{error.filename}: "
        advice = _OF_OURS.get(error.errno, "")
        return Failure(f"{place}{error.strerror}{advice and '. '}{advice}")
    return None
