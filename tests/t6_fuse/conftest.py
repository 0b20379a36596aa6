"""Real mounts, each in a process of its own: pyfuse3 allows one per process."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from realmfs.fuse import mounts
from realmfs.fuse.mountpoint import obstacle

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = obstacle()
    for item in items:
        if reason is not None and "kernel" in item.keywords and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))
        if "slow" in item.keywords and not os.environ.get("REALMFS_SLOW"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run `make test-slow`"))


@dataclass
class Mounted:
    """A mounted file system: its directory, the serving process, and where that logs."""

    directory: Path
    process: subprocess.Popen[str]
    log: Path

    def logged(self) -> str:
        return self.log.read_text()

    def ended(self, within: float = 10.0) -> int:
        return self.process.wait(within)


@contextlib.contextmanager
def mounted(directory: Path, command: list[str], log: Path) -> Iterator[Mounted]:
    """Run a program that prints "ready" once it serves `directory`; take it all down at the end."""
    directory.mkdir(exist_ok=True)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=REPOSITORY,
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], 20.0)
        line = process.stdout.readline() if readable else ""
        assert line.startswith("ready"), log.read_text()
        yield Mounted(directory, process, log)
    finally:
        take_down(directory, process)
        process.stdout.close()


def take_down(directory: Path, process: subprocess.Popen[str]) -> None:
    """Unmount lazily; whatever still hangs is cut off and killed."""
    mount = mounts.find(directory)
    if mount is not None:
        subprocess.run(["fusermount3", "-u", "-z", str(directory)], check=False, capture_output=True)
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        if mount is not None:
            mounts.abort(mount.minor)
        process.kill()
        process.wait(5.0)


@pytest.fixture
def memory_mount(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """A function that mounts a fresh file system in memory; argument: deadline of stuck requests, seconds."""
    with contextlib.ExitStack() as stack:

        def mount(deadline: float = 20.0) -> Mounted:
            command = [sys.executable, "-m", "tests.t6_fuse.memory_mount", str(tmp_path / "m"), str(deadline)]
            return stack.enter_context(mounted(tmp_path / "m", command, tmp_path / "log"))

        yield mount


@dataclass
class RealmMount:
    """A real mount of an embedded realm whose network can be commanded (realm_mount.py)."""

    top: Path
    process: subprocess.Popen[str]

    def order(self, *words: str) -> Any:
        to, of = self.process.stdin, self.process.stdout
        assert to is not None
        assert of is not None
        to.write(f"{' '.join(words)}\n")
        to.flush()
        return json.loads(of.readline())


@pytest.fixture
def realm_mount(tmp_path: Path) -> Iterator[RealmMount]:
    """A fresh realm and its mount."""
    directory, room = tmp_path / "m", tmp_path / "room"
    directory.mkdir()
    room.mkdir()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.t6_fuse.realm_mount", str(directory), str(room)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=REPOSITORY,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "ready\n", (tmp_path / "log").read_text()
        yield RealmMount(directory, process)
    finally:
        process.stdin.close()  # it ends when it is told nothing more, and has no mount
        take_down(directory, process)
        process.stdout.close()


def eventually(true: Callable[[], bool], within: float = 5.0) -> None:
    """Wait for something that happens in another process and that nobody can tell us."""
    limit = time.monotonic() + within
    while not true():
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.01)
