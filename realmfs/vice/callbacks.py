"""The callback service, subsystem 127823: calls that servers make to clients (vice.md §4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from realmfs.vice.types import Fid
from realmfs.vice.wire import NoResults, Request, Transfer, message, service


@message
class CallBack(Request[NoResults]):
    """Break a promise. Fid 0.0.0 is a probe; vnode or unique 0 means the whole volume. Always answered 0."""

    OPCODE = 1
    Reply = NoResults
    fid: Fid


@message
class CallBackFetch(Request[NoResults]):
    """Fetch back the contents of a store that is being reintegrated; the client is the RPC2 server here."""

    OPCODE = 2
    Reply = NoResults
    TRANSFER: ClassVar[Transfer] = Transfer.TO_CLIENT
    fid: Fid


CALLBACK_SERVICE: Final[Mapping[int, type[Request[Any]]]] = service(CallBack, CallBackFetch)
"""Every call by opcode."""
