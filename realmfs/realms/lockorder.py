"""Which calls a server must not get while it takes the locks of a reintegration, lest it locks itself up.

A codasrv locks all objects of a Reintegrate in the order of their vnodes, directories and files mixed, and
turns to its other calls after every eighth. GetAttr, Fetch and ValidateAttrs lock a file and then the
directory it is in; the last keeps the locks of all it is asked about. So it happens that

    Reintegrate    has the directory, wants the file
    GetAttr        has the file, wants the directory

Both wait for ever, and with them everybody who wants either; only a restart helps. It was seen with 2 000
records that drained while objects of earlier batches were validated.

So questions about the volume wait here from the sending of a Reintegrate until the server has all its locks:
it shows that by its first back-fetch, or by its answer. Little is lost, since there they would mostly wait as
well. Questions about one directory lock nothing else and never wait. What other clients ask we cannot help.

    idle ── Reintegrate goes out ──► taking ── back-fetch, or answer ──► idle
                                       ▲ │
                                       └─┘ questions wait
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from realmfs.vice.calls import Fetch, FetchPartial, GetAttr, ValidateAttrs

_ONE = frozenset({GetAttr.OPCODE, Fetch.OPCODE, FetchPartial.OPCODE})
"""Their request begins with the fid."""


class LockOrder:
    """The reintegrations on their way to one server, by volume as the requests name it."""

    def __init__(self) -> None:
        self._taking: dict[int, trio.Event] = {}

    @contextmanager
    def reintegrating(self, body: bytes) -> Iterator[None]:
        """The time of a Reintegrate with this request; a client has one at a time for a volume."""
        volume = _word(body, 0)
        self._taking[volume] = taken = trio.Event()
        try:
            yield
        finally:
            taken.set()
            if self._taking.get(volume) is taken:
                del self._taking[volume]

    def taken(self, volume: int) -> None:
        """The server fetches contents back for that volume: it has its locks."""
        if volume in self._taking:
            self._taking.pop(volume).set()

    def is_free(self, opcode: int, body: bytes) -> bool:
        """Tell whether a call can do no harm now."""
        return not self._taking or _asked(opcode, body) not in self._taking

    async def pass_by(self, opcode: int, body: bytes) -> None:
        """Wait until a call can do no harm."""
        while not self.is_free(opcode, body):
            await self._taking[_asked(opcode, body)].wait()


def _asked(opcode: int, body: bytes) -> int:
    """Return the volume in which a call takes a file's lock and then others; 0: it does not."""
    if opcode == ValidateAttrs.OPCODE:
        return _word(body, 4)
    if opcode in _ONE and not _word(body, 4) % 2:  # directories have odd vnodes
        return _word(body, 0)
    return 0


def _word(body: bytes, offset: int) -> int:
    return int.from_bytes(body[offset : offset + 4], "big")
