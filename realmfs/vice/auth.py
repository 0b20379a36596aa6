"""The authentication service auth2: subsystem 0x001E6A25, UDP port 370 (auth.md §1 to §3).

No `repr` of a call shows a password, a key or a token.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Final

from realmfs.vice.wire import I32, NoResults, Request, Results, Text, message, raw, service

AUTH_SUBSYSTEM: Final = 0x001E6A25
"""What clients bind to. Servers must accept any number: reference clients send it swapped (auth.md §2)."""
SECRET_TOKEN_SIZE: Final = 56
CLEAR_TOKEN_SIZE: Final = 24
KEY_SIZE: Final = 8

Key = Annotated[bytes, raw(KEY_SIZE)]


class AuthCode(enum.IntEnum):
    """What auth2 answers; not errnos (auth.md §3)."""

    SUCCESS = 0
    FAILED = 1
    DENIED = 2
    BADKEY = 3
    READONLY = 4


def password_key(password: bytes) -> bytes:
    """Return the shared secret that a password stands for: its first 8 bytes, no more (auth.md §2.1)."""
    return password[:KEY_SIZE].ljust(KEY_SIZE, b"\0")


@message
class ChangePassword(Request[NoResults]):
    """Set a password: one's own, or as an administrator anybody's. The server keeps 8 bytes of it."""

    OPCODE = 1
    Reply = NoResults
    vice_id: I32
    password: Text = field(repr=False)


@message
class GetTokens(Request["GetTokens.Reply"]):
    """Log in: ask for tokens (`realmfs.vice.tokens`)."""

    OPCODE = 2

    @message
    class Reply(Results):
        """Both tokens, the secret one first."""

        secret: Annotated[bytes, raw(SECRET_TOKEN_SIZE)] = field(repr=False)
        clear: Annotated[bytes, raw(CLEAR_TOKEN_SIZE)] = field(repr=False)


@message
class ChangeUser(Request[NoResults]):
    """Give a user a new key. Keep `info` empty: with any text the reference answers 0 and stores nothing."""

    OPCODE = 3
    Reply = NoResults
    vice_id: I32
    key: Key = field(repr=False)
    info: Text = b""


@message
class NewUser(Request[NoResults]):
    """Give a user of the protection database a first key. Keep `info` empty, as in ChangeUser."""

    OPCODE = 4
    Reply = NoResults
    vice_id: I32
    key: Key = field(repr=False)
    info: Text = b""


@message
class DeleteUser(Request[NoResults]):
    """Make a user's key useless."""

    OPCODE = 5
    Reply = NoResults
    vice_id: I32


@message
class NameToId(Request["NameToId.Reply"]):
    """Ask for a user's id."""

    OPCODE = 6
    name: Text

    @message
    class Reply(Results):
        """The id; nothing useful if the code is not 0."""

        vice_id: I32


@message
class Quit(Request[NoResults]):
    """Say that no further call follows."""

    OPCODE = 7
    Reply = NoResults


AUTH_SERVICE: Final[Mapping[int, type[Request[Any]]]] = service(
    ChangePassword, GetTokens, ChangeUser, NewUser, DeleteUser, NameToId, Quit
)
"""Every call by opcode."""
