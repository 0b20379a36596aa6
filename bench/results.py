"""What was measured, as a table for people and as JSON for everything else.

Seconds are the median of the runs. A ratio is ours divided by the peer's of the same line in the same run of
the benchmark: below 1 we are faster. Absolute seconds belong to the machine named above the table and to no
other.
"""

import statistics
import sys
from dataclasses import dataclass, field
from typing import Any

from bench.plan import MOUNT, Line


@dataclass
class Results:
    """Seconds of every line and subject, one for each run; failures; what the subjects said about
    themselves.
    """

    seconds: dict[Line, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, line: Line, subject: str, seconds: float) -> None:
        self.seconds.setdefault(line, {}).setdefault(subject, []).append(seconds)

    def fail(self, subject: str, what: str, error: Exception) -> None:
        text = f"{subject}: {what}: {error}"
        self.failures.append(text)
        print(f"bench: FAILED {text}", file=sys.stderr, flush=True)

    @property
    def lines(self) -> list[Line]:
        """The lines in the order in which they were first measured, the mount last."""
        return sorted(self.seconds, key=lambda line: line == MOUNT)

    def median(self, line: Line, subject: str) -> float | None:
        values = self.seconds.get(line, {}).get(subject)
        return statistics.median(values) if values else None

    def ratio(self, line: Line, ours: str, peer: str) -> float | None:
        """Our seconds divided by the peer's, if both were measured."""
        mine, theirs = self.median(line, ours), self.median(line, peer)
        return None if mine is None or not theirs else mine / theirs

    def as_json(self, ours: str, peers: list[str]) -> dict[str, Any]:
        return {
            "lines": [
                {
                    "work": line.work,
                    "state": line.state,
                    "seconds": {
                        subject: {"median": statistics.median(values), "runs": values}
                        for subject, values in self.seconds[line].items()
                    },
                    "ratios": {peer: self.ratio(line, ours, peer) for peer in peers},
                }
                for line in self.lines
            ],
            "about": self.about,
            "left_out": self.left_out,
            "failures": self.failures,
        }

    def table(self, ours: str, peers: list[str]) -> str:
        """Plain text: a line each, seconds of every subject, ratios of ours to every peer."""
        head = ["", *(f"{name} s" for name in (ours, *peers)), *(f"{ours}/{peer}" for peer in peers)]
        rows = [head]
        for line in self.lines:
            seconds = [_seconds(self.median(line, name)) for name in (ours, *peers)]
            ratios = [_ratio(self.ratio(line, ours, peer)) for peer in peers]
            rows.append([str(line), *seconds, *ratios])
        return columns(rows)


def columns(rows: list[list[str]]) -> str:
    """Align: the first column to the left, the others to the right."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
