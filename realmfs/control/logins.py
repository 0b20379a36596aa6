"""Logging in and out over the control socket.

Each local user handles his own tokens only, as the kernel says who calls; root may see when those of others
end. Passwords and tokens go into no log and no error.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from realmfs.cache.cache import Cache
from realmfs.control import messages
from realmfs.control.protocol import FAILED, ControlError, Kind
from realmfs.realms.keyring import KeyringError
from realmfs.realms.login import LoginError, Refusal
from realmfs.realms.names import fold
from realmfs.realms.realm import Realm
from realmfs.realms.realms import Realms
from realmfs.realms.tokens import Held, TooManyTokensError
from realmfs.rpc2.errors import BadPacket
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.tokens import Token, format_token_file, parse_token_file

log = logging.getLogger(__name__)

Pending = dict[tuple[str, int], tuple[str, int]]
"""By realm and user: whom changes that wait were made as, "" for nobody, and how many there are."""

_NO_TOKEN_FILE = "this is no token file. `realmfs login --to-file` and `clog -tofile` write one"
_KINDS = {
    Refusal.WRONG_PASSWORD: (Kind.UNAUTHENTICATED, errno.EACCES),
    Refusal.UNKNOWN_USER: (Kind.UNAUTHENTICATED, errno.EACCES),
    Refusal.DENIED: (Kind.UNAUTHENTICATED, errno.EPERM),
    Refusal.NO_SERVER: (Kind.UNREACHABLE, errno.ETIMEDOUT),
    Refusal.BUSY: (Kind.UNREACHABLE, errno.EBUSY),
    Refusal.READ_ONLY: (Kind.FAILED, errno.EROFS),
    Refusal.BAD_KEY: (Kind.FAILED, errno.EINVAL),
    Refusal.FAILED: (Kind.FAILED, errno.EIO),
}


class Logins:
    """The tokens of all users, each shown to its owner."""

    def __init__(self, realms: Realms, cache: Cache, forget: Callable[[str, int], None]) -> None:
        """`forget` makes the cache manager forget who a user without a token was in a realm."""
        self._realms = realms
        self._cache = cache
        self._forget = forget

    async def log_in(self, uid: int, params: messages.Login) -> messages.TokenInfo:
        """Exchange a password for a token, and hold it. Raises ControlError."""
        with _explained(f"{params.user}@{params.realm}", params.realm):
            service = await self._realms.login_service(params.realm, params.user, _bytes(params.password))
            token = await service.token()
            return await self._hold(uid, params.realm, params.user, token, params.keep)

    async def change_password(self, uid: int, params: messages.ChangePassword) -> messages.Nothing:
        """Change a password; tokens stay good. Raises ControlError."""
        with _explained(f"{params.agent}@{params.realm}", params.realm):
            service = await self._realms.login_service(params.realm, params.agent, _bytes(params.password))
            await service.change_password(params.user, _bytes(params.new_password))
        log.info("uid %d changed the password of %s@%s", uid, params.user, params.realm)
        return messages.Nothing()

    async def take(self, uid: int, params: messages.TokenFile) -> messages.TokenInfo:
        """Hold the token of a token file. Raises ControlError."""
        try:
            token = parse_token_file(params.contents.encode("ascii", "replace"))
        except BadPacket as error:
            raise ControlError.of_errno(errno.EINVAL, f"{_NO_TOKEN_FILE} ({error})") from None
        with _explained("", params.realm):
            return await self._hold(uid, params.realm, "", token, params.keep)

    async def _hold(
        self, uid: int, realm_name: str, user: str, token: Token, keep: str
    ) -> messages.TokenInfo:
        if keep not in ("", "keyring"):
            raise ControlError.of_errno(errno.EINVAL, "a login can be kept in the keyring, or as is set")
        realm: Realm = await self._realms.realm(realm_name)
        held = Held(realm.name, uid, user, token)
        if not held.usable:
            raise ControlError.of_errno(errno.EINVAL, "the token has ended already: is the clock right?")
        realm.set_token(uid, token, user)
        log.info("uid %d is logged in to %s as %d", uid, realm.name, token.clear.vice_id)
        await self._keep(held, asked=keep == "keyring")
        return _info(held, self._waiting())

    async def _keep(self, held: Held, *, asked: bool) -> None:
        """Keep a token in the keyring if that is wanted. Raises ControlError if the user asked for it now."""
        tokens = self._realms.tokens
        if not asked and not tokens.all_in_keyring:
            tokens.forget_in_keyring(held)  # an earlier one
            return
        try:
            await tokens.keep_in_keyring(held)
        except KeyringError as error:
            text = f"logged in to {held.realm}, but the login cannot be kept in a keyring: {error}"
            if asked:
                raise ControlError.of_errno(errno.EOPNOTSUPP, text) from None
            log.warning("%s", text)

    async def give(self, uid: int, params: messages.InRealm) -> messages.TokenFile:
        """Hand a user his own token. Raises ControlError."""
        held = self._realms.tokens.get(fold(params.realm), uid)
        if held is None:
            raise ControlError(
                FAILED,
                f"you are not logged in to {params.realm}",
                number=errno.ENOTCONN,
                kind=Kind.UNAUTHENTICATED,
            )
        return messages.TokenFile(held.realm, format_token_file(held.token).decode("ascii"))

    async def log_out(self, uid: int, params: messages.Logout) -> list[messages.TokenInfo]:
        """Forget a user's token in a realm, or in all, and who he was; return what was forgotten."""
        own = [held for held in self._realms.tokens.all() if held.uid == uid]
        if params.realm is not None:
            own = [held for held in own if held.realm == fold(params.realm)]
        waiting = self._waiting()
        gone = [_info(held, waiting) for held in own]
        for held in own:
            realm = self._realms.realm_named(held.realm)
            if realm is None:  # forgotten since
                self._realms.tokens.drop(held.realm, uid)
            else:
                realm.set_token(uid, None)
            log.info("uid %d is logged out of %s", uid, held.realm)
        return gone + self._log_out_without_token(uid, params.realm)

    def _log_out_without_token(self, uid: int, realm: str | None) -> list[messages.TokenInfo]:
        """Forget who a user was before his token was lost, as in a restart."""
        gone = []
        for row in map(self._cache.realms.get, self._cache.identities.of_user(uid)):
            if realm is None or row.name == fold(realm):
                vice_id = self._cache.identities.get(row.id, uid) or 0
                _, pending = self._waiting().get((row.name, uid), ("", 0))
                gone.append(messages.TokenInfo(row.name, uid, "", vice_id, "missing", None, pending))
                self._forget(row.name, uid)
                log.info("uid %d, without a token, is logged out of %s", uid, row.name)
        return gone

    async def list_tokens(self, uid: int, everybody: bool) -> list[messages.TokenInfo]:
        """Return who a user is in which realm, and where changes wait for his login. Raises ControlError."""
        if everybody and uid != 0:
            raise ControlError.of_errno(errno.EPERM, "only root may see when the tokens of others end")
        held, waiting = self._realms.tokens.all(), self._waiting()
        known = {(one.realm, one.uid) for one in held}
        found = [_info(one, waiting) for one in held]
        for (realm, owner), (identity, pending) in waiting.items():
            if identity and (realm, owner) not in known:
                who = int(identity.partition("@")[0])
                found.append(messages.TokenInfo(realm, owner, "", who, "missing", None, pending))
        return [one for one in found if everybody or one.uid == uid]

    def _waiting(self) -> Pending:
        waiting: Pending = {}
        for key in self._cache.log.volumes():
            row, owner = self._cache.volumes.get(key), self._cache.log.owner(key)
            if row is not None and owner is not None:
                place = self._cache.realms.get(row.realm).name, owner[0]
                identity, before = waiting.get(place, ("", 0))
                waiting[place] = owner[1] or identity, before + self._cache.log.summary(key).records
        return waiting


def _info(held: Held, waiting: Pending) -> messages.TokenInfo:
    _, pending = waiting.get((held.realm, held.uid), ("", 0))
    state = "valid" if held.usable else "expired"
    clear = held.token.clear
    return messages.TokenInfo(
        held.realm, held.uid, held.user, clear.vice_id, state, float(clear.end), pending
    )


@contextmanager
def _explained(who: str, realm: str) -> Iterator[None]:
    """Turn what can go wrong into a ControlError that says it to people."""
    try:
        yield
    except LoginError as error:
        kind, number = _KINDS[error.refusal]
        raise ControlError(FAILED, f"{who}: {error}", number=number, kind=kind) from None
    except TooManyTokensError as error:
        raise ControlError.of_errno(errno.EUSERS, str(error)) from None
    except CodaError as error:
        if error.code is Code.ENOENT:
            raise ControlError.of_errno(errno.ENOENT, f"there is no realm {realm} ({error})") from None
        number = error.errno
        raise ControlError.of_errno(number, f"realm {realm}: {error or os.strerror(number)}") from None


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogateescape")
