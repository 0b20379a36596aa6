"""How long programs take until they say something: commands, and the interface's first paint.

    python -m bench.start [--runs 7]

The interface runs in a terminal of its own (80x24), without a daemon; painted means that the tabs are there.
Meant: commands under 150 ms, the interface under 500 ms. Exits with 1 if a median is over.
"""

import argparse
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

COMMAND, INTERFACE = 0.150, 0.500
WITHIN = 20.0
_TABS = b"Reintegration"


def main() -> int:
    """Measure, print, and tell by the status whether it is as meant."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    subjects: tuple[tuple[str, Callable[[], float], float], ...] = (
        ("realmfs --version", lambda: command("--version"), COMMAND),
        ("realmfs status (no daemon)", lambda: command("status"), COMMAND),
        ("realmfs tui, first paint", first_paint, INTERFACE),
    )
    slow = False
    for name, measure, meant in subjects:
        measure()  # reads the files into memory and writes the byte code
        times = [measure() for _ in range(runs)]
        median = statistics.median(times)
        slow = slow or median > meant
        print(
            f"{name:<28} median {median * 1000:4.0f} ms, most {max(times) * 1000:4.0f} ms"
            f"  (meant: {meant * 1000:.0f} ms)"
        )
    return int(slow)


def command(*argv: str) -> float:
    """Return the seconds that `realmfs ARGV` takes."""
    with tempfile.TemporaryDirectory() as name:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "realmfs", *argv],
            env=os.environ | {"XDG_RUNTIME_DIR": name},
            capture_output=True,
            check=False,
        )
        return time.perf_counter() - begun


class Terminal:
    """`realmfs tui` in a terminal of its own, for a `with` block; `fd` is the terminal's other end."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self.begun = 0.0
        self.fd = -1

    def __enter__(self) -> Self:
        argv = [sys.executable, "-m", "realmfs", "tui", "--socket", self._socket]
        self.begun = time.perf_counter()
        self._process, self.fd = pty.fork()
        if self._process == 0:
            os.execve(sys.executable, argv, os.environ | {"TERM": "xterm-256color"})
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        return self

    def __exit__(self, *exc: object) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self.fd)

    def until_painted(self) -> None:
        """Read until the tabs are there. Exits if that takes too long."""
        output = b""
        while _TABS not in output:
            if select.select([self.fd], [], [], 1.0)[0]:
                output += os.read(self.fd, 1 << 16)
            if time.perf_counter() - self.begun > WITHIN:
                raise SystemExit(f"bench: nothing was painted within {WITHIN:.0f} s: {output[-500:]!r}")


def first_paint() -> float:
    """Return the seconds until `realmfs tui` has painted its tabs."""
    with tempfile.TemporaryDirectory() as name, Terminal(str(Path(name) / "socket")) as terminal:
        terminal.until_painted()
        return time.perf_counter() - terminal.begun


if __name__ == "__main__":
    raise SystemExit(main())
