"""What goes wrong is told with what to do, and an exit status of its own."""

import errno
import os

import pytest

from realmfs.cli.failure import Exit, failure_of
from realmfs.control.client import NoDaemonError
from realmfs.control.protocol import FAILED, ControlError, Kind
from realmfs.host.settings import ConfigError


@pytest.mark.parametrize(
    ("error", "status", "advice"),
    [
        (NoDaemonError("no daemon. Start one: realmfs mount"), Exit.NO_DAEMON, "realmfs mount"),
        (ConfigError("wrong"), Exit.USAGE, "wrong"),
        (ControlError.of_errno(errno.ETIMEDOUT, "/f: timed out"), Exit.UNREACHABLE, "servers --check"),
        (ControlError.of_errno(errno.EUCLEAN, "/f: conflict"), Exit.CONFLICT, "realmfs conflicts"),
        (ControlError(FAILED, "no", kind=Kind.UNAUTHENTICATED), Exit.UNAUTHENTICATED, "realmfs login"),
        (ControlError.of_errno(errno.EACCES, "/f: Permission denied"), Exit.FAILED, "realmfs acl get"),
        (ControlError.of_errno(errno.EDQUOT, "/f: Disk quota exceeded"), Exit.FAILED, "realmfs quota"),
        (ControlError.of_errno(errno.ENOSPC, "/f: No space left"), Exit.FAILED, "cache usage"),
        (ControlError.of_errno(errno.EIO, "/f: Input/output error"), Exit.FAILED, "log_file"),
    ],
)
def test_each_failure_says_what_to_do(error: Exception, status: Exit, advice: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.exit_code == status
    assert advice in failure.message


def test_who_says_it_himself_is_not_doubled() -> None:
    text = "3 files are open. Close some first"
    failure = failure_of(ControlError.of_errno(errno.EMFILE, text))
    assert failure is not None
    assert failure.message == text


def test_a_file_of_this_machine_is_named_and_a_defect_keeps_its_traceback() -> None:
    failure = failure_of(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/etc/x"))
    assert failure is not None
    assert failure.message.startswith("/etc/x: Permission denied. Choose a place")
    full = failure_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert full is not None
    assert "Make room" in full.message
    assert failure_of(BrokenPipeError(errno.EPIPE, "")) is None, "click ends quietly"
    assert failure_of(KeyError("defect")) is None
