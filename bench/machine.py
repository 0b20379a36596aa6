"""On what it was measured: without this a figure means nothing."""

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import realmfs
from bench.subject import version_of

About = dict[str, Any]
PACKAGES = ("trio", "cryptography", "pyfuse3")


def describe(room: Path) -> About:
    """The machine, the versions, and what else it was doing. `room` is where caches and data are kept."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "realmfs": realmfs.__version__,
        "commit": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
        "libfuse": version_of("fusermount3", "--version"),
        "file_system": _file_system(room),
        "load_before": os.getloadavg()[0],
    }


def sentence(about: About) -> str:
    """The machine in two lines of text, for the head of a table."""
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return (
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {about['file_system']}, load "
        f"{about['load_before']:.1f} before and {about['load_after']:.1f} after\n"
        f"realmfs {about['realmfs']} ({about['commit']}), Python {about['python']}, {packages}"
    )


def processor_seconds(program: str) -> float:
    """Processor time, of all cores, that processes of this name have used so far, as far as we see them."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        if name == program:
            fields = rest.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / float(os.sysconf("SC_CLK_TCK"))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the working tree, with `+` if that has changes; None outside of one."""
    top = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(top), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`."""
    best, kind = "", "unknown"
    real = os.fspath(path.resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, fs_type, *_ = line.split()
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fs_type
    return kind
