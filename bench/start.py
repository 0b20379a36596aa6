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


def first_paint() -> float:
    """Return the seconds until `realmfs tui` has painted its tabs."""
    with tempfile.TemporaryDirectory() as name:
        argv = [sys.executable, "-m", "realmfs", "tui", "--socket", str(Path(name) / "socket")]
        begun = time.perf_counter()
        process, terminal = pty.fork()
        if process == 0:
            os.execve(sys.executable, argv, os.environ | {"TERM": "xterm-256color", "XDG_STATE_HOME": name})
        try:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            _until_painted(terminal, begun)
            return time.perf_counter() - begun
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(terminal)


def _until_painted(terminal: int, begun: float) -> None:
    output = b""
    while _TABS not in output:
        readable, _, _ = select.select([terminal], [], [], 1.0)
        if readable:
            output += os.read(terminal, 1 << 16)
        if time.perf_counter() - begun > WITHIN:
            raise SystemExit(f"bench: nothing was painted within {WITHIN:.0f} s: {output[-500:]!r}")


if __name__ == "__main__":
    raise SystemExit(main())
