"""What is measured: the lines of the table, and how each is made."""

from dataclasses import dataclass

from bench.data import KIB, MIB, Sizes

COLD, WARM, RESTARTED = "cold", "warm", "warm after a restart"
CLOSED, DRAINED = "until close", "until at the server"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was done and in which state."""

    work: str
    state: str

    def __str__(self) -> str:
        return f"{self.work}, {self.state}"


MOUNT = Line("mount", "until the first listing")


@dataclass(frozen=True, slots=True)
class Reading:
    """A data set to read: the job of `work.py`, its place below the data directory, and what must come."""

    work: str
    job: str
    place: str
    objects: int
    bytes: int

    @property
    def options(self) -> tuple[str, ...]:
        return ("--count", str(self.objects)) if self.job == "read-small" else ()

    def line(self, state: str) -> Line:
        return Line(self.work, state)


@dataclass(frozen=True, slots=True)
class Writing:
    """New files to write: how many, and bytes of each."""

    work: str
    count: int
    size: int

    @property
    def options(self) -> tuple[str, ...]:
        return ("--count", str(self.count), "--size", str(self.size))

    def line(self, state: str) -> Line:
        return Line(self.work, state)


def tree(sizes: Sizes) -> Reading:
    return Reading(f"walk {sizes.tree_objects} names and statuses", "walk", "tree", sizes.tree_objects, 0)


def small(sizes: Sizes) -> Reading:
    work = f"read {sizes.small_files} x {sizes.small_size // KIB} KiB"
    return Reading(work, "read-small", "small", sizes.small_files, sizes.small_files * sizes.small_size)


def big(sizes: Sizes) -> Reading:
    return Reading(f"read {sizes.big_size // MIB} MiB", "read-big", "big", 1, sizes.big_size)


def write_small(sizes: Sizes) -> Writing:
    work = f"write {sizes.written_files} x {sizes.small_size // KIB} KiB"
    return Writing(work, sizes.written_files, sizes.small_size)


def write_big(sizes: Sizes) -> Writing:
    return Writing(f"write {sizes.big_size // MIB} MiB", 1, sizes.big_size)
