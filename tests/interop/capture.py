"""What really went over the wire: tcpdump on the rig's network while a test runs."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import StepError
from bench.rig import Rig

_STARTS_WITHIN = 10.0
_ENDS_WITHIN = 15.0


class Capture:
    """The packets that match a filter, for the time of a with block; afterwards `lines` tells them."""

    def __init__(self, rig: Rig, file: Path, filter_: str) -> None:
        self._file = file
        self._log = file.with_suffix(".log")
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [rig.command, "capture", "--filter", filter_, os.fspath(file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_interrupts,  # noqa: PLW1509  # we have no threads
            )
        limit = time.monotonic() + _STARTS_WITHIN
        while b"capturing" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > limit:
                raise StepError(f"the capture did not begin: {self._log.read_text()}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it as its user would."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_ENDS_WITHIN)

    def lines(self) -> list[str]:
        """One line a packet."""
        reading = ["tcpdump", "-n", "-r", os.fspath(self._file)]
        done = subprocess.run(reading, capture_output=True, text=True, check=True, timeout=_ENDS_WITHIN)
        return done.stdout.splitlines()


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who runs in the background may have it ignored
