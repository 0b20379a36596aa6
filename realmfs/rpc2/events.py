"""What the state machines have to tell the layer above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from realmfs.rpc2.errors import RpcError
from realmfs.rpc2.service import Reply

if TYPE_CHECKING:
    from realmfs.rpc2.bind import Binding
    from realmfs.rpc2.call import ClientLink
    from realmfs.rpc2.serve import ServerLink


@dataclass(frozen=True, slots=True)
class BindDone:
    """A bind of ours has ended: in a connection or an error."""

    binding: Binding
    outcome: ClientLink | RpcError


@dataclass(frozen=True, slots=True)
class CallDone:
    """A call of ours has ended."""

    link: ClientLink
    outcome: Reply | RpcError


@dataclass(frozen=True, slots=True)
class Accepted:
    """A client has bound to us; its requests wait until the link is enabled."""

    link: ServerLink


@dataclass(frozen=True, slots=True)
class Arrived:
    """A client calls."""

    link: ServerLink
    opcode: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The side effect of the running request has ended: bytes moved, or an error."""

    link: ServerLink
    outcome: int | RpcError


@dataclass(frozen=True, slots=True)
class Gone:
    """A client's connection no longer exists."""

    link: ServerLink


Event = BindDone | CallDone | Accepted | Arrived | Moved | Gone
