"""How long the interface takes from a key to the paint it makes, in a directory of a running daemon.

    python -m bench.keys PATH [--socket SOCKET] [--keys 200] [--pane 1]

It runs in a terminal of its own (80x24), goes to PATH (say, a directory of ten thousand entries), opens it,
and moves the cursor up and down; with --pane in another pane. Let something happen meanwhile, as changes
being sent, and compare. Meant: under 100 ms. Exits with 1 if the median is over.
"""

import argparse
import os
import select
import statistics
import time

from bench.start import Terminal
from realmfs.cli.daemon import socket_path

MEANT = 0.100
PAUSE = 0.03
LONGEST = 5.0


def main() -> int:
    """Measure, print, and tell by the status whether it is as meant."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path")
    parser.add_argument("--socket", default=str(socket_path(None, None)))
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--pane", default="1")
    options = parser.parse_args()
    with Terminal(options.socket) as terminal:
        terminal.until_painted()
        time.sleep(1.0)
        os.write(terminal.fd, b"g" + options.path.encode() + b"\r")
        time.sleep(2.0)
        os.write(terminal.fd, b"l")
        opening = [_key(terminal.fd, key) for key in (b"j", b"k") * 20]
        os.write(terminal.fd, options.pane.encode() + b"jj")
        time.sleep(1.0)
        moving = [_key(terminal.fd, b"jk"[number % 2 : number % 2 + 1]) for number in range(options.keys)]
    for name, times in (("while it opens", opening), ("then", moving)):
        times.sort()
        most, nearly = times[-1] * 1000, times[int(len(times) * 0.95)] * 1000
        median = statistics.median(times) * 1000
        print(f"key to paint {name}: median {median:.0f} ms, 95 % within {nearly:.0f}, most {most:.0f} ms")
    return int(statistics.median(moving) > MEANT)


def _key(terminal: int, key: bytes) -> float:
    """Press a key; return the seconds until something was painted."""
    time.sleep(PAUSE)
    while select.select([terminal], [], [], 0)[0]:
        os.read(terminal, 1 << 16)
    begun = time.perf_counter()
    os.write(terminal, key)
    select.select([terminal], [], [], LONGEST)
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
