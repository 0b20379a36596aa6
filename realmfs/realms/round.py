"""One round: the same call to several servers of a group at once, bounded in time as a whole.

The round ends when every server has answered or failed, or when nothing has advanced for `patience`
seconds. A server that has not answered by then stays in the result as ETIMEDOUT, sent and not heard: it may
have executed the call.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from realmfs.realms.context import Context
from realmfs.realms.links import Link
from realmfs.realms.server import Answer, RefusedError, Server
from realmfs.realms.volume import Replica
from realmfs.rpc2.transfer import Sink, Source
from realmfs.vice.errors import CodaError, Code

Answers = dict[int, Answer]
"""By slot."""


@dataclass(slots=True)
class Call:
    """What to send: one body to all, but for the slots that have their own."""

    opcode: int
    body: bytes
    bodies: Mapping[int, bytes] = field(default_factory=dict)
    source: Source | None = None
    sinks: Mapping[int, Sink] = field(default_factory=dict)
    began: Mapping[int, Callable[[Link], None]] = field(default_factory=dict)
    """Who is told, by slot, that the request is about to go out on a link."""
    reintegrating: bool = False
    strict: bool = False
    """Not to be made as nobody if a server refuses the user's token."""


class Patience:
    """How long a public call may wait: `seconds` from its start, or from the last progress of its data."""

    __slots__ = ("_scopes", "deadline", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = trio.current_time() + seconds
        self._scopes: set[trio.CancelScope] = set()

    @property
    def left(self) -> float:
        """Seconds to the end as it stands."""
        return max(self.deadline - trio.current_time(), 0.0)

    @contextmanager
    def scope(self) -> Iterator[trio.CancelScope]:
        """Open a cancel scope that ends with this patience, and moves along with progress."""
        with trio.CancelScope(deadline=self.deadline) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def progress(self) -> None:
        """Note that data has advanced. Moving a deadline is not free, so it is moved in steps."""
        deadline = trio.current_time() + self.seconds
        if deadline - self.deadline > self.seconds / 20:
            self.deadline = deadline
            for scope in self._scopes:
                scope.deadline = deadline


async def ask(
    context: Context, replicas: Sequence[Replica], user: int, call: Call, patience: Patience
) -> Answers:
    """Make the call at every replica in parallel.

    Raises CodaError(EPERM) if a strict call's token is refused.
    """
    answers: Answers = {}
    refused: list[Server] = []

    async def one(replica: Replica) -> None:
        slot, server = replica.slot, replica.server
        answers[slot] = Answer(Code.ETIMEDOUT, b"", True, False, server.epoch, context.breaks)
        try:
            answers[slot] = await server.call(
                user,
                call.opcode,
                call.bodies.get(slot, call.body),
                source=call.source,
                sink=call.sinks.get(slot),
                began=call.began.get(slot),
                reintegrating=call.reintegrating,
                strict=call.strict,
            )
        except RefusedError:
            refused.append(server)

    with patience.scope():
        if len(replicas) == 1:
            await one(replicas[0])
        else:
            async with trio.open_nursery() as nursery:
                for replica in replicas:
                    nursery.start_soon(one, replica)
    if refused:
        raise CodaError(Code.EPERM, f"{refused[0]} of {refused[0].realm} refused the token")
    return answers
