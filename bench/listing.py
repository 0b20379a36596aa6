"""`ls -lR` of a tree nobody has seen yet, beside the reference client, on the same rig.

    python -m bench.listing [--files 5000] [--runs 3]

The tree is written by the reference client into a volume with three replicas, a hundred files in a directory.
Each run lists it once through a reference client with an empty cache and once through realmfs with an empty
cache, in turn. Every run is printed, with the processor time of the three servers; the medians are compared.
RIG and CODA_PREFIX name the rig.
"""

import argparse
import functools
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.hoard import timed
from bench.ournode import mounted
from bench.rig import OUR_NODE, REALM, Rig
from bench.rigside import READER_NODE, write_data

LIMIT = 300.0
PER_DIRECTORY = 100


def main() -> int:
    options = _options()
    rig = Rig.from_environment()
    reason = rig.missing()
    if reason is not None:
        print(f"bench: the rig cannot be used: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="realmfs-listing-") as name:
        room = Path(name)
        room.chmod(0o755)
        about = machine.describe(room)
        for number in range(options.files):
            file = room / "data" / f"d{number // PER_DIRECTORY:02d}" / f"f{number:04d}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x" * 16)
        theirs, ours = [], []
        with write_data(rig, room / "data", LIMIT) as place:
            for run in range(options.runs):
                theirs.append(timed("reference", lambda: _reference(rig, place, options.files)))
                ours.append(timed("realmfs", functools.partial(_ours, rig, place, room, run, options.files)))
    about["load_after"] = os.getloadavg()[0]
    print(machine.sentence(about))
    for name, runs in (("reference client", theirs), ("realmfs", ours)):
        print(f"{name}: ls -lR of {options.files} files: {statistics.median(runs):.2f} s of {_said(runs)}")
    print(f"ratio of the medians: {statistics.median(theirs) / statistics.median(ours):.1f}")
    return 0


def _reference(rig: Rig, place: str, files: int) -> float:
    rig.control("client", READER_NODE.removeprefix("client"), "restart", "--init")
    rig.exec(READER_NODE, "ls", f"/coda/{REALM}")
    return _list(rig, READER_NODE, f"/coda/{REALM}/{place}", files)


def _ours(rig: Rig, place: str, room: Path, run: int, files: int) -> float:
    point = room / f"mount{run}"
    point.mkdir()
    with mounted(rig, point, room / f"run{run}"):
        rig.exec(OUR_NODE, "ls", f"{point}/{REALM}")
        return _list(rig, OUR_NODE, f"{point}/{REALM}/{place}", files)


def _list(rig: Rig, node: str, top: str, files: int) -> float:
    """Return the seconds of `ls -lR`; the tree's own directory and the way there are known."""
    rig.exec(node, "ls", "-d", top)
    start = time.monotonic()
    count = rig.exec(node, "sh", "-c", f"ls -lR {shlex.quote(top)} | grep -c ^-", within=LIMIT)
    seconds = time.monotonic() - start
    if int(count) != files:
        raise SystemExit(f"{count.strip()} of {files} files were listed on {node}")
    return seconds


def _said(seconds: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.listing", description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
