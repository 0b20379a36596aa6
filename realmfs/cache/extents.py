"""Which byte ranges of a file are here."""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Extents:
    """A set of byte offsets, kept as disjoint ranges that do not touch.

    Theory: `_bounds` lists where membership changes, in ascending order: start, stop, start, stop, ... So
    an index of even parity into it lies outside every range, one of odd parity inside one, and adding or
    removing a range is one slice assignment. Size: two integers per range; venus aligns partial files to
    chunks, so at most cache size / chunk size of them.
    """

    __slots__ = ("_bounds", "total")

    def __init__(self, *ranges: tuple[int, int]) -> None:
        self._bounds: list[int] = []
        self.total = 0  # bytes in the set
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Put [start, stop) in."""
        if start >= stop:
            return
        bounds = self._bounds
        if len(bounds) == 2 and bounds[0] <= start <= bounds[1]:  # the usual case: a file growing in order
            if stop > bounds[1]:
                self.total += stop - bounds[1]
                bounds[1] = stop
            return
        self.total += sum(b - a for a, b in self.holes(start, stop))
        low, high = bisect_left(bounds, start), bisect_right(bounds, stop)
        bounds[low:high] = [start] * (low % 2 == 0) + [stop] * (high % 2 == 0)

    def remove(self, start: int, stop: int) -> None:
        """Take [start, stop) out."""
        if start >= stop:
            return
        self.total -= stop - start - sum(b - a for a, b in self.holes(start, stop))
        bounds = self._bounds
        low, high = bisect_left(bounds, start), bisect_right(bounds, stop)
        bounds[low:high] = [start] * (low % 2 == 1) + [stop] * (high % 2 == 1)

    def covers(self, start: int, stop: int) -> bool:
        """Is all of [start, stop) in?"""
        index = bisect_right(self._bounds, start)
        return start >= stop or (index % 2 == 1 and self._bounds[index] >= stop)

    def holes(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of [start, stop) that are not in, in order."""
        bounds = self._bounds
        index = bisect_right(bounds, start)
        if index % 2:
            start = bounds[index]
            index += 1
        while start < stop:
            edge = bounds[index] if index < len(bounds) else stop
            yield start, min(edge, stop)
            start = bounds[index + 1] if index < len(bounds) else stop
            index += 2

    def __iter__(self) -> Iterator[tuple[int, int]]:
        pairs = iter(self._bounds)
        return zip(pairs, pairs, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Extents) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]  # a mutable set has no hash

    def __repr__(self) -> str:
        return "Extents(" + ", ".join(f"({a}, {b})" for a, b in self) + ")"

    def pack(self) -> bytes:
        """Return the ranges as little-endian 64-bit pairs, for the database."""
        return struct.pack(f"<{len(self._bounds)}Q", *self._bounds)

    @classmethod
    def unpack(cls, packed: bytes) -> "Extents":
        """Read what `pack` wrote."""
        extents = cls()
        extents._bounds = list(struct.unpack(f"<{len(packed) // 8}Q", packed))
        extents.total = sum(stop - start for start, stop in extents)
        return extents
