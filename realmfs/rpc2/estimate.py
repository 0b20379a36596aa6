"""What is known of the path to one peer: round trip, bandwidth, and when it was heard (rpc2.md §7)."""

from __future__ import annotations

from realmfs.rpc2.service import LinkEstimate

INITIAL_RTO = 0.2
_LONGEST_SAMPLE = 60.0
_SMALLEST_TRANSFER = 16384


class Host:
    """A peer address. Jacobson's estimator stands for the reference's own, which is a local matter."""

    __slots__ = ("_deviation", "bandwidth", "last_heard", "loses_fragments", "round_trip")

    def __init__(self) -> None:
        self.last_heard: float | None = None
        self.round_trip: float | None = None
        self.bandwidth: float | None = None
        self.loses_fragments = False
        """A large packet has had to be sent again."""
        self._deviation = 0.0

    def sample(self, round_trip: float) -> None:
        """Take in one measured round trip, in seconds; an impossible one is ignored."""
        if not 0 <= round_trip < _LONGEST_SAMPLE:
            return
        if self.round_trip is None:
            self.round_trip = round_trip
            self._deviation = round_trip / 2
        else:
            error = round_trip - self.round_trip
            self.round_trip += error / 8
            self._deviation += (abs(error) - self._deviation) / 4

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
        return LinkEstimate(self.round_trip, self.bandwidth)
