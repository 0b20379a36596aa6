"""What every test gets: a log that may hold no unexpected warning, and a stack dump on SIGUSR1."""

import faulthandler
import inspect
import logging
import re
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence

import hypothesis
import pytest
import trio
from trio.abc import Clock, Instrument
from trio.testing import MockClock

from tests.seeds import SEARCHING

faulthandler.register(signal.SIGUSR1, all_threads=True)

# No test is timed: a busy machine would fail it. `print_blob` names the failing example, to try it again.
# What is tried is the same every time, where the clock is a fake one also the order of tasks: tests/seeds.py.
hypothesis.settings.register_profile(
    "realmfs",
    deadline=None,
    print_blob=True,
    derandomize=not SEARCHING,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("realmfs")
setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", not SEARCHING)  # noqa: B010 - trio calls it final


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def same_order() -> None:
    """Let trio shuffle its tasks in every run of a test as in the run before."""
    if not SEARCHING:
        trio._core._run._r.seed(1)


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


def _run_jumping(
    main: Callable[[], Awaitable[object]], *, clock: Clock | None, instruments: Sequence[Instrument]
) -> object:
    return trio.run(main, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `usefixtures("autojump_clock")` work: pytest-trio looks only at a test's own parameters."""
    for item in items:
        is_async = inspect.iscoroutinefunction(getattr(item, "obj", None))
        if is_async and any("autojump_clock" in mark.args for mark in item.iter_markers("usefixtures")):
            item.add_marker(pytest.mark.trio(run=_run_jumping), append=False)
