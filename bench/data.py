"""What is read: three data sets below one directory, the same bytes at every run."""

import random
from dataclasses import dataclass
from pathlib import Path

from bench.work import small_name

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work: numbers of files and bytes."""

    directories: int = 50
    files_in_directory: int = 20
    small_files: int = 2000
    small_size: int = 4 * KIB
    big_size: int = 64 * MIB
    written_files: int = 1000

    @property
    def tree_objects(self) -> int:
        return self.directories * (1 + self.files_in_directory)


FULL = Sizes()
QUICK = Sizes(directories=10, small_files=200, big_size=8 * MIB, written_files=100)


def make(top: Path, sizes: Sizes) -> None:
    """Write `tree/` (names to walk), `small/` and `big` into the empty directory `top`."""
    source = random.Random(1987)
    for number in range(sizes.directories):
        directory = top / "tree" / f"d{number:02d}"
        directory.mkdir(parents=True)
        for entry in range(sizes.files_in_directory):
            (directory / small_name(entry)).write_bytes(source.randbytes(16))
    small = top / "small"
    small.mkdir()
    for number in range(sizes.small_files):
        (small / small_name(number)).write_bytes(source.randbytes(sizes.small_size))
    with (top / "big").open("wb") as file:
        for _ in range(0, sizes.big_size, MIB):
            file.write(source.randbytes(MIB))
