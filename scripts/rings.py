"""Run the tests ring by ring from the ground up; stop at the lowest broken ring; tell what each cost."""

import os
import subprocess
import sys
import time
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
NO_TESTS_COLLECTED = 5


def main() -> int:
    """Return the exit status of the first ring that failed, or 0."""
    tests = Path(__file__).resolve().parent.parent / "tests"
    spent: list[str] = []
    for ring in RINGS:
        if not any((tests / ring).glob("test_*.py")):
            continue
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", str(tests / ring), *sys.argv[1:]]
        status = subprocess.call(command, env={"PYTHONHASHSEED": "0", **os.environ})
        spent.append(f"{ring} {time.monotonic() - start:.0f} s")
        if status not in (0, NO_TESTS_COLLECTED):
            print(f"ring {ring} is broken; the rings above it were not run", file=sys.stderr)
            return status
    print("time per ring: " + ", ".join(spent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
