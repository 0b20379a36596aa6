"""A hoard walk against the reference client reading the same files one by one, on the same rig.

    python -m bench.hoard [--files 2000] [--size 4096] [--runs 3]

The files are written by the reference client into one directory of a volume with three replicas. The
reference client reads them with an empty cache, in the order of their names; realmfs walks them, with an
empty cache of its own. Every run is printed, the medians are compared. RIG and CODA_PREFIX name the rig.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import data, machine
from bench.ournode import mounted
from bench.plan import small
from bench.rig import REALM, Rig
from bench.rigside import READER_NODE, write_data
from bench.subject import WORK

LIMIT = 300.0
SERVER = "codasrv"


def main() -> int:
    options = _options()
    rig = Rig.from_environment()
    reason = rig.missing()
    if reason is not None:
        print(f"bench: the rig cannot be used: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="realmfs-hoard-") as name:
        room = Path(name)
        room.chmod(0o755)
        about = machine.describe(room)
        sizes = data.Sizes(directories=1, files_in_directory=1, small_files=options.files)
        data.make(room / "data", sizes)
        (room / "data" / "big").unlink()
        with write_data(rig, room / "data", LIMIT) as place:
            theirs, ours = [], []
            for run in range(options.runs):
                theirs.append(timed("reference", lambda: _reference(rig, place, sizes)))
                ours.append(timed("realmfs", functools.partial(_walk, rig, place, room, run, options.files)))
    about["load_after"] = os.getloadavg()[0]
    print(machine.sentence(about))
    print(f"reference client, one by one: {_said(theirs, options.files)}")
    print(f"realmfs, hoard walk:          {_said(ours, options.files)}")
    print(f"ratio of the medians: {statistics.median(theirs) / statistics.median(ours):.1f}")
    return 0


def timed(name: str, work: Callable[[], float]) -> float:
    """Return what `work` does; tell how much of it the servers computed."""
    before = machine.processor_seconds(SERVER)
    seconds = work()
    spent = machine.processor_seconds(SERVER) - before
    print(f"{name}: {seconds:.2f} s; the servers computed {spent:.2f} s", file=sys.stderr, flush=True)
    return seconds


def _reference(rig: Rig, place: str, sizes: data.Sizes) -> float:
    rig.control("client", READER_NODE.removeprefix("client"), "restart", "--init")
    argv = ["python3", str(WORK), "read-small", f"/coda/{REALM}/{place}/small", *small(sizes).options]
    return float(json.loads(rig.exec(READER_NODE, *argv, within=LIMIT))["seconds"])


def _walk(rig: Rig, place: str, room: Path, run: int, files: int) -> float:
    point = room / f"mount{run}"
    point.mkdir()
    with mounted(rig, point, room / f"run{run}") as mount:
        mount.command("hoard", "off")
        mount.command("hoard", "add", f"/coda/{REALM}/{place}/small", "600:d+")
        last = json.loads(mount.command("hoard", "walk", "--json", within=LIMIT))["last"]
        if last["files"] < files:
            raise SystemExit(f"only {last['files']} of {files} files came")
        return float(last["seconds"])


def _said(seconds: list[float], files: int) -> str:
    runs = ", ".join(f"{each:.2f}" for each in seconds)
    return f"{files / statistics.median(seconds):.0f} files/s (runs: {runs} s)"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.hoard", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
