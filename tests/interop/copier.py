"""Copy a file on a node as cp does, and tell how long the reader stood still.

    python -m tests.interop.copier SOURCE TARGET SIGNAL FRACTION

Makes the file SIGNAL when that fraction has been read; prints {seconds, longest gap, where} as JSON.
"""

import json
import sys
import time
from pathlib import Path

BLOCK = 128 << 10


def main(source: str, target: str, signal: str, fraction: float) -> None:
    longest, where, read = 0.0, 0, 0
    begun = last = time.monotonic()
    with Path(source).open("rb", buffering=0) as file, Path(target).open("wb") as copy:
        mark = Path(source).stat().st_size * fraction
        while data := file.read(BLOCK):
            now = time.monotonic()
            if now - last > longest:
                longest, where = now - last, read
            if read < mark <= read + len(data):
                Path(signal).touch()
            read += len(data)
            copy.write(data)
            last = time.monotonic()
    answer = {"seconds": time.monotonic() - begun, "gap": longest, "at": where}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
