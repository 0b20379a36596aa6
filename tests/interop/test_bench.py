"""The benchmark itself, on a plain directory: it ends, says what it was run on, and leaves nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import data, plan, work
from bench.measure import Bench
from bench.plan import COLD, Line
from bench.process import Program, StepError, run
from bench.results import Results
from bench.subject import LocalDirectory

TINY = data.Sizes(directories=2, files_in_directory=3, small_files=5, big_size=data.MIB, written_files=4)


def test_quick_run_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    room, file = tmp_path / "room", tmp_path / "results.json"
    room.mkdir()
    argv = [
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--only",
        "local",
        "--dir",
        str(room),
        "--json",
        str(file),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=True)
    whole = json.loads(file.read_text())
    assert whole["machine"]["cores"] >= 1
    assert whole["failures"] == []
    assert {line["state"] for line in whole["lines"]} >= {"cold", "warm", "until close"}
    assert all(len(line["seconds"]["local"]["runs"]) >= 1 for line in whole["lines"])
    assert "read 200 x 4 KiB, cold" in done.stdout
    assert list(room.iterdir()) == []


def test_wrong_bytes_are_a_failure(tmp_path: Path) -> None:
    data.make(tmp_path / "copy", TINY)
    data.make(tmp_path / "shown", TINY)
    (tmp_path / "shown" / "small" / work.small_name(3)).write_bytes(bytes(TINY.small_size))
    subject = LocalDirectory(tmp_path / "shown", tmp_path)
    results = Bench([subject], tmp_path / "copy", runs=1, limit=20).run([plan.small(TINY)])
    assert results.median(plan.small(TINY).line(COLD), "local") is not None
    assert len(results.failures) == 1
    assert "contents differ" in results.failures[0]


def test_missing_files_are_a_failure_and_no_figure(tmp_path: Path) -> None:
    data.make(tmp_path / "copy", TINY)
    (tmp_path / "copy" / "tree" / "d00" / work.small_name(0)).unlink()
    subject = LocalDirectory(tmp_path / "copy", tmp_path)
    results = Bench([subject], tmp_path / "copy", runs=2, limit=20).run([plan.tree(TINY)])
    assert len(results.failures) == 2
    assert results.median(plan.tree(TINY).line(COLD), "local") is None


def test_ratio_is_ours_by_the_peers_median() -> None:
    results = Results()
    line = Line("work", COLD)
    for seconds in (9.0, 1.0, 2.0):
        results.add(line, "realmfs", seconds)
        results.add(line, "peer", 2 * seconds)
    assert results.ratio(line, "realmfs", "peer") == pytest.approx(0.5)
    assert results.ratio(line, "realmfs", "absent") is None
    assert results.table("realmfs", ["peer", "absent"]).splitlines()[1].split()[-4:] == [
        "4.000",
        "-",
        "0.50",
        "-",
    ]


def test_every_wait_is_bounded(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StepError, match="more than 0 s"):
        run(["sleep", "60"], 0.2)
    deaf = Program(["sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"], tmp_path / "log")
    with pytest.raises(StepError, match=r"took more than 0 s: on"):
        deaf.wait_until(lambda: False, 0.3, "nothing")
    assert deaf.stop(0.3)
    assert deaf.status is not None
    assert time.monotonic() - start < 20
