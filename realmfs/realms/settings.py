"""What can be set about realms and servers."""

import enum
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


class Tls(enum.StrEnum):
    """Whether packets to the file servers of a realm go through a TLS tunnel."""

    AUTO = "auto"
    """`PREFER` to servers that run realmfs if the realm's authority is known, else `OFF`."""
    OFF = "off"
    PREFER = "prefer"
    """Through TLS where the server listens for it. A wrong certificate is an error all the same."""
    REQUIRE = "require"
    """Not at all without."""


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """How packets may travel to the servers of one realm.

    `authority`: a file with the certificate of who vouches for them, or a directory of such files. It may
    be missing: then nobody is believed.
    """

    tls: Tls = Tls.AUTO
    authority: Path = Path("/nonexistent")


@dataclass(frozen=True, slots=True)
class RealmSettings:
    """All times in seconds."""

    realms_file: Path | None = None
    name_server: tuple[str, int] | None = None
    """`--dns HOST:PORT`; None: the system's resolver configuration."""
    uuid: bytes = field(default_factory=lambda: os.urandom(16))
    """Who we are to servers' logs: 16 bytes, constant as long as the cache lives."""
    user_name: str = "realmfs"
    host_name: str = "localhost"
    patience: float = 10.0
    """Longest wait of any call without progress."""
    probe_promised: float = 30.0
    """How often a server that holds promises to us is probed (promise 4 of the design)."""
    probe_idle: float = 150.0
    """How often any other server is probed, and the longest pause between probes of one that is down."""
    silence: float = 0.75
    """Nothing heard for so long while a call waits: see whether the server still knows us."""
    contact: float = 3.0
    """How long a server may take to answer a bind before it counts as down."""
    check: float = 1.5
    """The same for one that was up a moment ago, on top of some of its round trips: users wait for it."""
    connections: int = 8
    """Most connections to one server."""
    housekeeping: float = 5.0
    """How often second phases, names and the state on disk are looked at."""
    keep_tokens: bool = False
    """Keep tokens on the disk, so that a restart finds everybody still logged in."""
    tokens_in_keyring: bool = False
    """Keep them in the desktop's keyring instead of in files."""
    channels: Callable[[str], ChannelPolicy] = lambda realm: ChannelPolicy()
    """The policy for each realm by its name."""
    negative: float = 180.0
    """How long "there is no such realm" is remembered."""
    unanswered: float = 5.0
    """How long nobody is asked again about a realm after nobody answered: programs try a name many times."""
