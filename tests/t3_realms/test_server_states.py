"""Server by itself: in whatever order things happen, no promise outlives what voids it, and all is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from realmfs.realms.context import Context
from realmfs.realms.server import Server, State
from realmfs.realms.settings import RealmSettings
from realmfs.rpc2.codes import Rpc2Code
from realmfs.vice.tokens import Token


@dataclass
class Stub:
    """Endpoint, realm and listener in one."""

    told: list[str] = field(default_factory=list)

    def last_heard(self, peer: object) -> None:
        return None

    def token(self, user: int) -> Token | None:
        return None

    def refuse(self, user: int, token: Token) -> None:
        pass

    def returned(self, server: Server) -> None:
        pass

    def lost(self, server: Server) -> None:
        pass

    def reached(self) -> None:
        pass

    def usual_distance(self) -> None:
        return None

    def server_up(self, server: Server) -> None:
        self.told.append("up")

    def server_down(self, server: Server) -> None:
        self.told.append("down")


@dataclass
class Channel:
    """A callback connection."""

    open: bool = True

    def close(self) -> None:
        self.open = False


class Model:
    """Events of a server, and what it owes us after each."""

    def __init__(self) -> None:
        self.stub = Stub()
        context = Context(cast("Any", self.stub), RealmSettings(), cast("Any", self.stub))
        self.server = Server(context, self.stub, "r.test", ("10.0.0.1", 2432), "s1")
        self.channels: list[Channel] = []
        self.owes = False  # a promise that was given and not voided

    def happens(self, voids: bool) -> None:
        if voids:
            self.owes = False

    def binds_back(self) -> None:
        told, naked = len(self.stub.told), self.server._just_naked
        was, epoch = self.server.state, self.server.epoch
        self.channels.append(Channel())
        self.server.callback_connected(cast("Any", self.channels[-1]))
        assert self.server.state is State.UP
        assert sum(channel.open for channel in self.channels) <= 1
        expected = [] if naked else ["down", "up"] if was is State.UP else ["up"]
        assert self.stub.told[told:] == expected
        assert (self.server.epoch > epoch) == bool(expected)
        self.happens(voids=bool(expected))

    def shows_itself(self) -> None:
        was = self.server.state
        self.server._shown()
        assert self.server.state is State.UP
        self.happens(voids=was is not State.UP)

    def dies(self) -> None:
        told, was = len(self.stub.told), self.server.state
        self.server.judge(Rpc2Code.DEAD)
        assert self.server.state is State.DOWN
        assert self.stub.told[told:] == ([] if was is State.DOWN else ["down"])
        assert self.server.reason == "DEAD"
        self.happens(voids=True)

    def forgets_us(self) -> None:
        told, naked, was = len(self.stub.told), self.server._just_naked, self.server.state
        self.server.judge(Rpc2Code.NAKED)
        news = was is State.UP and not naked
        assert self.stub.told[told:] == (["up"] if news else [])
        self.happens(voids=news)

    def loses_its_channel(self) -> None:
        if self.channels:
            self.channels[-1].open = False
            self.server.callback_closed(cast("Any", self.channels[-1]))

    def promises(self) -> None:
        if self.server.state is State.UP and not self.server._just_naked:
            self.server.gave_promise()
            self.owes = True

    def check(self) -> None:
        assert self.server.promised == self.owes
        assert self.server.available == (self.server.state is not State.DOWN)


EVENTS = (
    Model.binds_back,
    Model.shows_itself,
    Model.dies,
    Model.forgets_us,
    Model.loses_its_channel,
    Model.promises,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_no_promise_outlives_what_voids_it(events: list[Callable[[Model], None]]) -> None:
    async def run() -> None:
        model = Model()
        for event in events:
            event(model)
            model.check()

    trio.run(run, clock=MockClock())
