"""What follows from how a batch ended: the table of reintegration.md §2.5, and what goes beyond it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms.types import Reintegrated
from realmfs.venus.outcome import PATIENT, Next, judge
from realmfs.vice.errors import Code


def outcome(code: Code, *, uncertain: bool = False, index: int = -1) -> Reintegrated:
    return Reintegrated(code, index, (0,) if code is Code.SUCCESS else (), uncertain)


def next_of(
    result: Reintegrated, *, was_sent: bool = False, by_handle: bool = False, failures: int = 0
) -> Next:
    return judge(
        result, was_sent=was_sent, last=7, by_handle=by_handle, as_nobody=False, failures=failures
    ).next


@pytest.mark.parametrize(
    ("code", "then"),
    [
        (Code.SUCCESS, Next.COMMIT),
        (Code.ETIMEDOUT, Next.AGAIN),
        (Code.EWOULDBLOCK, Next.AGAIN),
        (Code.ERETRY, Next.AGAIN),
        (Code.EALREADY, Next.AGAIN),
        (Code.EDQUOT, Next.AGAIN),
        (Code.ENOSPC, Next.AGAIN),
        (Code.EIO, Next.AGAIN),
        (Code.EACCES, Next.REFUSED),
        (Code.EINCOMPATIBLE, Next.REFUSED),
        (Code.EEXIST, Next.REFUSED),
        (Code.EINCONS, Next.REFUSED),
    ],
)
def test_a_batch_that_was_not_sent_before(code: Code, then: Next) -> None:
    assert next_of(outcome(code)) is then


def test_already_done_is_believed_of_what_was_sent_before_alone() -> None:
    assert next_of(outcome(Code.EALREADY, index=7), was_sent=True) is Next.FOUND
    assert next_of(outcome(Code.EALREADY, index=6), was_sent=True) is Next.UNKNOWN
    assert next_of(outcome(Code.EALREADY, index=7)) is Next.AGAIN
    assert next_of(outcome(Code.EALREADY), was_sent=True, by_handle=True) is Next.FOUND
    assert next_of(outcome(Code.EALREADY), by_handle=True) is Next.AGAIN


def test_trouble_that_does_not_pass_becomes_a_refusal() -> None:
    assert next_of(outcome(Code.EINVAL), failures=PATIENT - 1) is Next.AGAIN
    assert next_of(outcome(Code.EINVAL), failures=PATIENT) is Next.REFUSED


def test_what_goes_as_nobody_waits_for_a_login() -> None:
    result = judge(outcome(Code.EACCES), was_sent=False, last=7, by_handle=False, as_nobody=True, failures=0)
    assert (result.next, result.why) == (Next.AGAIN, "tokens")


@pytest.mark.parametrize(("was_sent", "then"), [(False, Next.AGAIN), (True, Next.UNKNOWN)])
def test_what_is_refused_by_servers_that_are_behind_waits(was_sent: bool, then: Next) -> None:
    result = judge(
        outcome(Code.ENOENT), was_sent=was_sent, last=7, by_handle=False, as_nobody=False, failures=0,
        behind=True,
    )  # fmt: skip
    assert result.next is then


@given(st.sampled_from(Code), st.booleans(), st.booleans(), st.integers(-1, 9))
def test_an_uncertain_outcome_is_never_taken_back(
    code: Code, was_sent: bool, by_handle: bool, index: int
) -> None:
    """Thawed records get new store ids: what some server may have executed under the old must keep them."""
    if code is Code.SUCCESS:
        return
    then = next_of(outcome(code, uncertain=True, index=index), was_sent=was_sent, by_handle=by_handle)
    assert then in (Next.UNKNOWN, Next.FOUND)
