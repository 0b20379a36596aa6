"""Who would rather wait for ever than be told that nobody answers (`realmfs wait on`)."""

import errno

import pyfuse3
import pytest
import trio

from realmfs.fuse.handler import Requests, handler
from realmfs.vice.errors import CodaError, Code


class Layer:
    """Answers after so many time-outs."""

    def __init__(self, timeouts: int) -> None:
        self.requests = Requests(20.0)
        self.left = timeouts

    @handler()
    async def look(self, name: bytes, ctx: object) -> str:
        await trio.lowlevel.checkpoint()
        self.left -= 1
        if self.left >= 0:
            raise CodaError(Code.ETIMEDOUT, "nobody answers")
        if name == b"none":
            raise CodaError(Code.ENOENT, "no such name")
        return "found"


class Somebody:
    """A caller; pyfuse3's own cannot be made here."""

    uid = 1000


async def test_only_who_wants_so_waits(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyfuse3, "RequestContext", Somebody)
    layer, caller = Layer(50), Somebody()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await layer.look(b"name", caller)
    assert caught.value.errno == errno.ETIMEDOUT
    layer.requests.patient.add(4711)
    with pytest.raises(pyfuse3.FUSEError):
        await layer.look(b"name", caller)
    layer.requests.patient.add(1000)
    began = trio.current_time()
    assert await layer.look(b"name", caller) == "found"
    assert trio.current_time() - began > 40
    layer.left = 3
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await layer.look(b"none", caller)
    assert caught.value.errno == errno.ENOENT, "anything else is told at once"
    layer.left = 1 << 30
    with trio.move_on_after(1000):
        await layer.look(b"name", caller)
    assert not layer.requests.running(), "the end of the session ends the waiting"
