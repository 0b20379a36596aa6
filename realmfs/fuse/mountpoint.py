"""Can we mount on this directory and on this machine? If not: what is wrong and what to do.

libfuse prints its own reasons to stderr of a daemon that nobody sees, so everything that usually goes wrong
is looked for beforehand. A dead mount ("Transport endpoint is not connected") left by a killed daemon is
detached.
"""

import errno
import importlib.util
import os
import shutil
from pathlib import Path

import trio

from realmfs.fuse import mounts

DEVICE = Path("/dev/fuse")
_DEVICE_NUMBER = os.makedev(10, 229)
_ALIVE_WITHIN = 3.0


class MountError(Exception):
    """The mount cannot be made; the text says what happened, why, and what to do."""


def obstacle() -> str | None:
    """Return what on this machine stands in the way of any mount, with the cure; None if nothing does."""
    if importlib.util.find_spec("pyfuse3") is None:
        return (
            "pyfuse3 is not installed. Install gcc, pkg-config and libfuse3-dev with your package manager, "
            "then: pip install 'realmfs[mount]'"
        )
    missing = f"{DEVICE} is missing. Run `modprobe fuse` as root; start a container with --device {DEVICE}"
    try:
        if DEVICE.stat().st_rdev != _DEVICE_NUMBER:  # what a container puts there to hide it
            return missing
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return missing
    except OSError as error:
        return (
            f"{DEVICE} cannot be opened ({error.strerror}). A container needs --device {DEVICE}, "
            "a user the right to read and write it"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is not installed. Install the package fuse3"
    return None


async def prepare(directory: Path, *, create: bool = False) -> Path:
    """Return the absolute path of a directory that can be mounted on; detaches a dead mount found there.

    `create`: make the directory if it is missing (for the default one; a mistyped one should not come into
    being). Raises MountError.
    """
    here = mounts.absolute(directory)
    await _clear(here)
    _check(here, create)
    return here


def _check(here: Path, create: bool) -> None:
    try:
        if create:
            here.mkdir(parents=True, exist_ok=True)
        names = os.listdir(here)
    except FileNotFoundError:
        raise MountError(f"{here} does not exist. Make it: mkdir -p {here}") from None
    except (FileExistsError, NotADirectoryError):
        raise MountError(f"{here} is not a directory. Name an empty directory") from None
    except OSError as error:
        raise MountError(
            f"{here} cannot be used: {error.strerror}. Name an empty directory of your own"
        ) from None
    if names:
        raise MountError(
            f"{here} is not empty: mounting would hide what is in it ({len(names)} names). "
            "Name an empty directory"
        )
    if not os.access(here, os.W_OK):
        raise MountError(
            f"{here} is not writable for you, so you may not mount on it. Name a directory of your own"
        )


async def _clear(here: Path) -> None:
    """Detach a dead mount; complain about a living one."""
    mount = mounts.find(here)
    if mount is None:
        return
    if not mount.is_fuse:
        raise MountError(f"{here} already holds a mount of type {mount.file_system}. Name another directory")
    if await _alive(here):
        if mount.file_system == mounts.FILE_SYSTEM:
            raise MountError(f"realmfs is already mounted on {here}. To stop it: realmfs unmount {here}")
        raise MountError(f"{here} already holds a mount of type {mount.file_system}. Name another directory")
    reason = await mounts.detach(here)
    if reason is not None or mounts.find(here) is not None:
        raise MountError(
            f"{here} holds a dead mount that cannot be detached ({reason}). As root: umount --lazy {here}"
        )


async def _alive(here: Path) -> bool:
    """Tell whether a daemon serves it; a slow one is alive, and its mount not ours to take."""
    try:
        with trio.fail_after(_ALIVE_WITHIN):
            # Not stat(2), which the kernel may answer by itself for hours after the daemon has died.
            await trio.to_thread.run_sync(os.statvfs, here, abandon_on_cancel=True)
    except trio.TooSlowError:
        return True
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True
