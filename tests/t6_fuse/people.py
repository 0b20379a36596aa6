"""Local users of one mount: what each can do there is tried in processes of their own, forked and demoted."""

import ctypes
import errno
import json
import os
import struct
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from realmfs.control.client import Client
from realmfs.control.protocol import ControlError

Attempt = Callable[[], object]
OK = "ok"


@dataclass(frozen=True)
class Person:
    """A local user by number; needs root to become him."""

    uid: int
    socket: Path

    def tries(self, attempts: Mapping[str, Attempt], before: Attempt | None = None) -> dict[str, Any]:
        """Make the attempts, each whatever the others came to; `before` is done as root in that process.

        The result of each is "ok" if it returned None, else what it returned, or the name of its errno.
        """

        def work() -> dict[str, Any]:
            if before is not None:
                before()
            become(self.uid)
            return {name: outcome(attempt) for name, attempt in attempts.items()}

        found: dict[str, Any] = in_child(work)
        return found

    def does(self, attempt: Attempt) -> Any:
        """Make one attempt."""
        return self.tries({"it": attempt})["it"]

    def calls(self, method: str, **params: Any) -> Any:
        """Call the daemon; what it refuses is returned as the name of an errno."""

        def call() -> Any:
            with Client(self.socket) as client:
                try:
                    return client.call(method, **params)
                except ControlError as error:
                    raise OSError(error.number or errno.EIO, error.text) from None

        return self.does(call)


def become(uid: int) -> None:
    """Be that user for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def be_for_now(uid: int) -> None:
    """Be that user, with root to come back to."""
    os.setresuid(uid, uid, 0)


def outcome(attempt: Attempt) -> Any:
    """Return what an attempt came to."""
    try:
        result = attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return OK if result is None else result


def in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked process, by way of JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run(work, writing)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found = json.loads(text)
    assert "failed" not in found, found["failed"]
    return found["result"]


def _run(work: Callable[[], Any], writing: int) -> NoReturn:
    try:
        found = {"result": work()}
    except BaseException:
        found = {"failed": traceback.format_exc()}
    with os.fdopen(writing, "w") as answer:
        json.dump(found, answer)
    os._exit(0)


def names_heard(directory: Path, doing: Attempt) -> list[str]:
    """Watch a directory with inotify(7) while `doing`; return the names that events told."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), 0xFFF) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    doing()
    try:
        data = os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return []
    names, head = set(), struct.Struct("iIII")
    while data:
        length = head.unpack_from(data)[3]
        names.add(os.fsdecode(data[head.size : head.size + length].rstrip(b"\0")))
        data = data[head.size + length :]
    return sorted(names - {""})
