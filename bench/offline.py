"""How long a start without any network takes with a full cache, and what memory that needs."""

import os
import time
from pathlib import Path

from bench import bigcache
from bench.ournode import private_environment, realmfs
from bench.process import Program
from bench.subject import unmount, wait_for_mount
from realmfs.control.client import Client

DIRECTORIES = 1000
NOWHERE = "127.0.0.1:9"  # a name server that does not answer


def options(room: Path) -> list[str]:
    """Return the settings of a daemon whose cache `bigcache.fill` has made in `room`."""
    directories = ["--cache-dir", os.fspath(room / "cache"), "--state-dir", os.fspath(room / "state")]
    size = str(bigcache.CACHE_SIZE)
    return [*directories, "--cache-size", size, "--dns", NOWHERE, "--socket", os.fspath(room / "control")]


def memory(socket: Path) -> float:
    """Return how much memory the daemon at a control socket has resident, in MB."""
    with Client(socket) as client:
        process = client.call("daemon.status")["pid"]
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(room: Path) -> list[str]:
    """Fill a cache, mount it without a network, read every file; return the lines of the report."""
    top = room / "offline"
    socket = top / "control"
    point = top / "coda"
    point.mkdir(parents=True)
    objects = bigcache.fill(top / "cache", top / "state", DIRECTORIES)
    start = time.perf_counter()
    argv = realmfs("mount", os.fspath(point), "--foreground", *options(top))
    daemon = Program(argv, top / "log", private_environment(top))
    try:
        wait_for_mount(daemon, point)
        names = os.listdir(point)
        ready = time.perf_counter() - start
        assert sorted(names) == sorted([bigcache.REALM, *bigcache.REALMS])
        at_start = memory(socket)
        start = time.perf_counter()
        for directory in range(DIRECTORIES):
            for file in range(bigcache.FILES):
                path = point / bigcache.REALM / f"d{directory:03}" / f"f{file:02}"
                assert path.read_bytes() == bigcache.contents(directory, file)
        spent = time.perf_counter() - start
        started = f"{ready:.2f} s after the command, {at_start:.0f} MB resident"
        read = f"{spent:.1f} s, {memory(socket):.0f} MB resident"
        return [
            f"start without a network, {objects} cached objects: all {len(names)} realms listed {started}",
            f"all {DIRECTORIES * bigcache.FILES} cached files opened and read: {read}",
        ]
    finally:
        unmount(point)
        daemon.stop()
        unmount(point)
