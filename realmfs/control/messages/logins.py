"""Who is who in a realm: `tokens.*`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Login:
    """Log in to a realm; who logs in is the local user who calls.

    `keep` "keyring": over restarts, in the desktop's keyring; "": as the settings say.
    """

    realm: str
    user: str
    password: str = field(repr=False)
    keep: str = ""


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Set the password of `user`: `agent`, himself or an administrator, proves who he is by his own."""

    realm: str
    agent: str
    password: str = field(repr=False)
    user: str
    new_password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token in the form of a Coda token file: a parameter and a result; `keep` as in `Login`."""

    realm: str
    contents: str = field(repr=False)
    keep: str = ""


@dataclass(frozen=True, slots=True)
class InRealm:
    """A realm."""

    realm: str


@dataclass(frozen=True, slots=True)
class Logout:
    """A realm to log out of, or all."""

    realm: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """`everybody`: of all local users, for root; a page behind `cursor`."""

    everybody: bool = False
    cursor: str | None = None
    limit: int = 200


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """Who a local user is in a realm; never the token itself.

    `state` is valid, expired, or missing: then changes wait for a login. `ends` in seconds since 1970; `user`
    is the name he logged in under, "" if unknown; `pending` changes wait in the realm.
    """

    realm: str
    uid: int
    user: str
    id: int
    state: str
    ends: float | None
    pending: int
