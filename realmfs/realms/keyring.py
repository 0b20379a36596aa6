"""Keeping tokens in the desktop's keyring (Secret Service and its like), for users who ask for it.

The package `keyring` speaks to whatever the desktop has; it is optional, and imported only when used. Its
calls block, perhaps until somebody has typed the keyring's password, so all of them are made in one thread,
in order, and nobody waits for them but who has asked for just that. A keyring cannot be listed; an index
beside the state says which entries are ours, by `UID@REALM`. The index holds no secret.

    keep ──► index, then keyring          forget ──► keyring, then index          load: at each start

An entry is a Coda token file. Only backends that the package itself recommends are used: others keep secrets
in plain files, or nowhere.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

log = logging.getLogger(__name__)

SERVICE = "realmfs"
_MAX_ENTRIES = 64
_MAX_SECRET = 4096
_WITHIN = 60.0
"""Seconds for one call: somebody may have to type a password."""
_RECOMMENDED = 1.0

T = TypeVar("T")


class KeyringError(Exception):
    """The keyring cannot be used; the text says why and what to do."""


class NotKeptError(KeyringError):
    """What was to be deleted is not there."""


class Keyring:
    """Our entries in the keyring. `index` is the file that names them; None: they are not found again."""

    def __init__(self, index: Path | None) -> None:
        self._index = index
        self._names = _read(index)
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        send, self._forgotten = trio.open_memory_channel[str](_MAX_ENTRIES)
        self._forget = send

    async def run(self, take: Callable[[str, str], None]) -> None:
        """Hand what is kept to `take` (name, secret), then remove what is forgotten, until cancelled."""
        for name in sorted(self._names):
            try:
                secret: str | None = await self._call(partial(_get, name))
            except KeyringError as error:
                log.warning("the tokens in the keyring cannot be had: %s", error)
                break
            if secret is not None and len(secret) <= _MAX_SECRET:
                take(name, secret)
            else:
                self._write(self._names - {name})
        async for name in self._forgotten:
            await self._remove(name)

    async def keep(self, name: str, secret: str) -> None:
        """Keep a secret under a name. Raises KeyringError."""
        if name not in self._names and len(self._names) >= _MAX_ENTRIES:
            raise KeyringError(f"{_MAX_ENTRIES} tokens are kept already")
        self._write(self._names | {name})
        try:
            await self._call(lambda backend: backend.set_password(SERVICE, name, secret))
        except KeyringError:
            self._write(self._names - {name})
            raise

    def forget(self, name: str) -> None:
        """Have an entry removed soon, if it is ours."""
        if name in self._names:
            try:
                self._forget.send_nowait(name)
            except trio.WouldBlock:  # it goes when it is loaded: by then its token has ended
                log.warning("the keyring is busy; %s stays in it for now", name)

    async def _remove(self, name: str) -> None:
        try:
            await self._call(lambda backend: backend.delete_password(SERVICE, name))
        except NotKeptError:
            log.info("%s was removed from the keyring by somebody else", name)
        except KeyringError as error:
            log.warning("%s stays in the keyring: %s", name, error)
            return
        self._write(self._names - {name})

    async def _call(self, work: Callable[[Any], T]) -> T:
        """Use the backend in the thread. Raises KeyringError."""
        async with self._turn:
            with trio.move_on_after(_WITHIN):
                return await trio.to_thread.run_sync(
                    _with_backend, work, limiter=self._limiter, abandon_on_cancel=True
                )
        raise KeyringError(f"it did not answer within {_WITHIN:.0f} s")

    def _write(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        if self._index is None:
            return
        try:
            self._index.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._names:
                self._index.write_text("".join(f"{name}\n" for name in sorted(self._names)), "utf-8")
            else:
                self._index.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s", self._index, error.strerror)


def _read(index: Path | None) -> frozenset[str]:
    if index is None:
        return frozenset()
    try:
        lines = index.read_text("utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        log.warning("%s cannot be read: %s", index, error)
        return frozenset()
    return frozenset(lines[:_MAX_ENTRIES])


def _get(name: str, backend: Any) -> str | None:
    secret = backend.get_password(SERVICE, name)
    return None if secret is None else str(secret)


def _with_backend(work: Callable[[Any], T]) -> T:
    """Do something with the keyring that is there. Blocks. Raises KeyringError."""
    try:
        import keyring
        from keyring.errors import KeyringError as BackendError
        from keyring.errors import PasswordDeleteError as NothingThereError
    except ImportError:
        raise KeyringError("the package `keyring` is not installed (pip install realmfs[keyring])") from None
    backend = keyring.get_keyring()
    kind = f"{type(backend).__module__}.{type(backend).__name__}"
    if backend.priority < _RECOMMENDED:
        raise KeyringError(f"no keyring runs here that keeps secrets safe (found {kind}): is this a desktop?")
    try:
        return work(backend)
    except NothingThereError:
        raise NotKeptError(f"{kind}: there is no such entry") from None
    except BackendError as error:
        raise KeyringError(f"{kind}: {error or type(error).__name__}") from None
    except Exception as error:  # backends raise whatever their own libraries do
        raise KeyringError(f"{kind}: {type(error).__name__}: {error}") from None
