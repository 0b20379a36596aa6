"""vice.md §6.3, §6.4, §7.2: every row of the collation and translation tables."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.realms.collate import Verdict, collate_read, collate_update, meaning, verdict
from realmfs.rpc2.codes import Rpc2Code
from realmfs.vice.errors import Code

OK, EASY, SYNC, RETRY = Code.SUCCESS, Code.EASYRESOLVE, Code.ESYNRESOLVE, Code.ERETRY
TIMEOUT, BUSY, ACCES, IO, INVAL, NXIO = (
    Code.ETIMEDOUT,
    Code.EWOULDBLOCK,
    Code.EACCES,
    Code.EIO,
    Code.EINVAL,
    Code.ENXIO,
)
NOENT, INCONS, NOSPC, DQUOT, INCOMPAT = (
    Code.ENOENT,
    Code.EINCONS,
    Code.ENOSPC,
    Code.EDQUOT,
    Code.EINCOMPATIBLE,
)

READING = [
    ([], TIMEOUT),
    ([TIMEOUT, TIMEOUT], TIMEOUT),
    ([OK], OK),
    ([OK, OK, OK], OK),
    ([NOENT, NOENT], NOENT),
    ([INCONS, INCONS, INCONS], INCONS),
    ([NOSPC, NOSPC], INVAL),
    ([DQUOT], INVAL),
    ([OK, RETRY], RETRY),
    ([NOENT, RETRY, TIMEOUT], RETRY),
    ([OK, TIMEOUT], EASY),
    ([OK, INVAL], EASY),
    ([OK, NXIO, TIMEOUT], EASY),
    ([OK, IO], EASY),
    ([OK, ACCES], EASY),
    ([OK, BUSY], EASY),
    ([OK, TIMEOUT, INVAL, NXIO, IO, ACCES, BUSY], EASY),
    ([NOENT, TIMEOUT], NOENT),
    ([NOENT, BUSY], NOENT),
    ([INVAL, IO], IO),
    ([ACCES, BUSY], BUSY),
    ([INCONS, TIMEOUT], INCONS),
    ([OK, NOENT], SYNC),
    ([OK, INCONS], SYNC),
    ([OK, INCONS, TIMEOUT], SYNC),
    ([NOENT, INCONS], SYNC),
]

UPDATING = [
    ([], TIMEOUT, TIMEOUT),
    ([TIMEOUT], TIMEOUT, TIMEOUT),
    ([OK, OK], OK, OK),
    ([INCOMPAT, INCOMPAT], INCOMPAT, INCOMPAT),
    ([RETRY, RETRY], RETRY, RETRY),
    ([OK, TIMEOUT], EASY, EASY),
    ([OK, NOSPC], EASY, EASY),
    ([OK, DQUOT, NOSPC, ACCES, BUSY], EASY, EASY),
    ([NOSPC, DQUOT], RETRY, RETRY),
    ([NOSPC, ACCES], ACCES, ACCES),
    ([OK, INCOMPAT], EASY, EASY),
    ([OK, NOENT, Code.EEXIST], EASY, EASY),
    ([NOENT, Code.EEXIST], RETRY, RETRY),
    ([NOENT, Code.EALREADY], RETRY, Code.EALREADY),
    ([Code.EALREADY, TIMEOUT], Code.EALREADY, Code.EALREADY),
    ([NOENT, INCOMPAT], RETRY, RETRY),
    ([BUSY, BUSY], BUSY, BUSY),
]


@pytest.mark.parametrize(("codes", "expected"), READING)
def test_reading(codes: list[Code], expected: Code) -> None:
    assert collate_read(codes) is expected


@pytest.mark.parametrize(("codes", "otherwise", "reintegrating"), UPDATING)
def test_updating(codes: list[Code], otherwise: Code, reintegrating: Code) -> None:
    assert collate_update(codes, reintegrating=False) is otherwise
    assert collate_update(codes, reintegrating=True) is reintegrating


CODES = st.lists(st.sampled_from([code for code in Code if code not in (EASY, SYNC)]), min_size=1, max_size=8)


@given(CODES, st.randoms())
def test_order_does_not_matter(codes: list[Code], random: random.Random) -> None:
    shuffled = list(codes)
    random.shuffle(shuffled)
    assert collate_read(codes) is collate_read(shuffled)
    assert collate_update(codes, True) is collate_update(shuffled, True)


@given(CODES)
def test_success_needs_a_server_that_succeeded(codes: list[Code]) -> None:
    if collate_read(codes) in (OK, EASY):
        assert OK in codes
    if collate_update(codes, False) in (OK, EASY):
        assert OK in codes


@given(CODES)
def test_an_update_that_anyone_executed_is_never_called_a_failure(codes: list[Code]) -> None:
    if OK in codes:
        assert collate_update(codes, True) in (OK, EASY, Code.EALREADY)


@pytest.mark.parametrize(
    ("result", "code", "server"),
    [
        (0, OK, Verdict.ALIVE),
        (Rpc2Code.FAIL, TIMEOUT, Verdict.DEAD),
        (Rpc2Code.NOCONNECTION, TIMEOUT, Verdict.DEAD),
        (Rpc2Code.TIMEOUT, TIMEOUT, Verdict.DEAD),
        (Rpc2Code.DEAD, TIMEOUT, Verdict.DEAD),
        (Rpc2Code.SEFAIL2, TIMEOUT, Verdict.DEAD),
        (Rpc2Code.NOBINDING, TIMEOUT, Verdict.DEAD),
        (Rpc2Code.NAKED, RETRY, Verdict.FORGOT),
        (Rpc2Code.NOTCLIENT, RETRY, Verdict.FORGOT),
        (Rpc2Code.SEFAIL1, IO, Verdict.ALIVE),
        (Rpc2Code.SEFAIL3, IO, Verdict.ALIVE),
        (Rpc2Code.SEFAIL4, IO, Verdict.ALIVE),
        (Rpc2Code.INVALIDOPCODE, Code.EOPNOTSUPP, Verdict.ALIVE),
        (Rpc2Code.BADDATA, INVAL, Verdict.ALIVE),
        (Code.VBUSY, BUSY, Verdict.ALIVE),
        (Code.VNOVOL, NXIO, Verdict.ALIVE),
        (Code.VNOVNODE, NOENT, Verdict.ALIVE),
        (Code.VLOGSTALE, Code.EALREADY, Verdict.ALIVE),
        (Code.VOFFLINE, INVAL, Verdict.ALIVE),
        (Code.VFAIL, INVAL, Verdict.ALIVE),
        (Code.EACCES, ACCES, Verdict.ALIVE),
        (4711, INVAL, Verdict.ALIVE),
        (99999, INVAL, Verdict.ALIVE),
        (155, INVAL, Verdict.ALIVE),  # what only clients may say
        (156, INVAL, Verdict.ALIVE),
        (157, INVAL, Verdict.ALIVE),
    ],
)
def test_one_server(result: int, code: Code, server: Verdict) -> None:
    assert meaning(result) is code
    assert verdict(result) is server


def test_an_old_version_is_a_conflict_only_for_a_log() -> None:
    assert meaning(Code.EINCOMPATIBLE) is RETRY
    assert meaning(Code.EINCOMPATIBLE, reintegrating=True) is INCOMPAT
