"""What is known of the path to one peer: round trip, bandwidth, and when it was heard (rpc2.md §7)."""

from __future__ import annotations

from math import inf

from realmfs.rpc2.service import LinkEstimate

INITIAL_RTO = 0.2
_LONGEST_SAMPLE = 60.0
_SMALLEST_TRANSFER = 16384
_GENERATION = 16
"""Round trips of which the shortest is kept, twice: a longer path is seen after 32 at the latest."""


class Host:
    """A peer address. Jacobson's estimator stands for the reference's own, which is a local matter."""

    __slots__ = (
        "_deviation",
        "_samples",
        "_shortest",
        "_shortest_before",
        "bandwidth",
        "last_heard",
        "loses_fragments",
        "round_trip",
    )

    def __init__(self) -> None:
        self.last_heard: float | None = None
        self.round_trip: float | None = None
        self.bandwidth: float | None = None
        self.loses_fragments = False
        """A large packet has had to be sent again."""
        self._deviation = 0.0
        self._samples = 0
        self._shortest = self._shortest_before = inf

    def sample(self, round_trip: float) -> None:
        """Take in one measured round trip, in seconds; an impossible one is ignored."""
        if not 0 <= round_trip < _LONGEST_SAMPLE:
            return
        if self._samples % _GENERATION == 0:
            self._shortest_before, self._shortest = self._shortest, inf
        self._samples += 1
        self._shortest = min(self._shortest, round_trip)
        if self.round_trip is None:
            self.round_trip = round_trip
            self._deviation = round_trip / 2
        else:
            error = round_trip - self.round_trip
            self.round_trip += error / 8
            self._deviation += (abs(error) - self._deviation) / 4

    @property
    def distance(self) -> float | None:
        """The shortest round trip of lately, in seconds; None: nothing measured yet.

        What either end is busy with makes round trips longer but the path no longer, and is the worst reason
        to do what suits a long one: that is more work.
        """
        return min(self._shortest, self._shortest_before) if self._samples else None

    def moved(self, size: int, seconds: float) -> None:
        """Take in one transfer; small ones say nothing of the bandwidth."""
        if size < _SMALLEST_TRANSFER or seconds <= 0:
            return
        rate = size / seconds
        self.bandwidth = rate if self.bandwidth is None else self.bandwidth + (rate - self.bandwidth) / 4

    @property
    def rto(self) -> float:
        """How long an answer may take before something must have been lost, in seconds."""
        if self.round_trip is None:
            return INITIAL_RTO
        return self.round_trip + max(4 * self._deviation, 0.001)

    @property
    def estimate(self) -> LinkEstimate:
        """The figures for those above."""
        return LinkEstimate(self.round_trip, self.bandwidth, self.distance)
