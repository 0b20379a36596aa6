"""Lines and messages, without a socket."""

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.control import messages
from realmfs.control.protocol import ControlError, Kind, decode, line_of, parse_request
from realmfs.control.walk import split

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_control_error(line: bytes) -> None:
    with contextlib.suppress(ControlError):
        parse_request(line)


@given(
    st.fixed_dictionaries(
        {}, optional={"jsonrpc": st.just("2.0") | values, "id": values, "method": values, "params": values}
    )
)
def test_any_json_is_a_request_or_a_control_error(message: dict[str, Any]) -> None:
    try:
        request = parse_request(json.dumps(message).encode())
    except ControlError:
        return
    assert isinstance(request.method, str)
    assert isinstance(request.params, dict)


@pytest.mark.parametrize("line", [b"[" * 100_000, b"9" * 10_000, b'"\xff"', b"", b"{}\0"])
def test_lines_made_to_break_a_parser(line: bytes) -> None:
    with pytest.raises(ControlError):
        parse_request(line)


@given(st.dictionaries(st.sampled_from(["path", "position", "limit", "attributes", "other"]), values))
def test_parameters_have_their_types_or_are_refused(params: dict[str, Any]) -> None:
    try:
        message = decode(messages.List, params)
    except ControlError:
        return
    assert [type(value) for value in dataclasses.astuple(message)] == [str, int, int, bool]


@dataclass(frozen=True)
class Everything:
    name: str
    number: int = 1
    part: float = 0.5
    maybe: str | None = None
    switch: bool = False


@given(
    st.builds(
        Everything,
        st.text(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.text(),
        st.booleans(),
    )
)
def test_a_message_survives_its_line(message: Everything) -> None:
    line = line_of({"params": message})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(Everything, json.loads(line)["params"]) == message


def test_names_that_are_no_text_survive() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert json.loads(line_of({"name": name}))["name"] == name
    assert split(f"/a//./{name}/") == [b"a", b"caf\xe9"]


def test_an_error_survives_its_line() -> None:
    error = ControlError.of_errno(110, "too slow")
    again = ControlError.from_json(json.loads(line_of({"error": error.to_json()}))["error"])
    assert (again.code, again.text, again.number, again.kind) == (1, "too slow", 110, Kind.UNREACHABLE)


@given(values)
def test_errors_of_other_versions_are_read(error: Any) -> None:
    assert isinstance(ControlError.from_json(error), ControlError)


def test_lists_of_messages_are_decoded_and_checked() -> None:
    params = {"path": "r/d", "entries": [{"name": "alice", "rights": "rl"}]}
    decoded = decode(messages.SetAcl, params)
    assert decoded.entries == [messages.AclEntry("alice", "rl")]
    for wrong in ("alice", [1], [{"name": "alice"}], [{"name": "alice", "rights": 1}], {"name": "alice"}):
        with pytest.raises(ControlError):
            decode(messages.SetAcl, params | {"entries": wrong})
