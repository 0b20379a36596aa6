"""What a fetch writes into, and one run of a large file: its bytes, and the room for them."""

import trio

from realmfs.cache.containers import Container, ContainerSink
from realmfs.cache.disk import punch
from realmfs.cache.errors import CacheFull
from realmfs.realms.types import Attributes
from realmfs.venus.core import Core
from realmfs.venus.node import Node
from realmfs.venus.ranges import expendable

UNKNOWN = 1 << 62
"""Where a first piece ends that is not the last."""


class Into:
    """Writes into a container; what had come from a void offset on is forgotten.

    With a limit, `scope` is cancelled before more than that comes, unless somebody has opened the file
    meanwhile: then room is made for more than was reserved.

    `checked`: what has come is known to be of the version that was asked for. Of a first piece nothing is
    known before its end, for it may come from a server that is behind the others. So it is kept from readers
    until then, and not kept at all when it breaks; for later ones servers compare first.
    """

    def __init__(
        self, core: Core, node: Node, content: Container, limit: int | None, scope: trio.CancelScope
    ) -> None:
        self._core = core
        self._node = node
        self._content = content
        self._limit = limit
        self._scope = scope
        self.checked = False
        self.proven = False  # a run has come of which the version is known
        self.run: tuple[int, int] | None = None  # what comes now; None: all from the first offset on

    def void(self) -> None:
        """Forget what has come of a run."""
        if self.run is not None:
            self._content.forget_range(*self.run)

    def prove(self) -> None:
        """Let readers have what has come."""
        self._content.prove()

    def at(self, offset: int) -> "_Limited | ContainerSink":
        content = self._content
        self.checked = offset > 0
        stop = content.length if self.run is None else self.run[1]
        if offset < stop:
            content.present.remove(offset, stop)
        if offset:
            content.prove()
        else:
            content.doubt(UNKNOWN if self.run is None else stop)
        sink = content.sink(offset)
        return sink if self._limit is None else _Limited(self, sink)

    def admits(self, size: int) -> bool:
        """Tell whether so many bytes more may come; give up what is too large for something unasked.

        Raises CacheFull.
        """
        if self._limit is None or self._content.present.total + size <= self._limit:
            return True
        if self._node.open:
            self._core.make_room(size)
            return True
        self._scope.cancel()
        return False


class _Limited:
    def __init__(self, into: Into, sink: ContainerSink) -> None:
        self._into = into
        self._sink = sink

    def write(self, data: bytes) -> None:
        if self._into.admits(len(data)):
            self._sink.write(data)


async def fetch_run(
    core: Core, node: Node, uid: int, into: Into, run: tuple[int, int], *, ask_all: bool
) -> Attributes:
    """Fetch one run of the version that the status tells; its bytes are void if that cannot be known."""
    assert node.status is not None
    into.run = run
    start, stop = run
    known = into.proven
    try:
        with core.call("FetchPartial", f"{node.label} [{(stop - start + 1023) // 1024}]"):
            answer = await core.group(node.volume).fetch(
                node.fid,
                uid,
                into.at,
                vv=node.status.vv,
                length=node.status.length,
                offset=start,
                count=stop - start,
                ask_all=ask_all,
            )
    except BaseException:
        if not start:  # without an offset servers do not compare the version first
            into.void()
            into.checked = known
        raise
    into.proven = into.checked = True
    into.prove()
    return answer


async def room_for(core: Core, content: Container, run: tuple[int, int]) -> None:
    """Make room for a run of a partial file, at last in the file itself. Raises CacheFull."""
    size = run[1] - run[0]
    try:
        core.make_room(size)
    except CacheFull:
        ranges = expendable(content, size, run)
        if sum(stop - start for start, stop in ranges) < size:
            raise
        _give_up(core, content, ranges)
    await trio.lowlevel.checkpoint()


def _give_up(core: Core, content: Container, ranges: list[tuple[int, int]]) -> None:
    containers = core.cache.containers
    if content.saved:
        with core.cache.transaction():
            for start, stop in ranges:
                containers.discard(content, start, stop)
        return
    for start, stop in ranges:
        content.forget_range(start, stop)
        punch(content.fd, start, stop)
