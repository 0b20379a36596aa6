"""Addresses of this machine for servers that are processes of their own.

Several runs of the tests, and several rings of one run, go on at a time. What they serve must not meet, also
not where a port is written down before its server is there. So an address is made of the number of the
process that runs the tests: no two living processes have the same, and 127/8 has room for all of them.
"""

import os


def own_address(number: int = 1) -> str:
    """Return the address `number`, one of 1, 2, 3, that is this process's alone."""
    assert number in {1, 2, 3}  # 127.0.x.x is left to what has a fixed address
    pid = os.getpid()  # below 2 ** 22
    return f"127.{number << 6 | pid >> 16}.{pid >> 8 & 255}.{pid & 255}"
