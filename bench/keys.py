"""How long the interface takes from a key to the paint it makes, in a directory of a running daemon.

    python -m bench.keys PATH [--socket SOCKET] [--keys 200] [--pane 3]

It runs in a terminal of its own (80x24), goes to PATH (say, a directory of ten thousand entries), opens it,
moves the cursor up and down; then opens and closes the help over another pane; then types into the filter of
Events. Each of these keys makes a paint of its own: a key that changes nothing would be timed until the next
tick. Let something happen meanwhile, as changes being sent, and compare; say how busy the machine is, for a
busy one is what is measured. Meant: under 100 ms. Exits with 1 if a median is over.
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
    parser.add_argument("--pane", default="3")
    options = parser.parse_args()
    with Terminal(options.socket) as terminal:
        terminal.until_painted()
        _rest(terminal.fd, 1.0)
        os.write(terminal.fd, b"g" + options.path.encode() + b"\r")
        _rest(terminal.fd, 2.0)
        os.write(terminal.fd, b"l")
        measured = {"moving while it opens": _keys(terminal.fd, b"jk", 40)}
        _rest(terminal.fd, 1.0)
        measured["moving"] = _keys(terminal.fd, b"jk", options.keys)
        os.write(terminal.fd, options.pane.encode())
        _rest(terminal.fd, 1.0)
        measured[f"help over pane {options.pane}"] = _keys(terminal.fd, b"??", options.keys)
        for key in (b"6", b"/"):
            os.write(terminal.fd, key)
            _rest(terminal.fd, 1.0)
        measured["typing into the filter of Events"] = _keys(terminal.fd, b"a\x7f", options.keys)
    print("load", *(f"{each:.1f}" for each in os.getloadavg()))
    for name, times in measured.items():
        times.sort()
        most, nearly = times[-1] * 1000, times[int(len(times) * 0.95)] * 1000
        median = statistics.median(times) * 1000
        print(f"key to paint, {name}: median {median:.0f} ms, 95 % within {nearly:.0f}, most {most:.0f} ms")
    return int(any(statistics.median(times) > MEANT for times in measured.values()))


def _keys(terminal: int, keys: bytes, count: int) -> list[float]:
    """Press keys in turn; return the seconds until each was painted."""
    return [_key(terminal, keys[number % len(keys) :][:1]) for number in range(count)]


def _rest(terminal: int, seconds: float) -> None:
    """Read what is painted for so long."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 1 << 16)


def _key(terminal: int, key: bytes) -> float:
    """Press a key; return the seconds until something was painted."""
    _rest(terminal, PAUSE)
    begun = time.perf_counter()
    os.write(terminal, key)
    select.select([terminal], [], [], LONGEST)
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
