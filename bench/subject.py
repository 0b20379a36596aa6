"""A subject: one file system under measurement, and how to make it cold.

Three states of a mount are measured. *Cold*: a client that has never seen the data (new cache, new mount);
the server is warm for every subject alike. *Warm*: the same work again in the same mount, kernel caches
included. *Restarted*: a new mount over the old cache, so that no page is in the kernel but all data is on
this machine; only a file system with a cache of its own on disk has this state.
"""

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ournode import MOUNT_PATIENCE
from bench.process import Program, StepError, run

WORK = Path(__file__).with_name("work.py")


class Subject(ABC):
    """One file system. The order of calls: `missing`, `start`, then `mount` any number of times, then
    `stop`.
    """

    name: str
    python = sys.executable
    """The interpreter that runs the work."""
    keeps_cache = False
    """Whether it has the state *restarted*."""

    def missing(self) -> str | None:
        """The reason why it cannot be measured here, or None."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Start its servers."""

    @abstractmethod
    def mount(self, *, fresh: bool) -> None:
        """Take down the previous mount, if any, and mount anew; `fresh`: with an empty cache."""

    @property
    @abstractmethod
    def data(self) -> str:
        """Where the data sets are, in the node's own names."""

    @property
    @abstractmethod
    def scratch(self) -> str:
        """A directory to write into."""

    def drain(self, within: float) -> bool:
        """Return once everything written is at the server; False: close(2) has already waited for that."""
        del within
        return False

    def describe(self) -> dict[str, Any]:
        """Versions and the transport used, as far as they can be asked."""
        return {}

    @abstractmethod
    def stop(self) -> None:
        """End everything that was started. Never raises, never waits without a limit."""

    def command(self, argv: Sequence[str], within: float) -> str:
        """Run a program where the mount is visible."""
        return run(argv, within)

    def work(self, within: float, job: str, path: str, *options: str) -> dict[str, Any]:
        """Run the timed work in a process of its own."""
        out = self.command([self.python, os.fspath(WORK), job, path, *options], within)
        result: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return result


class LocalDirectory(Subject):
    """A plain directory on the same disk: the floor, what the work itself costs."""

    name = "local"

    def __init__(self, data: Path, room: Path) -> None:
        self._data = data
        self._scratch = room / "local-scratch"

    def start(self) -> None:
        self._scratch.mkdir()

    def mount(self, *, fresh: bool) -> None:
        if fresh:
            os.sync()
            for directory, _, files in os.walk(self._data):
                for name in files:
                    _drop_pages(Path(directory, name))

    @property
    def data(self) -> str:
        return os.fspath(self._data)

    @property
    def scratch(self) -> str:
        return os.fspath(self._scratch)

    def stop(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)


def _drop_pages(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def unmount(point: Path) -> None:
    """Take a FUSE mount down, lazily if it resists. Never raises."""
    for options in (["-u"], ["-u", "-z"]):
        if not os.path.ismount(point):
            return
        try:
            run(["fusermount3", *options, os.fspath(point)], MOUNT_PATIENCE)
        except StepError:
            continue


def wait_for_mount(program: Program, point: Path) -> None:
    program.wait_until(lambda: os.path.ismount(point), MOUNT_PATIENCE, f"the mount on {point.name}")


def version_of(*argv: str) -> str:
    """The first line that a program prints about its version; empty if it has none to tell."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""
