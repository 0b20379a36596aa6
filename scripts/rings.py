"""Run the tests ring by ring from the ground up, two at a time; begin none above a broken one; tell the cost.

What a ring prints comes when it has ended, in the order of the rings. The largest is run in two parts.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

RINGS = (
    "t1_wire",
    "t2_rpc2",
    "t2b_server",
    "t3_realms",
    "t4_cache",
    "t5_venus",
    "t6_fuse",
    "t7_control",
    "t8_cli_tui",
    "promises",
    "interop",
)
PARTS = {"t8_cli_tui": 2}
AT_ONCE = 2
"""Processors are hardly used by one: most tests of the upper rings wait for programs."""
NO_TESTS_COLLECTED = 5
TESTS = Path(__file__).resolve().parent.parent / "tests"


@dataclass(frozen=True)
class Ended:
    """What came of a ring, or of a part of one."""

    ring: str
    status: int
    seconds: float
    output: str


class Run:
    """All rings; `broken` stops those that have not begun."""

    def __init__(self, options: list[str]) -> None:
        self.options = options
        self.broken = False

    def part(self, ring: str, number: int) -> Ended | None:
        """Run a part of a ring; None if something below it is broken."""
        files = sorted((TESTS / ring).glob("test_*.py"))[number :: PARTS.get(ring, 1)]
        if self.broken or not files:
            return None
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", *map(str, files), *self.options]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        status = 0 if done.returncode == NO_TESTS_COLLECTED else done.returncode
        self.broken |= status != 0
        return Ended(ring, status, time.monotonic() - start, done.stdout)


def main() -> int:
    """Return the exit status of the lowest ring that failed, or 0."""
    run = Run(sys.argv[1:])
    spent: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(run.part, ring, part) for ring in RINGS for part in range(PARTS.get(ring, 1))]
        for job in jobs:
            ended = job.result()
            if ended is None:
                continue
            print(f"{ended.ring}:\n{ended.output}", flush=True)
            spent.append(f"{ended.ring} {ended.seconds:.0f} s")
            if ended.status:
                run.broken = True
                print(f"ring {ended.ring} is broken; the rings above it were not begun", file=sys.stderr)
                return ended.status
    print("time per ring: " + ", ".join(spent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
