"""What Linux can do with files and Python's `os` does not offer: clone, punch holes; and syncing by path."""

import contextlib
import ctypes
import errno
import fcntl
import os
from pathlib import Path

_FICLONE = 0x40049409
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS}
_libc = ctypes.CDLL(None, use_errno=True)


def clone(source: int, target: int) -> bool:
    """Make `target` share the blocks of `source` (both file descriptors).

    False where the file system cannot.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return True
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise


def copy(source: int, target: int) -> None:
    """Copy all bytes of `source` to `target`, in the kernel where it can.

    Blocks; OSError when the disk is full.
    """
    length = os.fstat(source).st_size
    offset = 0
    while offset < length:
        try:
            done = os.copy_file_range(source, target, min(length - offset, 1 << 30), offset, offset)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            done = os.pwrite(target, os.pread(source, 1 << 20, offset), offset)
        if not done:
            break  # the source was cut short; the length check of its reader tells
        offset += done


def punch(descriptor: int, start: int, stop: int) -> None:
    """Give the blocks of [start, stop) back to the disk, where the file system can.

    Their bytes read as zero.
    """
    result = _libc.fallocate(
        ctypes.c_int(descriptor),
        ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE),
        ctypes.c_int64(start),
        ctypes.c_int64(stop - start),
    )
    if result and ctypes.get_errno() not in _CANNOT:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def sync_descriptor(descriptor: int) -> None:
    """Sync a file's contents and length."""
    os.fdatasync(descriptor)


def sync_file(path: Path) -> bool:
    """Sync a file's contents; False if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync_descriptor(descriptor)
        finally:
            os.close(descriptor)
        return True
    return False


def sync_directory(path: Path) -> None:
    """Sync a directory, so that the names made in it survive power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Return what changes with every start of the machine.

    '' where there is no such thing (always suspect).
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
