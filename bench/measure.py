"""The measuring: the same scenes for every subject, in turn, several times.

A scene is one data set with all its states; every cold pass has a mount of its own. Runs are interleaved
(scene by scene, every subject after the other, in each run another one first), so that a disturbance of the
machine meets all alike, and the median of the runs counts. A step that fails or exceeds its time is
recorded as failed and the subject goes on with the next scene on a new mount; a subject whose server does
not start is left out with the reason.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.plan import CLOSED, COLD, DRAINED, MOUNT, RESTARTED, WARM, Reading, Writing
from bench.process import StepError
from bench.results import Results
from bench.subject import Subject


class Bench:
    """One benchmark: `runs` repetitions, at most `limit` seconds for each step.

    `data` is the local copy of what the subjects show, to compare the bytes with.
    """

    def __init__(self, subjects: Sequence[Subject], data: Path, *, runs: int, limit: float) -> None:
        self.results = Results()
        self._subjects = list(subjects)
        self._data = data
        self._runs = runs
        self._limit = limit
        self._written = 0

    def run(self, scenes: Sequence[Reading | Writing]) -> Results:
        """Start the subjects, measure, and stop them whatever happens."""
        started: list[Subject] = []
        try:
            for subject in self._subjects:
                self._start(subject, started)
            for number in range(1, self._runs + 1):
                turn = number % len(started) if started else 0
                for scene in scenes:
                    for subject in started[turn:] + started[:turn]:
                        _say(f"run {number} of {self._runs}: {scene.work}: {subject.name}")
                        self._play(subject, scene)
            for subject in started:
                self._finish(subject)
        finally:
            for subject in reversed(self._subjects):
                subject.stop()
        return self.results

    def _start(self, subject: Subject, started: list[Subject]) -> None:
        reason = subject.missing()
        if reason is None:
            try:
                subject.start()
            except (StepError, OSError) as error:
                self.results.fail(subject.name, "start", error)
                return
            started.append(subject)
            return
        self.results.left_out[subject.name] = reason
        _say(f"{subject.name} is left out: {reason}")

    def _play(self, subject: Subject, scene: Reading | Writing) -> None:
        try:
            since = time.monotonic()
            subject.mount(fresh=True)
            subject.command(["ls", subject.data], self._limit)
            self.results.add(MOUNT, subject.name, time.monotonic() - since)
            if isinstance(scene, Reading):
                self._read(subject, scene)
            else:
                self._write(subject, scene)
        except (StepError, OSError, ValueError) as error:
            self.results.fail(subject.name, scene.work, error)

    def _read(self, subject: Subject, scene: Reading) -> None:
        self._pass(subject, scene, COLD)
        self._pass(subject, scene, WARM)
        if subject.keeps_cache:
            subject.mount(fresh=False)
            subject.command(["ls", subject.data], self._limit)
            self._pass(subject, scene, RESTARTED)

    def _pass(self, subject: Subject, scene: Reading, state: str) -> None:
        done = subject.work(self._limit, scene.job, f"{subject.data}/{scene.place}", *scene.options)
        if done["objects"] != scene.objects or (scene.bytes and done["bytes"] != scene.bytes):
            raise StepError(f"{state}: {done['objects']} objects and {done['bytes']} bytes came, not {scene}")
        self.results.add(scene.line(state), subject.name, done["seconds"])

    def _write(self, subject: Subject, scene: Writing) -> None:
        self._written += 1
        target = f"{subject.scratch}/w{self._written}"
        subject.command(["mkdir", target], self._limit)
        subject.drain(self._limit)
        done = subject.work(self._limit, "write", target, *scene.options)
        self.results.add(scene.line(CLOSED), subject.name, done["seconds"])
        since = time.monotonic()
        waited = subject.drain(self._limit)
        self.results.add(
            scene.line(DRAINED), subject.name, done["seconds"] + (time.monotonic() - since if waited else 0.0)
        )
        subject.command(["rm", "-r", target], self._limit)
        subject.drain(self._limit)

    def _finish(self, subject: Subject) -> None:
        """Compare every byte with the local copy, and ask the subject about itself."""
        try:
            subject.mount(fresh=True)
            self.results.about[subject.name] = subject.describe()
            shown, expected = (self._digest(subject, path) for path in (subject.data, str(self._data)))
            if shown != expected:
                raise StepError("the contents differ from what was put there: its figures are worthless")
        except (StepError, OSError, ValueError) as error:
            self.results.fail(subject.name, "comparing all bytes", error)

    def _digest(self, subject: Subject, path: str) -> Any:
        return subject.work(self._limit, "digest", path)["sha256"]


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
