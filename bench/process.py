"""Programs that the benchmark starts: every wait is bounded, and nothing is left behind.

A program on a hanging mount may not die from SIGKILL before the file system itself is gone. So nothing here
waits for a death without a limit; whoever owns the mount takes that down, and the rest dies with it.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GRACE = 5.0
"""Seconds for a program to leave after SIGTERM, and again after SIGKILL."""


class StepError(Exception):
    """A step took too long or went wrong; the text says which and how."""


class Program:
    """A running program in a session of its own, with its output in a log file."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = list(argv)
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
            )

    def __str__(self) -> str:
        return " ".join(self.argv[:4])

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status once it has ended."""
        return self._process.poll()

    def last_words(self, lines: int = 5) -> str:
        text = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:])

    def wait_until(self, condition: Callable[[], bool], within: float, what: str) -> None:
        """Wait until `condition()`; StepError if the program ends first or `within` seconds pass."""
        limit = time.monotonic() + within
        while not condition():
            if not self.running:
                raise StepError(f"{self} ended before {what}: {self.last_words()}")
            if time.monotonic() > limit:
                raise StepError(f"{self}: {what} took more than {within:.0f} s: {self.last_words()}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def ended(self, within: float) -> bool:
        """Wait for the end, at most `within` seconds; tell whether it has come."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace: float = GRACE) -> bool:
        """SIGTERM, then SIGKILL; False if not even that ended it in time."""
        self.signal(signal.SIGTERM)
        if self.ended(grace):
            return True
        self.signal(signal.SIGKILL)
        return self.ended(grace)


def run(argv: Sequence[str], within: float, *, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """Run a program to its end and return what it printed.

    StepError if that takes more than `within` seconds or its exit status is not 0.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=None if env is None else {**os.environ, **env},
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(stdin, timeout=within)
    except BaseException as error:
        _kill(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise StepError(f"more than {within:.0f} s: {' '.join(argv)}") from None
        raise
    if process.returncode != 0:
        raise StepError(f"exit status {process.returncode}: {' '.join(argv)}: {out.strip()[-800:]}")
    return out


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill it and all it started. Where it hangs in a mount, the mount's owner is next."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(GRACE)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
