"""What the commands about logins share: names, passwords, and how failures are told.

A password comes from the terminal, unseen, or line by line from standard input; never from the command line,
where everybody could read it.
"""

import contextlib
import getpass
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from realmfs.cli.failure import Exit, Failure
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError, Kind
from realmfs.host.process import forbid_core_dumps

COUNTED = 8
"""Bytes of a password that count (auth.md §2.1)."""
SHORT = 6
_LONGEST = 1024
_TELLING = {Kind.UNREACHABLE: Exit.UNREACHABLE, Kind.UNAUTHENTICATED: Exit.UNAUTHENTICATED}


def user_and_realm(client: Client, who: str | None) -> tuple[str, str]:
    """Split USER@REALM at its last @. Missing parts are the local user's name, and the only realm known."""
    user, realm = split(who)
    return user or _own_name(), realm or _only_realm(client)


def realm_of(client: Client, who: str | None) -> str:
    """Return the realm of USER@REALM; by default the only one known."""
    return split(who)[1] or _only_realm(client)


def split(who: str | None) -> tuple[str, str]:
    """Return user and realm, either of which may be empty; no @ leaves the realm out."""
    user, at, realm = (who or "").rpartition("@")
    return (user, realm) if at else (realm, "")


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise Failure("you have no name on this machine. Say who: USER@REALM", Exit.USAGE) from None


def _only_realm(client: Client) -> str:
    realms = [str(realm["name"]) for realm in client.pages("realms.list")]
    if len(realms) != 1:
        known = f" Known here: {', '.join(realms)}" if realms else ""
        raise Failure(f"which realm? Name it: USER@REALM.{known}", Exit.USAGE)
    return realms[0]


def ask_password(prompt: str) -> str:
    """Read a password. Raises Failure."""
    forbid_core_dumps()
    if sys.stdin.isatty():
        password = getpass.getpass(f"{prompt}: ")
    else:
        line = sys.stdin.buffer.readline(_LONGEST + 2).rstrip(b"\r\n")
        password = line.decode("utf-8", "surrogateescape")
    if "\0" in password or len(password) > _LONGEST:
        raise Failure("that cannot be a password: it is too long, or has a NUL in it", Exit.USAGE)
    if len(password.encode("utf-8", "surrogateescape")) > COUNTED:
        note("Only the first 8 bytes of the password count; the protocol has no more.")
    return password


def ask_new_password() -> str:
    """Read a password to be set, on a terminal twice. Raises Failure."""
    password = ask_password("New password")
    if sys.stdin.isatty() and getpass.getpass("The same again: ") != password:
        raise Failure("the two are not the same; nothing was changed")
    if not password:
        raise Failure("an empty password; nothing was changed")
    if len(password) < SHORT:
        note("That is short. Whoever hears one login can try passwords: 8 random characters are best.")
    return password


def note(text: str) -> None:
    """Print a remark that is not the command's output."""
    click.echo(text, err=True)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Tell failures as they are: who has just failed to log in needs no advice to log in."""
    try:
        yield
    except ControlError as error:
        raise Failure(error.text, _TELLING.get(error.kind, Exit.FAILED)) from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
