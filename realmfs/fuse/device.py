"""The kernel's end of a mount: opening `/dev/fuse` and mounting it, reading requests, writing answers.

Only root may call mount(2). For everybody else `fusermount3`, which is set-uid, opens the device, mounts it,
and passes the descriptor back through a socket. A mount holds one connection; when the kernel lets go of it
(after the unmount and the last close), reading says so.

Reading never waits: the descriptor is non-blocking, and whoever has nothing to read waits for readability in
trio. A notice (`notify_...`) may block inside the kernel; see notify.py for who may send one, and when.
"""

import array
import contextlib
import ctypes
import errno
import logging
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from realmfs.fuse import wire
from realmfs.fuse.wire import Notice, Request

log = logging.getLogger(__name__)

PAGES: Final = 256
MAX_WRITE: Final = PAGES * 4096
_BUFFER: Final = MAX_WRITE + 4096
_NOSUID, _NODEV = 2, 4
_HELPER_WITHIN = 10.0

Buffer = bytes | memoryview


class DeviceClosedError(Exception):
    """The kernel has let go of the mount."""


class Device:
    """One connection to the kernel."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor of a mounted connection."""
        os.set_blocking(descriptor, False)
        self.fd = descriptor
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)

    def close(self) -> None:
        """Let go. What waits in the kernel fails with ECONNABORTED.

        The number of the descriptor stays taken: a thread may be about to send a notice.
        """
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self.fd, inheritable=False)
        os.close(null)

    def read(self) -> Request | None:
        """Return the next request; None if none waits. Raises DeviceClosedError."""
        try:
            size = os.readv(self.fd, [self._buffer])
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EBADF):
                raise DeviceClosedError from None
            if error.errno in (errno.ENOENT, errno.EINTR):  # who asked was killed meanwhile
                return None
            raise
        _, opcode, unique, node, uid, gid, pid, _, _ = wire.HEADER.unpack_from(self._buffer)
        return Request(opcode, unique, node, uid, gid, pid, bytes(self._view[wire.HEADER.size : size]))

    def answer(self, unique: int, body: Buffer) -> None:
        """Answer a request. An answer that nobody waits for any more is dropped by the kernel."""
        size = wire.ANSWER.size + len(body)
        self._write([wire.ANSWER.pack(size, 0, unique), body])

    def refuse(self, unique: int, number: int) -> None:
        """Answer with an errno."""
        self._write([wire.ANSWER.pack(wire.ANSWER.size, -number, unique)])

    def _write(self, parts: Sequence[Buffer]) -> None:
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            if error.errno not in _NOBODY_WAITS:
                raise

    # -- notices: may block in the kernel, raise OSError ---------------------------------------------------

    def invalidate_inode(self, ino: int, attr_only: bool) -> None:
        """Let the kernel forget the attributes of an inode; unless `attr_only`, its pages as well."""
        self._notify(Notice.INVALIDATE_INODE, wire.NOTE_INODE.pack(ino, -1 if attr_only else 0, 0))

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Let the kernel forget a name."""
        body = wire.NOTE_ENTRY.pack(parent, len(name), 0) + name + b"\0"
        self._notify(Notice.INVALIDATE_ENTRY, body)

    def store(self, ino: int, data: Buffer) -> None:
        """Put the start of a file into the kernel's page cache.

        Only while nothing can be reading or writing the file: a page that waits for our answer is locked,
        and this call would wait for it.
        """
        self._notify(Notice.STORE, wire.NOTE_STORE.pack(ino, 0, len(data), 0), data)

    def _notify(self, notice: Notice, *body: Buffer) -> None:
        size = wire.ANSWER.size + sum(map(len, body))
        os.writev(self.fd, [wire.ANSWER.pack(size, notice, 0), *body])


_NOBODY_WAITS = (errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ECONNABORTED)


def mount(directory: Path, *, name: str, allow_other: bool) -> Device:
    """Mount on `directory`; the type of file system will be `fuse.<name>`. Raises OSError with a reason."""
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # root of a container; the helper may be allowed to
            return _mount_as_root(directory, name, allow_other)
    return _mount_by_helper(directory, name, allow_other)


def _mount_as_root(directory: Path, name: str, allow_other: bool) -> Device:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    kind = stat.S_IFMT(directory.stat().st_mode)
    options = f"fd={descriptor},rootmode={kind:o},user_id={os.getuid()},group_id={os.getgid()}"
    if allow_other:
        options += ",allow_other"
    arguments = [name.encode(), os.fsencode(directory), f"fuse.{name}".encode()]
    if libc.mount(*arguments, ctypes.c_ulong(_NOSUID | _NODEV), options.encode()) != 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, os.strerror(number), str(directory))
    return Device(descriptor)


def _mount_by_helper(directory: Path, name: str, allow_other: bool) -> Device:
    helper = shutil.which("fusermount3")
    if helper is None:
        raise FileNotFoundError(errno.ENOENT, "fusermount3 is not installed")
    options = f"fsname={name},subtype={name},rw,nosuid,nodev"
    if allow_other:
        options += ",allow_other"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = subprocess.run(
            [helper, "-o", options, "--", str(directory)],
            check=False,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_HELPER_WITHIN,
        )
        if result.returncode != 0:
            reason = result.stderr.decode(errors="replace").strip()
            raise OSError(errno.EPERM, reason or f"fusermount3 failed ({result.returncode})")
        return Device(_received(ours))


def _received(ours: socket.socket) -> int:
    """Return the descriptor that the helper has sent."""
    descriptors = array.array("i")
    ours.settimeout(_HELPER_WITHIN)
    _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_LEN(descriptors.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: descriptors.itemsize])
    if not descriptors:
        raise OSError(errno.EIO, "fusermount3 sent no descriptor")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]
