"""What the ring above sees of server groups: who is told of events, and what calls answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from realmfs.rpc2.transfer import Sink, Source
from realmfs.vice.errors import Code
from realmfs.vice.types import Fid, Status

if TYPE_CHECKING:
    from realmfs.realms.server import Server

ANYUSER = -1
"""The user who is nobody: anonymous connections, System:AnyUser's rights."""

SinkAt = Callable[[int], Sink]
"""Where fetched bytes go: called with an offset, returns a sink that writes from there on.

Called once for each piece. An offset not behind what was written before says that the bytes from there on
are void: the object changed under the transfer, or the server turned out not to have the newest version.
"""


class Listener(Protocol):
    """Who is told what servers do. Called synchronously in the middle of things: note it down, never wait."""

    def callback_broken(self, server: "Server", fid: Fid) -> None:
        """Another client changed `fid`, so the server's promise is void.

        `fid.names_volume`: the whole volume's.
        """

    def server_up(self, server: "Server") -> None:
        """The server is there (again), and *all* promises it had given are void (realms.md §6)."""

    def server_down(self, server: "Server") -> None:
        """The server does not answer any more."""

    def server_moved(self, server: "Server", address: tuple[str, int]) -> None:
        """The name of a server has another address now, and is followed there."""

    def resolution(self, server: "Server", volume_id: int) -> None:
        """A resolution in the volume, of which the server holds a replica, has begun or ended."""

    def back_fetch(self, server: "Server", fid: Fid) -> Source:
        """Return the frozen contents of the store record being sent (vice.md §4.2). Raises CodaError."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """An object's status as the whole group has it."""

    status: Status
    promised: bool
    """Every server that is up promised to call back, and no promise was broken while we asked (client.md §2).

    Every server that is up promised to call back, and no promise was broken while we asked (client.md §2).
    """
    sha: bytes = b""
    """SHA-1 by the server, b"" if unknown; that of older contents at times: see vice.md §5.2, op 63."""


@dataclass(frozen=True, slots=True)
class AccessListAnswer:
    """A directory's access list as text, with the status that came along (never promised)."""

    text: bytes
    status: Status


@dataclass(frozen=True, slots=True)
class Stamps:
    """A volume's version stamps, by slot up to the highest used.

    0 where no server answered (client.md §3).
    """

    stamps: tuple[int, ...]
    promised: bool


@dataclass(frozen=True, slots=True)
class Reintegrated:
    """How an update ended at the group (reintegration.md §2.5, §2.8)."""

    code: Code
    """SUCCESS if any server executed it; else what went wrong; ETIMEDOUT if nobody answered."""
    index: int
    """The record to blame, or -1; for EALREADY the uniquifier of the last record that the servers know."""
    update_set: tuple[int, ...]
    """The slots that executed it: what COP2 must name."""
    uncertain: bool
    """Some server may have executed it without our hearing so.

    Keep the store ids, ask before anything else.
    """
    needs_resolve: bool = False
    """A server that is up did not execute it: its replicas must be resolved, after COP2."""
    stale_dirs: tuple[Fid, ...] = ()
    """Directories that the servers have in another version than the log: to be fetched anew."""
    stale_overflow: bool = False
    """There may be more stale directories than that."""
    known: tuple[int, ...] = ()
    """The slots that refused it as already executed (EALREADY): true only of what was sent before."""
