"""Who is logged in where: the tokens of all local users, one for each realm and user (auth.md §4.5, §5).

               login, token file              a server refuses it, logout
    (nothing) ──────────────────► held ──────────────────────────────────► (nothing)
                                   │ a minute before its end
                                   ▼
                                expired: shown, and says whose changes wait; never sent

All processes of a local user share his token. Tokens are kept in memory. With a directory they are also kept
in files, so that a start without network still knows who one is: `UID@REALM` in the form of a Coda token
file, mode 0600 in a directory of mode 0700, removed at logout, refusal and expiry. Without one, files that an
earlier run left there are removed: who switched keeping off wants no secrets to lie about. In the desktop's
keyring tokens are kept for who asks for that at his login, or for all instead of files (keyring.py).

A token is a bearer secret until it ends: whoever has it is the user, from anywhere. No `repr` shows one.
"""

import enum
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from realmfs.realms.keyring import Keyring
from realmfs.realms.names import is_name
from realmfs.rpc2.errors import BadPacket
from realmfs.vice.tokens import FILE_HEADER, Token, format_token_file, parse_token_file

log = logging.getLogger(__name__)

INDEX = "keyring"
DIRECTORY = "tokens"
"""Below the state directory."""
MAX_TOKENS = 1024
TOKEN_MARGIN = 60.0
"""Seconds before its end from which on a token is not used any more.

One request too late, and the server drops every connection and promise of this client, those of other users
too (auth.md §4.5).
"""
_MAX_FILE = 4096
_MAX_USER = 64


def usable(token: Token | None) -> Token | None:
    """Return the token unless it has expired or is about to."""
    return token if token is not None and token.seconds_left(time.time()) > TOKEN_MARGIN else None


class News(enum.Enum):
    """What became of a token."""

    TAKEN = "taken"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Held:
    """A token, whose it is, and under which name he logged in; "" if a token file did not say."""

    realm: str
    uid: int
    user: str
    token: Token

    @property
    def identity(self) -> str:
        """Whom servers take him for: `id@realm`."""
        return f"{self.token.clear.vice_id}@{self.realm}"

    @property
    def usable(self) -> bool:
        """Whether it may be sent."""
        return usable(self.token) is not None


class TooManyTokensError(Exception):
    """There is no room for another user's token."""


class Tokens:
    """All tokens. `listener` is told of every change, in the middle of things: it must not wait."""

    def __init__(
        self, directory: Path | None = None, *, keep: bool = False, in_keyring: bool = False
    ) -> None:
        """Load what is kept in `directory`; without `keep`, or to keep it `in_keyring`, remove it."""
        self.listener: Callable[[Held, News], None] = lambda held, news: None
        self.keyring = Keyring(directory / INDEX if directory is not None else None)
        self._held: dict[tuple[str, int], Held] = {}
        self._directory = directory if keep and not in_keyring else None
        self.all_in_keyring = keep and in_keyring
        if directory is not None:
            for path in _files(directory):
                if self._directory is not None:
                    self._load(path)
                else:
                    _remove(path)

    def get(self, realm: str, uid: int) -> Held | None:
        """Return what a user holds in a realm (folded name), expired or not."""
        return self._held.get((realm, uid))

    def all(self) -> list[Held]:
        """Return every token, realm by realm."""
        return sorted(self._held.values(), key=lambda held: (held.realm, held.uid))

    def put(self, held: Held) -> None:
        """Hold a token in place of any other that the user had in the realm. Raises TooManyTokensError."""
        key = held.realm, held.uid
        if key not in self._held and len(self._held) >= MAX_TOKENS:
            raise TooManyTokensError(f"{MAX_TOKENS} users are logged in")
        self._held[key] = held
        if self._directory is not None and held.usable:
            self._keep(self._directory, held)
        self.listener(held, News.TAKEN)

    def drop(self, realm: str, uid: int, news: News = News.DROPPED) -> Held | None:
        """Forget a user's token; return what it was."""
        held = self._held.pop((realm, uid), None)
        if held is not None:
            self.remove_file(held)
            self.listener(held, news)
        return held

    # the keyring

    async def run_keyring(self) -> None:
        """Take what the keyring has, and see to it until cancelled."""
        await self.keyring.run(self._take)

    async def keep_in_keyring(self, held: Held) -> None:
        """Keep a token in the keyring, and nowhere else. Raises KeyringError."""
        await self.keyring.keep(_file_name(held.realm, held.uid), _format(held).decode("utf-8", "replace"))
        if self._directory is not None:
            _remove(self._directory / _file_name(held.realm, held.uid))

    def forget_in_keyring(self, held: Held) -> None:
        """Remove what the keyring has of a user, if anything."""
        self.keyring.forget(_file_name(held.realm, held.uid))

    def _take(self, name: str, secret: str) -> None:
        """Hold what the keyring had, unless its user has logged in meanwhile."""
        uid, _, realm = name.partition("@")
        contents = secret.encode("utf-8", "replace")
        try:
            held = Held(realm, int(uid), _user_in(contents), parse_token_file(contents))
        except (BadPacket, ValueError):
            log.warning("the keyring's entry %s is no token; it is removed", name)
            self.keyring.forget(name)
            return
        if not held.usable or not is_name(realm):
            log.info("the token of uid %d in %s has expired", held.uid, realm)
            self.keyring.forget(name)
        elif (realm, held.uid) not in self._held:
            self._held[realm, held.uid] = held
            self.listener(held, News.TAKEN)

    # files

    def remove_file(self, held: Held) -> None:
        """Remove what is kept of a token outside memory: it has ended, or is not wanted any more."""
        self.forget_in_keyring(held)
        if self._directory is not None:
            _remove(self._directory / _file_name(held.realm, held.uid))

    def _keep(self, directory: Path, held: Held) -> None:
        path = directory / _file_name(held.realm, held.uid)
        try:
            _make_private(directory)
            _write(path, _format(held))
        except OSError as error:
            log.warning("%s: the token is not kept: %s", path, error.strerror)

    def _load(self, path: Path) -> None:
        uid, _, realm = path.name.partition("@")
        try:
            contents = _read(path)
            held = Held(realm, int(uid), _user_in(contents), parse_token_file(contents))
        except (OSError, BadPacket, ValueError) as error:
            log.warning("%s: no usable token (%s); it is removed", path, error)
            _remove(path)
            return
        if held.usable and is_name(realm):
            self._held[realm, held.uid] = held
        else:
            log.info("the token of uid %d in %s has expired", held.uid, realm)
            _remove(path)


def _file_name(realm: str, uid: int) -> str:
    return f"{uid}@{realm}"


def _files(directory: Path) -> Iterator[Path]:
    try:
        found = sorted(directory.iterdir())[:MAX_TOKENS]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        log.warning("%s: cannot be read: %s", directory, error.strerror)
        return
    yield from (path for path in found if "@" in path.name)


def _format(held: Held) -> bytes:
    """Return a Coda token file; the user's name follows on its first line, which all readers skip."""
    file = format_token_file(held.token)
    return FILE_HEADER.rstrip(b"\n") + b" " + held.user.encode() + b"\n" + file[len(FILE_HEADER) :]


def _user_in(contents: bytes) -> str:
    words = contents.partition(b"\n")[0].removeprefix(FILE_HEADER.rstrip(b"\n"))
    user = words.decode("utf-8", "replace").strip()
    return user if user.isprintable() and len(user) <= _MAX_USER else ""


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)


def _write(path: Path, contents: bytes) -> None:
    """Replace the file. It is not synced: what a power cut takes costs a login."""
    temporary = path.with_name(f".{path.name}.new")
    _remove(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(contents)
    temporary.replace(path)


def _read(path: Path) -> bytes:
    """Read a file that only we could write or read. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(13, "others may have read or written it", str(path))
        return file.read(_MAX_FILE)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: the token cannot be removed: %s", path, error.strerror)
