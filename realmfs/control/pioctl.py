r"""The control-file protocol: how the reference's tools speak through a file (features.md, part 2).

A tool makes a file `...PIOCTL.XXXXXXXX` in the root of the mount, writes an order into it and closes it,
opens it again, which carries the order out, and reads the answer:

    "command\npath length\nfollow\nin size\nout size\n" NUL path in-bytes
    "errno\nsize\n" NUL out-bytes
"""

from dataclasses import dataclass

PREFIX = b"...PIOCTL."
MOST_NUMBER = 255
MOST_BYTES = 2048
MOST_PATH = 1024
MOST_ORDER = 64 + MOST_PATH + MOST_BYTES
_FIELDS = 5


class BadOrderError(ValueError):
    """An order that makes no sense."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a tool asks for: `path` from the root of the mount, `most` bytes of answer at most."""

    command: int
    path: str
    follow: bool
    data: bytes
    most: int


def parse_order(raw: bytes) -> Order:
    """Read an order from a stranger. Raises BadOrderError only."""
    head, nul, rest = raw.partition(b"\0")
    fields = head.split(b"\n")
    if not nul or len(fields) != _FIELDS + 1 or fields.pop():
        raise BadOrderError("the order has no head")
    if not all(field.isdigit() and len(field) <= 5 for field in fields):
        raise BadOrderError("the head has something else than numbers")
    command, path_length, follow, in_size, most = map(int, fields)
    if command > MOST_NUMBER or in_size > MOST_BYTES or path_length > MOST_PATH:
        raise BadOrderError("a number is too large")
    if len(rest) != path_length + in_size:
        raise BadOrderError("the order is longer or shorter than it says")
    path = rest[:path_length]
    if b"\0" in path:
        raise BadOrderError("a path holds no NUL")
    return Order(
        command,
        path.decode("utf-8", "surrogateescape").strip("/"),
        bool(follow),
        rest[path_length:],
        min(most, MOST_BYTES),
    )


def format_answer(number: int, data: bytes = b"") -> bytes:
    """Return an answer: an errno, 0 if all went well, and the bytes."""
    return b"%d\n%u\n\0" % (number, len(data)) + data
