"""The work that is timed: one small program, the same for every file system and on every node.

Run as a script in a process of its own (`python3 work.py JOB DIRECTORY ...`), standard library only, so that
a node with nothing but a Python can run it. Only the work is timed: not the start of Python, not making the
bytes to write. Prints one JSON object: `seconds`, `objects`, `bytes`, for a big read also `open_seconds`.
"""

import argparse
import hashlib
import json
import os
import time
from pathlib import Path

READ_SIZE = 128 * 1024
WRITE_SIZE = 128 * 1024


def small_name(number: int) -> str:
    return f"f{number:04d}"


def walk(top: Path) -> dict[str, float]:
    """Every name and every status below `top`, depth first, in the order in which they are listed."""
    objects = 0
    size = 0
    start = time.perf_counter()
    waiting = [os.fspath(top)]
    while waiting:
        directory = waiting.pop()
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            status = os.lstat(path)
            objects += 1
            size += status.st_size
            if status.st_mode & 0o170000 == 0o040000:
                waiting.append(path)
    return {"seconds": time.perf_counter() - start, "objects": objects, "bytes": size}


def read_small(top: Path, count: int) -> dict[str, float]:
    """Open, read and close files one after the other, by name: nothing is listed first."""
    size = 0
    start = time.perf_counter()
    for number in range(count):
        with open(f"{top}/{small_name(number)}", "rb", buffering=0) as file:
            while data := file.read(READ_SIZE):
                size += len(data)
    return {"seconds": time.perf_counter() - start, "objects": count, "bytes": size}


def read_big(path: Path) -> dict[str, float]:
    """One file from its start to its end."""
    size = 0
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        opened = time.perf_counter()
        while data := file.read(READ_SIZE):
            size += len(data)
    end = time.perf_counter()
    return {"seconds": end - start, "open_seconds": opened - start, "objects": 1, "bytes": size}


def write_files(top: Path, count: int, size: int) -> dict[str, float]:
    """Create, write and close `count` files of `size` bytes, one after the other, until the last close
    returned.
    """
    contents = [os.urandom(size) for _ in range(count)]
    start = time.perf_counter()
    for number, data in enumerate(contents):
        with open(f"{top}/{small_name(number)}", "xb", buffering=0) as file:
            view = memoryview(data)
            file.writelines(view[offset : offset + WRITE_SIZE] for offset in range(0, size, WRITE_SIZE))
    return {"seconds": time.perf_counter() - start, "objects": count, "bytes": count * size}


def digest(top: Path) -> dict[str, float | str]:
    """Not a measurement: one SHA-256 over all names and contents below `top`, in sorted order."""
    whole = hashlib.sha256()
    objects = 0
    start = time.perf_counter()
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            whole.update(f"{path.relative_to(top)}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    whole.update(data)
            objects += 1
    return {
        "seconds": time.perf_counter() - start,
        "objects": objects,
        "bytes": 0,
        "sha256": whole.hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("walk", "read-small", "read-big", "write", "digest"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--size", type=int, default=0)
    options = parser.parse_args()
    result: dict[str, float] | dict[str, float | str]
    match options.job:
        case "walk":
            result = walk(options.path)
        case "read-small":
            result = read_small(options.path, options.count)
        case "read-big":
            result = read_big(options.path)
        case "write":
            result = write_files(options.path, options.count, options.size)
        case _:
            result = digest(options.path)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
