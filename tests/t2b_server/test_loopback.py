"""The tests' own servers do not meet: what addresses processes get that run at a time."""

import subprocess
import sys
from pathlib import Path

ASK = "from tests.loopback import own_address; print(*map(own_address, (1, 2, 3))); input()"
TOP = Path(__file__).parents[2]


def test_neighbouring_processes_have_their_own_addresses() -> None:
    pipe = subprocess.PIPE
    asked = [
        subprocess.Popen([sys.executable, "-c", ASK], cwd=TOP, stdin=pipe, stdout=pipe, text=True)
        for _ in range(8)
    ]  # all alive until the last has answered, so no number is given twice
    said = [address for one in asked if one.stdout for address in one.stdout.readline().split()]
    for one in asked:
        one.communicate("\n")
    assert len(said) == len(set(said)) == 24
    assert all(address.startswith("127.") for address in said)
