"""What is known of the path to a peer."""

from hypothesis import given
from hypothesis import strategies as st

from realmfs.rpc2.estimate import Host

ROUND_TRIPS = st.floats(min_value=0.0001, max_value=1.0)


@given(st.lists(ROUND_TRIPS, max_size=40), ROUND_TRIPS, st.lists(ROUND_TRIPS, max_size=15))
def test_one_undisturbed_round_trip_among_slow_ones_tells_the_distance(
    before: list[float], undisturbed: float, after: list[float]
) -> None:
    host = Host()
    for sample in before:
        host.sample(sample + undisturbed)
    host.sample(undisturbed)
    for sample in after:
        host.sample(undisturbed + sample)
    assert host.distance == undisturbed


@given(st.lists(ROUND_TRIPS, max_size=40))
def test_a_path_that_became_longer_is_seen_after_32_round_trips(before: list[float]) -> None:
    host = Host()
    for sample in before:
        host.sample(sample)
    for _ in range(32):
        host.sample(2.0)
    assert host.distance == 2.0


def test_nothing_is_known_before_the_first_answer() -> None:
    assert Host().distance is None
