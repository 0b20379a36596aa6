"""One mount from its making to its end.

The end comes when the kernel has let go of the connection: after the last close of the last open file,
however early the mount was taken out of the tree.
"""

import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from realmfs.fuse import mounts
from realmfs.fuse.device import Device, mount
from realmfs.fuse.mountpoint import MountError, obstacle, prepare
from realmfs.fuse.notify import Notifier
from realmfs.fuse.operations import Operations
from realmfs.fuse.requests import Requests
from realmfs.fuse.workers import Workers
from realmfs.venus.face import FileSystem

log = logging.getLogger(__name__)

_ANSWERS_WITHIN = 10.0


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
        self.notifier = Notifier(self._tell_inode, self._tell_entry)
        self.minor: int | None = None
        self._settings = settings
        self._device: Device | None = None
        self._serving = trio.CancelScope()

    async def run(
        self, files: FileSystem, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Mount and serve until unmounted. Raises MountError if the mount cannot be made."""
        reason = obstacle()
        if reason is not None:
            raise MountError(reason)
        self.directory = await prepare(self._settings.directory, create=self._settings.create_directory)
        device = self._device = await self._mount()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.notifier.run)
                nursery.start_soon(self._serve, device, files, nursery.cancel_scope)
                await self._answers()
                task_status.started()
        finally:
            self._device = None
            device.close()
            if mounts.find(self.directory) is not None:
                with trio.CancelScope(shield=True):  # bounded by itself
                    await mounts.detach(self.directory)

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
            self._serving.cancel()

    def answered(self) -> Mapping[str, int]:
        """Return how many requests of each operation were answered."""
        return self.requests.answered

    def under_way(self) -> list[tuple[str, float]]:
        """Return operation and age in seconds of each request that waits, the oldest first."""
        now = trio.current_time()
        return [(request.operation, now - request.since) for request in self.requests.running()]

    def open_files(self) -> int:
        """Return how many files and directories are open on the mount."""
        done = self.requests.succeeded
        return sum(done[name] for name in ("open", "create", "opendir")) - sum(
            done[name] for name in ("release", "releasedir")
        )

    async def _mount(self) -> Device:
        allow_other = self._settings.allow_other
        try:
            device = await trio.to_thread.run_sync(
                lambda: mount(self.directory, name="realmfs", allow_other=allow_other)
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise MountError(
                f"the mount on {self.directory} was refused ({error}). "
                "If --allow-other was given, /etc/fuse.conf must hold the line user_allow_other"
            ) from None
        found = mounts.find(self.directory)
        self.minor = found.minor if found else None
        log.info("mounted on %s", self.directory)
        return device

    async def _serve(self, device: Device, files: FileSystem, scope: trio.CancelScope) -> None:
        owner = None if self._settings.allow_other else os.geteuid()
        with self._serving:
            await Workers(device, Operations(files, device, owner=owner).table(), self.requests).run()
        log.info("the kernel has let go of %s", self.directory)
        scope.cancel()

    async def _answers(self) -> None:
        """Ask our own mount once, through the kernel: then it works."""
        try:
            with trio.fail_after(_ANSWERS_WITHIN):
                await trio.to_thread.run_sync(os.stat, self.directory, abandon_on_cancel=True)
        except (trio.TooSlowError, OSError) as error:
            raise MountError(f"the mount on {self.directory} does not answer: {error!r}") from error

    def _tell_inode(self, ino: int, attr_only: bool) -> None:
        if self._device is not None:
            self._device.invalidate_inode(ino, attr_only)

    def _tell_entry(self, parent: int, name: bytes) -> None:
        if self._device is not None:
            self._device.invalidate_entry(parent, name)
