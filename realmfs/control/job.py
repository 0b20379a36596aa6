"""An order of the reference's tools under way: what came with it, and how our methods are called for it."""

import errno
import os
from pathlib import Path
from typing import Any

from realmfs.control.pioctl import Order
from realmfs.control.protocol import Request
from realmfs.control.service import Session
from realmfs.venus.face import Caller

_OUT_FILE = 1024


class Job:
    """One order under way."""

    def __init__(self, session: Session, caller: Caller, order: Order) -> None:
        self._session = session
        self.caller = caller
        self.path = order.path
        self.follow = order.follow
        self.data = order.data

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method; its result as plain values. Raises ControlError."""
        result, _ = await self._session.call(Request(None, method, params))
        return result

    async def pages(self, method: str, *, cursor: str | None = None, **params: Any) -> list[Any]:
        """Return all that a method lists. Raises ControlError."""
        entries: list[Any] = []
        while True:
            page = await self.call(method, cursor=cursor, **params)
            entries += page.entries
            cursor = page.cursor
            if cursor is None:
                return entries

    @property
    def text(self) -> str:
        """The in-bytes as a C string."""
        return self.data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def write_list(job: Job, lines: list[str]) -> None:
    """Write a list where the tool wants it. Raises OSError."""
    path = Path(os.fsdecode(job.data[:_OUT_FILE].split(b"\0", 1)[0]))
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid not in (0, job.caller.uid):
            raise PermissionError(errno.EACCES, "the list would go into another user's file")
        os.fchown(descriptor, job.caller.uid, -1)
        file.writelines(lines)
