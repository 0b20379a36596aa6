r"""JSON-RPC 2.0 on lines: one message per line, UTF-8, `\n` at the end, at most `LINE_LIMIT` bytes.

The first request is `hello`: it tells which version of the methods and messages the caller knows
(`VERSION`), and a daemon that has another one says so, in words, instead of answers that the caller would
misread. Only `daemon.stop` is understood without it, by every version.

Requests carry an `id` and named parameters; batches and positional parameters are not used. Answers come in
any order. The server also sends notifications of method `event` after `events.watch`. Names of files that
are not UTF-8 travel as lone surrogates (PEP 383). Contents of files travel through a pipe, whose end comes
as a descriptor with the answer to `file.open`.

Errors carry the JSON-RPC code, a text for people, and in `data` the errno's name and the `kind` that
decides a command's exit status. Whoever connects is untrusted: `parse_request` raises ControlError whatever
the bytes are.
"""

import dataclasses
import errno
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

VERSION = 2
"""Of the methods and messages: raised by every change that a caller of the version before would notice."""
HELLO = "hello"
LINE_LIMIT = 1 << 20
_CUT = 100
DESCRIPTORS = "descriptors"
"""Beside the result: how many descriptors came with this answer (SCM_RIGHTS, with its first byte)."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
FAILED = 1


class Kind(Enum):
    """Why a request failed, as far as a script wants to know."""

    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNAUTHENTICATED = "unauthenticated"
    CONFLICT = "conflict"
    VERSION = "version"


_UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOTCONN, errno.ECONNREFUSED)


class ControlError(Exception):
    """A request that failed; `code` is JSON-RPC's."""

    def __init__(self, code: int, text: str, *, number: int = 0, kind: Kind = Kind.FAILED) -> None:
        """`number` is an errno, 0 if there is none."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.number = number
        self.kind = kind

    @classmethod
    def of_errno(cls, number: int, text: str) -> "ControlError":
        """Return the failure of a file operation."""
        kind = Kind.UNREACHABLE if number in _UNREACHABLE else Kind.FAILED
        return cls(FAILED, text, number=number, kind=Kind.CONFLICT if number == errno.EUCLEAN else kind)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-RPC's error object."""
        data = {"kind": self.kind.value, "errno": errno.errorcode.get(self.number)}
        return {"code": self.code, "message": self.text, "data": data}

    @classmethod
    def from_json(cls, error: Any) -> "ControlError":
        """Read an error object, leniently: it comes from our own daemon, perhaps of another version."""
        if not isinstance(error, Mapping):
            return cls(INTERNAL_ERROR, str(error))
        data = error.get("data")
        details = data if isinstance(data, Mapping) else {}
        kinds = {kind.value: kind for kind in Kind}
        return cls(
            error.get("code", INTERNAL_ERROR),
            str(error.get("message", "no reason was given")),
            number=getattr(errno, str(details.get("errno")), 0),
            kind=kinds.get(str(details.get("kind")), Kind.FAILED),
        )


def other_version(caller: str, daemon: str) -> ControlError:
    """Return the refusal of a caller whose methods are not the daemon's; both are said in words."""
    text = (
        f"the caller is {caller}, the daemon is {daemon}: they do not understand each other. "
        "Stop the daemon (realmfs unmount) and start it in the caller's version (realmfs mount)"
    )
    return ControlError(INVALID_REQUEST, text, number=errno.EPROTO, kind=Kind.VERSION)


def speaker(release: object, version: object) -> str:
    """Return who speaks which version, in words."""
    return f"realmfs {str(release)[:40] or '?'} (control protocol {str(version)[:10]})"


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed line; `id` is None for a notification, which gets no answer."""

    id: int | str | None
    method: str
    params: Mapping[str, Any]


def parse_request(line: bytes) -> Request:
    """Read one line from a stranger. Raises ControlError only."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError(PARSE_ERROR, "the line is not JSON") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise ControlError(INVALID_REQUEST, 'a request is an object with "jsonrpc": "2.0"')
    identity, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if isinstance(identity, bool) or not isinstance(identity, int | str | None):
        raise ControlError(INVALID_REQUEST, "an id is a number or a text")
    if not isinstance(method, str):
        raise ControlError(INVALID_REQUEST, "a method is a text")
    if not isinstance(params, dict):
        raise ControlError(INVALID_PARAMS, "parameters are given by name")
    return Request(identity, method, params)


def line_of(message: Mapping[str, Any]) -> bytes:
    """Return the message as a line."""
    return _dumps(message).encode("ascii") + b"\n"


def pieces_of(message: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the message's line in pieces, none of which takes long to make: long lists are cut."""
    yield from (piece.encode("ascii") for piece in _pieces(message))
    yield b"\n"


def _pieces(value: Any) -> Iterator[str]:
    value = plain(value) if dataclasses.is_dataclass(value) else value
    if isinstance(value, Mapping) and any(map(_is_long, value.values())):
        for place, (key, inner) in enumerate(value.items()):
            yield f"{',' if place else '{'}{json.dumps(key)}:"
            yield from _pieces(inner)
        yield "}"
    elif isinstance(value, list | tuple) and len(value) > _CUT:
        for start in range(0, len(value), _CUT):
            yield ("," if start else "[") + _dumps(value[start : start + _CUT])[1:-1]
        yield "]"
    else:
        yield _dumps(value)


def _is_long(value: Any) -> bool:
    """Tell whether a value, or what a message holds directly, is a long list."""
    if dataclasses.is_dataclass(value):
        return any(_is_long(getattr(value, field.name)) for field in dataclasses.fields(value))
    return isinstance(value, list | tuple) and len(value) > _CUT


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=plain)


def plain(value: Any) -> Any:
    """Turn a message class into what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


M = TypeVar("M")


def decode(shape: type[M], params: Mapping[str, Any], *, strict: bool = True) -> M:
    """Make a message class from named parameters; missing, mistyped and (`strict`) unknown ones are refused.

    Raises ControlError.
    """
    if not dataclasses.is_dataclass(shape):
        raise TypeError(f"{shape} is not a message")
    hints = typing.get_type_hints(shape)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(shape):
        if field.name in params:
            values[field.name] = _checked(params[field.name], hints[field.name], field.name, strict)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ControlError(INVALID_PARAMS, f"the parameter {field.name} is missing")
    unknown = sorted(set(params) - set(values))
    if unknown and strict:
        raise ControlError(INVALID_PARAMS, f"there is no parameter {unknown[0][:40]!r}")
    return shape(**values)


def read_message(shape: type[M], value: Any) -> M:
    """Make a message class from a result; fields that a later daemon has added are left out.

    Raises ControlError if it is none of that class.
    """
    try:
        return decode(shape, value if isinstance(value, Mapping) else {}, strict=False)
    except ControlError as error:
        text = f"the daemon's answer is no {shape.__name__}: {error.text}"
        raise ControlError(INTERNAL_ERROR, text) from None


def _checked(value: Any, hint: Any, name: str, strict: bool) -> Any:
    """A bool is no number; an optional parameter may be null; lists and objects hold values or messages."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in allowed:
        origin = typing.get_origin(kind)
        if origin is list and type(value) is list:
            (member,) = typing.get_args(kind)
            return [_checked(one, member, name, strict) for one in value]
        if origin is dict and type(value) is dict:
            member = typing.get_args(kind)[1]
            return {key: _checked(one, member, name, strict) for key, one in value.items()}
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and type(value) is dict:
            return decode(kind, value, strict=strict)
        if type(value) is kind or (kind is float and type(value) is int):
            return value
    wanted = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise ControlError(INVALID_PARAMS, f"the parameter {name} must be {wanted}")
