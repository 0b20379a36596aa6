"""`python -m bench`: how fast realmfs is, next to something else that does the same work on the same
machine.

Prints a table of seconds and of ratios, and with `--json` everything that was measured. Exit status 0 if
every step went through, 1 if one failed, 2 if nothing could be measured.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench import data, machine, offline, plan
from bench.embedded import EmbeddedRealm
from bench.measure import Bench
from bench.ournode import compile_as_installed
from bench.process import StepError
from bench.results import Results
from bench.rig import Rig
from bench.rigside import Ours, Reference, fuse_shares, write_data
from bench.sshfs import Sshfs
from bench.subject import LocalDirectory, Subject

LIMIT = 180.0
QUICK_LIMIT = 60.0


def main() -> int:
    options = _options()
    sizes = data.QUICK if options.quick else data.FULL
    runs = options.runs or (1 if options.quick else 3)
    limit = options.limit or (QUICK_LIMIT if options.quick else LIMIT)
    signal.signal(signal.SIGTERM, _leave)
    compile_as_installed()
    with _room(options.dir) as room:
        about = machine.describe(room)
        copy = room / "data"
        data.make(copy, sizes)
        if options.target == "offline":
            lines = offline.measure(room)
            about["load_after"] = os.getloadavg()[0]
            print(machine.sentence(about), *lines, sep="\n")
            return 0
        if options.target == "rig":
            return _against_reference(options, sizes, runs, limit, room, about)
        subjects: list[Subject] = [EmbeddedRealm(copy, room), LocalDirectory(copy, room), Sshfs(copy, room)]
        chosen = [subject for subject in subjects if not options.only or subject.name in options.only]
        results = Bench(chosen, copy, runs=runs, limit=limit).run(
            [
                plan.tree(sizes),
                plan.small(sizes),
                plan.big(sizes),
                plan.write_small(sizes),
                plan.write_big(sizes),
            ]
        )
        peers = [subject.name for subject in chosen if subject.name != "realmfs"]
        return _report(options.json, results, about, "realmfs", peers, [])


def _against_reference(
    options: argparse.Namespace, sizes: data.Sizes, runs: int, limit: float, room: Path, about: machine.About
) -> int:
    rig = Rig.from_environment()
    reason = rig.missing()
    if reason is not None:
        print(f"bench: the rig cannot be used: {reason}", file=sys.stderr)
        return 2
    with write_data(rig, room / "data", limit) as place:
        subjects: list[Subject] = [Ours(rig, place, room), Reference(rig, place)]
        chosen = [subject for subject in subjects if not options.only or subject.name in options.only]
        scenes = [plan.tree(sizes), plan.small(sizes), plan.big(sizes)]
        results = Bench(chosen, room / "data", runs=runs, limit=limit).run(scenes)
    return _report(options.json, results, about, "realmfs", ["reference"], fuse_shares(results, scenes))


def _report(
    file: Path | None, results: Results, about: machine.About, ours: str, peers: list[str], remarks: list[str]
) -> int:
    about["load_after"] = os.getloadavg()[0]
    print(machine.sentence(about))
    print(results.table(ours, peers))
    for remark in [*remarks, *(f"left out: {name}: {reason}" for name, reason in results.left_out.items())]:
        print(remark)
    for failure in results.failures:
        print(f"FAILED: {failure}")
    if file is not None:
        whole = {"machine": about, **results.as_json(ours, peers), "remarks": remarks}
        file.write_text(json.dumps(whole, indent=1) + "\n")
    if not results.seconds:
        return 2
    return 1 if results.failures else 0


@contextmanager
def _room(parent: Path | None) -> Iterator[Path]:
    """A directory of our own for data, caches and mounts; everybody may look into it, nobody write."""
    with tempfile.TemporaryDirectory(prefix="realmfs-bench-", dir=parent, ignore_cleanup_errors=True) as name:
        room = Path(name)
        room.chmod(0o755)
        yield room
        mounted = [point for point in room.iterdir() if os.path.ismount(point)]
        if mounted:
            raise StepError(f"still mounted, not removed: {', '.join(map(str, mounted))}")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--target", choices=("embedded", "rig", "offline"), default="embedded")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured here")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one run")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="how many runs; the median counts")
    parser.add_argument(
        "--limit", type=float, default=0.0, metavar="SECONDS", help="the longest a step may take"
    )
    parser.add_argument("--dir", type=Path, help="where to keep data, caches and mounts while it runs")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure only this one (repeatable)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
