"""All that a server does as one of several: it knows the others, answers them, resolves and catches up."""

from __future__ import annotations

import trio

from realmfs.server.catchup import CatchUp
from realmfs.server.peercalls import PEER_SUBSYSTEM
from realmfs.server.peers import Peers
from realmfs.server.peerservice import PeerService
from realmfs.server.resolver import Resolver
from realmfs.server.state import ServerState


class GroupWork:
    """The group side of one server. Serves the other servers on the same endpoint as the clients."""

    def __init__(self, state: ServerState, secret: bytes) -> None:
        self.peers = Peers(state.store, state.endpoint, secret, state.store.count_start())
        self.resolver = Resolver(state, self.peers)
        self.catch_up = CatchUp(state, self.peers, self.resolver)
        state.resolve = self.resolver.resolve
        state.endpoint.serve(PEER_SUBSYSTEM, PeerService(state, self.peers, secret))

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.peers.run)
            nursery.start_soon(self.catch_up.run)
