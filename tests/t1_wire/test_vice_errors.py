"""Error numbers: the reference's table, both ways, and what users get to read."""

from __future__ import annotations

import errno
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.vice.errors import CodaError, Code, from_errno, to_errno, translate
from tests.t1_wire.vectors import load

ERRORS = load("vice")["errors"]
INTERNAL = {Code.ESYNRESOLVE, Code.EASYRESOLVE, Code.ERETRY}


@pytest.mark.parametrize(("name", "number"), ERRORS["positive"])
def test_wire_numbers_are_those_of_the_reference(name: str, number: int) -> None:
    assert Code[ERRORS["aliases"].get(name, name)] == number


def test_there_are_no_other_numbers() -> None:
    known = {number for _, number in ERRORS["positive"]}
    assert {int(code) for code in Code} - known == {0, 4711} | set(INTERNAL)


@pytest.mark.parametrize("name", ERRORS["unmapped_examples"])
def test_errors_without_a_number_become_unknown(name: str) -> None:
    assert from_errno(getattr(errno, name)) is Code.UNKNOWN


@pytest.mark.parametrize("code", [code for code in Code if code and hasattr(errno, code.name)])
def test_errnos_go_to_the_wire_and_back(code: Code) -> None:
    assert from_errno(to_errno(code)) is code


def test_the_numbers_are_not_linux_ones() -> None:
    assert to_errno(35) == errno.EAGAIN != 35
    assert to_errno(60) == errno.ETIMEDOUT != 60
    assert from_errno(errno.ENOTEMPTY) == 66
    assert from_errno(errno.ENOTSUP) is Code.EOPNOTSUPP
    assert (to_errno(0), from_errno(0)) == (0, Code.SUCCESS)


@given(number=st.integers(-(2**31), 2**31 - 1))
def test_every_error_has_an_errno_and_a_text(number: int) -> None:
    error = CodaError(number, "storing a file")
    assert error.errno > 0
    assert str(error).startswith("storing a file: ")
    assert translate(number) in Code


@pytest.mark.parametrize("code", [code for code in Code if code])
def test_errors_name_themselves(code: Code) -> None:
    assert str(CodaError(code)).endswith("(error 4711)" if code is Code.UNKNOWN else f"({code.name})")
    assert CodaError(code).code is code


def test_an_unknown_number_is_shown() -> None:
    assert str(CodaError(499)) == "the server answered with an unknown error (error 499)"


def test_errors_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(CodaError(Code.EINCONS, "opening /coda/x")))
    assert (again.code, again.text, again.errno) == (Code.EINCONS, "opening /coda/x", errno.EUCLEAN)


def test_failures_of_this_machine_keep_their_errno() -> None:
    assert CodaError.from_oserror(OSError(errno.ENOSPC, "full")).code is Code.ENOSPC
    assert CodaError.from_oserror(OSError("odd")).code is Code.EIO


@pytest.mark.parametrize(
    ("result", "meaning"),
    [
        (0, Code.SUCCESS),
        (-2001, Code.ETIMEDOUT),
        (-2002, Code.ETIMEDOUT),
        (-2003, Code.ETIMEDOUT),
        (-2004, Code.ETIMEDOUT),
        (-2015, Code.ETIMEDOUT),
        (-2014, Code.ETIMEDOUT),
        (-2016, Code.ERETRY),
        (-2007, Code.ERETRY),
        (-1002, Code.EIO),
        (-2017, Code.EIO),
        (-2018, Code.EIO),
        (-3, Code.EOPNOTSUPP),
        (-4, Code.EINVAL),
        (-2009, Code.EPERM),
        (110, Code.EWOULDBLOCK),
        (103, Code.ENXIO),
        (102, Code.ENOENT),
        (113, Code.EALREADY),
        (106, Code.EINVAL),
        (198, Code.ERETRY),
        (199, Code.EINCONS),
        (13, Code.EACCES),
        (156, Code.UNKNOWN),
        (157, Code.UNKNOWN),
        (12345, Code.UNKNOWN),
    ],
)
def test_results_are_translated_for_collating(result: int, meaning: Code) -> None:
    assert translate(result) is meaning


def test_a_reintegration_sees_the_conflict_itself() -> None:
    assert translate(198, reintegrating=True) is Code.EINCOMPATIBLE
    assert translate(110, reintegrating=True) is Code.EWOULDBLOCK
