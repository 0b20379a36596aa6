"""The kernel's table of mounts: finding one of ours, detaching it, cutting its connection.

Nothing here touches the mount itself: a stat(2) of a FUSE mount asks its daemon, which may be dead or busy.
"""

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import trio

FILE_SYSTEM = "fuse.realmfs"
_TABLE = "/proc/self/mountinfo"
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_DEVICES = Path("/sys/class/bdi")
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table: directory, type of file system, source, and the device's minor number."""

    directory: Path
    file_system: str
    source: str
    minor: int

    @property
    def is_fuse(self) -> bool:
        """Tell whether a user-space program serves it."""
        return self.file_system.partition(".")[0] in ("fuse", "fuseblk")


def _unescape(text: str) -> str:
    """The table writes blank, tab, newline and backslash as octal numbers."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def parse(table: str) -> list[Mount]:
    """Read the text of /proc/self/mountinfo; lines of another shape are passed over."""
    mounts = []
    for line in table.splitlines():
        front, separator, back = line.partition(" - ")
        fields, rest = front.split(" "), back.split(" ")
        if not separator or len(fields) < 5 or len(rest) < 2:
            continue
        minor = int(fields[2].partition(":")[2])
        mounts.append(Mount(Path(_unescape(fields[4])), rest[0], _unescape(rest[1]), minor))
    return mounts


def table() -> list[Mount]:
    """Return all mounts that this process sees, in the order they were made."""
    return parse(Path(_TABLE).read_text(encoding="utf-8", errors="surrogateescape"))


def absolute(directory: Path) -> Path:
    """Return the absolute path without asking the file system about the last component, which may be dead."""
    path = Path(os.path.abspath(directory))
    return Path(os.path.realpath(path.parent)) / path.name


def find(directory: Path) -> Mount | None:
    """Return the topmost mount on exactly this directory."""
    here = absolute(directory)
    return next((mount for mount in reversed(table()) if mount.directory == here), None)


async def detach(directory: Path) -> str | None:
    """Take the mount out of the tree; open files work on until closed. Returns the reason of a failure."""
    umount = shutil.which("fusermount3")
    command = [umount, "-u", "-z", "--"] if umount else ["umount", "--lazy", "--"]
    try:
        with trio.fail_after(_PATIENCE):
            result = await trio.run_process(
                [*command, str(directory)], check=False, capture_stderr=True, stdin=subprocess.DEVNULL
            )
    except trio.TooSlowError:
        return f"{command[0]} did not finish within {_PATIENCE:.0f} s"
    except OSError as error:
        return str(error)
    if result.returncode == 0 or find(directory) is None:
        return None
    return result.stderr.decode(errors="replace").strip() or f"{command[0]} failed"


def abort(minor: int) -> bool:
    """Cut the connection of a mount: every waiting and later request fails with ENOTCONN or ECONNABORTED."""
    with contextlib.suppress(OSError):
        (_CONNECTIONS / str(minor) / "abort").write_text("1")
        return True
    return False


def read_ahead(minor: int, size: int) -> bool:
    """Have the kernel read up to `size` bytes ahead of a program on a mount; tell whether it lets us.

    Only root may. Belongs after the first answer: with that the kernel sets the value of its own (128 KiB).
    """
    with contextlib.suppress(OSError):
        (_DEVICES / f"0:{minor}" / "read_ahead_kb").write_text(str(size >> 10))
        return True
    return False
