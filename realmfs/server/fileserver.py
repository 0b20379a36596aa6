"""The file service: subsystem 1001 of one server, from the bind to the reply (vice.md).

    bind ──> secret(): anonymous, or the handshake key in a token that we or the realm's auth2 sealed
         ──> connected(): a Session of a Host
    request ──> call(): dropped host or expired token? NAKED
                        unknown opcode? INVALIDOPCODE      unreadable? BADDATA
                        handler ──> reply, or an error with OUT parameters of zero

Nothing a client sends can do more than get an error: handlers raise CodaError, or RpcError when a side effect
fails, and the endpoint answers FAIL to what nobody expected, and logs it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from realmfs.rpc2.codes import Rpc2Code
from realmfs.rpc2.endpoint import Endpoint
from realmfs.rpc2.errors import BadPacket, RpcError
from realmfs.rpc2.service import Address, BindOffer, Level, Reply, ServerConnection, TunnelAddress
from realmfs.rpc2.service import Request as Transferring
from realmfs.server.groupwork import GroupWork
from realmfs.server.hosts import Session
from realmfs.server.objectcalls import ObjectCalls
from realmfs.server.state import Caller, Refusal, ServerState
from realmfs.server.store import ServerStore
from realmfs.server.updatecalls import UpdateCalls
from realmfs.server.volumecalls import VolumeCalls
from realmfs.vice import calls
from realmfs.vice.errors import CodaError
from realmfs.vice.tokens import BadToken, Bearer, TokenKey, verify
from realmfs.vice.types import FILE_SUBSYSTEM
from realmfs.vice.wire import Request, Results

log = logging.getLogger(__name__)

Handler = Callable[[Caller, Any], Awaitable[Results]]

_PROMISING: Final = frozenset(
    {calls.GetAttr, calls.ValidateAttrs, calls.Fetch, calls.FetchPartial, calls.GetVolVS, calls.ValidateVols}
)
"""Calls whose success carries promises, which are void if the host was dropped meanwhile."""
_WATCH: Final = 1.0
"""Seconds between looks whether an administrator's program has changed the store."""


class FileServer:
    """The file service of one store on one endpoint. `run` runs the endpoint, too."""

    def __init__(
        self, store: ServerStore, endpoint: Endpoint, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.state = ServerState(store, endpoint, clock)
        self.endpoint = endpoint
        self.tls_only = False
        """Bind only clients that come through a tunnel."""
        self._handlers = _handlers(self.state)
        self.group: GroupWork | None = None
        self._is_open = False
        self._keys: list[bytes] = []  # by which tokens were opened when last looked
        secret = store.get("secret")
        if isinstance(secret, bytes):
            self.group = GroupWork(self.state, secret)
        self._open_doors()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.endpoint.run)
            nursery.start_soon(self.state.hosts.run)
            nursery.start_soon(self._watch)
            if self.group is not None:
                nursery.start_soon(self.group.run)
            task_status.started()

    # the service that the endpoint calls

    def secret(self, offer: BindOffer) -> bytes | None:
        """Return the key of a client's bind: zeros for an anonymous one, else its token's handshake key."""
        if self.tls_only and not isinstance(offer.peer, TunnelAddress):
            log.info("client %s:%d refused: it came by UDP, and here TLS is required", *offer.peer)
            return None
        if offer.level == Level.OPENKIMONO:
            return bytes(8)
        bearer = self._bearer(offer)
        return bearer.handshake_key if bearer is not None else None

    async def connected(self, connection: ServerConnection) -> None:
        """Note the connection under its host, with the user that the token names."""
        bearer = None if connection.offer.level == Level.OPENKIMONO else self._bearer(connection.offer)
        user, expires = (bearer.vice_id, float(bearer.end)) if bearer is not None else (None, math.inf)
        connection.data = self.state.hosts.enter(connection, user, expires)

    def closed(self, connection: ServerConnection) -> None:
        """Forget the connection."""
        if isinstance(connection.data, Session):
            self.state.hosts.leave(connection.data)

    def part(self, peer: Address) -> None:
        """Forget a client whose tunnel has ended, with all that it was promised."""
        self.state.hosts.lost(peer)

    async def call(self, connection: ServerConnection, request: Transferring) -> Reply:
        """Answer one request."""
        session: Session = connection.data
        state = self.state
        if self._has_left(session, request.opcode):
            state.hosts.drop(session.host, "its token expired, or it has left")
        if not state.hosts.knows(session.host):
            return Reply(Rpc2Code.NAKED)
        state.counters["total_vice_calls"] += 1
        kind = calls.FILE_SERVICE.get(request.opcode)
        handler = self._handlers.get(kind) if kind is not None else None
        if kind is None or handler is None:
            return Reply(Rpc2Code.INVALIDOPCODE)
        try:
            arguments = kind.unpack(request.body)
        except BadPacket as error:
            log.info("client %s: %s that cannot be read: %s", session.host, kind.__name__, error)
            return Reply(Rpc2Code.BADDATA, kind.reply_type().zero().pack())
        caller = Caller(session, state.store.protection.identity(session.user), request)
        code, results = await self._answer(handler, caller, arguments)
        if code == 0 and kind in _PROMISING and not state.hosts.knows(session.host):
            return Reply(Rpc2Code.NAKED)
        return Reply(code, results.pack())

    async def _answer(self, handler: Handler, caller: Caller, arguments: Request[Any]) -> tuple[int, Results]:
        try:
            return 0, await handler(caller, arguments)
        except Refusal as refusal:
            return refusal.code, refusal.reply
        except CodaError as error:
            log.debug("%s of %s: %s", type(arguments).__name__, caller.host, error)
            code = error.number
        except RpcError as error:
            log.info("%s of %s: its side effect failed: %s", type(arguments).__name__, caller.host, error)
            code = error.code
        return code, type(arguments).reply_type().zero()

    def _has_left(self, session: Session, opcode: int) -> bool:
        """Whether the client takes leave, or its token has expired: the whole host goes (vice.md §2.4)."""
        return opcode == calls.TokenExpired.OPCODE or self.state.clock() >= session.expires

    def _bearer(self, offer: BindOffer) -> Bearer | None:
        """Return whom the token that a client shows is for, if the present key or the last opens it."""
        keys = [TokenKey(key) for key in self.state.store.token_keys(self.state.clock())]
        try:
            return verify(offer.ident, keys, self.state.clock())
        except BadToken as error:
            log.info("client %s:%d: token refused: %s", *offer.peer, error)
            return None

    def _open_doors(self) -> None:
        """Take clients, from the moment on when there is a realm here: before, it is as being down."""
        if not self._is_open and self.state.store.knows_realm:
            self.endpoint.serve(FILE_SUBSYSTEM, self)
            self._is_open = True

    def _end_logins(self) -> None:
        """Drop the clients with a token that no key opens any more: it was revoked in the midst of use."""
        keys = self.state.store.token_keys(self.state.clock()) if self._is_open else []
        if keys == self._keys:
            return
        self._keys = keys
        for host in self.state.hosts.all():
            offers = [one.connection.offer for one in host.sessions if one.user is not None]
            if not all(map(self._bearer, offers)):
                self.state.hosts.drop(host, "its token was revoked")

    async def _watch(self) -> None:
        """Break all promises when another process, an administrator's, has changed the store.

        New keys may have come from there, too, or from another server of the realm.
        """
        while True:
            await trio.sleep(_WATCH)
            self._open_doors()
            self._end_logins()
            if self.state.store.database.notice_changes():
                log.info("the store was changed by another process; all promises are broken")
                await self.state.hosts.break_everything()
                if self.group is not None:
                    self.group.catch_up.changed_outside()


def _handlers(state: ServerState) -> dict[type[Request[Any]], Handler]:
    objects, volumes, updates = ObjectCalls(state), VolumeCalls(state), UpdateCalls(state)
    return {
        calls.NewConnectFS: volumes.new_connection,
        calls.DisconnectFS: volumes.disconnect,
        calls.GetTime: volumes.get_time,
        calls.GetStatistics: volumes.get_statistics,
        calls.GetRootVolume: volumes.get_root_volume,
        calls.GetVolumeInfo: volumes.get_volume_info,
        calls.GetVolumeLocation: volumes.get_volume_location,
        calls.GetVolumeStatus: volumes.get_volume_status,
        calls.SetVolumeStatus: volumes.set_volume_status,
        calls.GetVolVS: volumes.get_vol_vs,
        calls.ValidateVols: volumes.validate_vols,
        calls.AllocFids: volumes.alloc_fids,
        calls.OldAllocFids: volumes.old_alloc_fids,
        calls.GetAttr: objects.get_attr,
        calls.ValidateAttrs: objects.validate_attrs,
        calls.Fetch: objects.fetch,
        calls.FetchPartial: objects.fetch_partial,
        calls.GetAcl: objects.get_acl,
        calls.SetAcl: objects.set_acl,
        calls.Cop2: updates.cop2,
        calls.Resolve: updates.resolve,
        calls.SetVV: updates.set_vv,
        calls.Repair: updates.repair,
        calls.Reintegrate: updates.reintegrate,
        calls.OpenReintHandle: updates.open_handle,
        calls.QueryReintHandle: updates.query_handle,
        calls.SendReintFragment: updates.send_fragment,
        calls.CloseReintHandle: updates.close_handle,
    }
