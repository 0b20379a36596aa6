"""One mount from its making to its end.

pyfuse3 keeps its session in module globals: one mount per process, and never a second after the first.

Two properties of its main loop are met here. It waits until the device is readable and then reads with a
*blocking* read; if the process whose request was readable is killed in between, the read sleeps, and the
whole daemon with it, until the next request comes. A timer signal wakes it: the read then returns EINTR,
which the loop takes for "try again". (A thread could not help: the loop holds the interpreter's lock while
it reads.) And the loop ends when the kernel has closed the connection, that is after the last close of the
last open file, however early the mount was taken out of the tree.
"""

import logging
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pyfuse3
import trio

from realmfs.fuse import mounts
from realmfs.fuse.handler import Requests
from realmfs.fuse.mountpoint import MountError, obstacle, prepare
from realmfs.fuse.notify import Notifier
from realmfs.fuse.operations import Operations
from realmfs.venus.face import FileSystem

log = logging.getLogger(__name__)

_HEARTBEAT = 0.5  # seconds; what a request that vanishes under the loop can cost
_ANSWERS_WITHIN = 10.0
_READ_AHEAD = 1 << 20  # bytes, as much as the kernel asks for in one request
_WORKERS = 400  # requests served at once; each may wait for a server as long as patience lasts


@dataclass(frozen=True, slots=True)
class MountSettings:
    """Where and how to mount; `deadline` in seconds is where a stuck request is given up (see handler)."""

    directory: Path
    allow_other: bool = False
    create_directory: bool = False
    deadline: float = 20.0


class Session:
    """The kernel's connection. `run` mounts, serves, and returns when the kernel has let go."""

    def __init__(self, settings: MountSettings) -> None:
        """Nothing is mounted yet; `notifier` may be used from now on."""
        self.directory = settings.directory
        self.requests = Requests(settings.deadline)
        self.notifier = Notifier(_tell_inode, _tell_entry)
        self.minor: int | None = None
        self._settings = settings

    async def run(
        self, files: FileSystem, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Mount and serve until unmounted. Raises MountError if the mount cannot be made."""
        reason = obstacle()
        if reason is not None:
            raise MountError(reason)
        self.directory = await prepare(self._settings.directory, create=self._settings.create_directory)
        self._mount(files)
        try:
            with _heartbeat():
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.notifier.run)
                    nursery.start_soon(self._serve, nursery.cancel_scope)
                    await self._answers()
                    if self.minor is not None and not mounts.read_ahead(self.minor, _READ_AHEAD):
                        log.debug("the kernel keeps to its own read-ahead")
                    task_status.started()
        finally:
            pyfuse3.close(unmount=mounts.find(self.directory) is not None)

    @property
    def mounted(self) -> bool:
        """Whether the mount is in the tree."""
        return mounts.find(self.directory) is not None

    async def detach(self) -> str | None:
        """Take the mount out of the tree; `run` returns after the last close. Returns why it failed."""
        if not self.mounted:
            return None
        return await mounts.detach(self.directory)

    def abort(self) -> None:
        """Cut the connection: whatever waits or is open fails, and `run` returns."""
        if self.minor is None or not mounts.abort(self.minor):
            pyfuse3.terminate()

    def answered(self) -> Mapping[str, int]:
        """Return how many requests of each operation were answered."""
        return self.requests.answered

    def under_way(self) -> list[tuple[str, float]]:
        """Return operation and age in seconds of each request that waits, the oldest first."""
        now = trio.current_time()
        return [(request.operation, now - request.since) for request in self.requests.running()]

    def be_patient(self, uid: int, patient: bool) -> None:
        """Let a user's requests wait for ever rather than fail because nobody answers, or no more."""
        (self.requests.patient.add if patient else self.requests.patient.discard)(uid)

    def is_patient(self, uid: int) -> bool:
        """Tell whether they do."""
        return uid in self.requests.patient

    def open_files(self) -> int:
        """Return how many files and directories are open on the mount."""
        done = self.requests.succeeded
        return sum(done[name] for name in ("open", "create", "opendir")) - sum(
            done[name] for name in ("release", "releasedir")
        )

    def _mount(self, files: FileSystem) -> None:
        options = {"fsname=realmfs", "subtype=realmfs"}
        if self._settings.allow_other:
            options.add("allow_other")
        try:
            owner = None if self._settings.allow_other else os.geteuid()
            operations = Operations(files, self.requests, owner=owner)
            pyfuse3.init(operations, str(self.directory), options)
        except RuntimeError as error:
            raise MountError(
                f"the kernel refused the mount on {self.directory} ({error}). "
                "If --allow-other was given, /etc/fuse.conf must hold the line user_allow_other"
            ) from None
        mount = mounts.find(self.directory)
        self.minor = mount.minor if mount else None
        log.info("mounted on %s", self.directory)

    async def _serve(self, scope: trio.CancelScope) -> None:
        await pyfuse3.main(max_tasks=_WORKERS)
        log.info("the kernel has let go of %s", self.directory)
        scope.cancel()

    async def _answers(self) -> None:
        """Ask our own mount once, through the kernel: then it works."""
        try:
            with trio.fail_after(_ANSWERS_WITHIN):
                await trio.to_thread.run_sync(os.stat, self.directory, abandon_on_cancel=True)
        except (trio.TooSlowError, OSError) as error:
            raise MountError(f"the mount on {self.directory} does not answer: {error!r}") from error


def _tell_inode(ino: int, attr_only: bool) -> None:
    pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only)


def _tell_entry(parent: int, name: bytes) -> None:
    pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))


@contextmanager
def _heartbeat() -> Iterator[None]:
    """Interrupt blocking reads of the main thread now and then; see above."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    former = signal.signal(signal.SIGALRM, ignore)
    signal.setitimer(signal.ITIMER_REAL, _HEARTBEAT, _HEARTBEAT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
