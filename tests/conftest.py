"""What every test gets: a log that may hold no unexpected warning, and a stack dump on SIGUSR1."""

import faulthandler
import logging
import re
import signal
from collections.abc import Iterator

import pytest

faulthandler.register(signal.SIGUSR1, all_threads=True)


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def quiet_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose code logs a warning that the mark `logs(regex)` does not expect."""
    expected = [re.compile(mark.args[0]) for mark in request.node.iter_markers("logs")]
    recorder = _Recorder()
    logging.getLogger("realmfs").addHandler(recorder)
    yield
    logging.getLogger("realmfs").removeHandler(recorder)
    surprises = [line for line in recorder.lines if not any(rx.search(line) for rx in expected)]
    assert not surprises, f"unexpected warnings in the log: {surprises}"
