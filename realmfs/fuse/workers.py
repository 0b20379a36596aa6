"""Who serves the kernel's requests: workers that pass the device around.

Theory. Most requests are answered from memory and wait for nothing. So that they do not pay for a task each,
one worker *holds* the device: it reads a request, runs its handler, answers, and reads the next one, without
going through trio's scheduler. Only when a handler waits for the first time, its worker hands the device
over, to a spare worker or a new one, and goes on as an ordinary task:

                     ┌────────── answered ◄─────────┐
                     ▼                              │
      spare ──► holds the device ──► runs a handler ┤
        ▲       (the only one who                   │ the handler waits: the device goes to a spare one
        │        waits for it to                    ▼
        └───────  be readable)           serves its request as a task, answers

Invariant: exactly one worker holds the device, or none because all that may exist wait in handlers; then it
is *vacant*, and the first who is free takes it. A holder lets the other tasks run now and then.

A handler ends in an answer or an errno, whatever happens below:

    CodaError, Refusal     its errno
    past the deadline      ETIMEDOUT, and an error in the log: the cache manager keeps its own patience,
                           so this is a bug
    caller killed          EINTR
    anything else          EIO, with the traceback in the log

Neither the deadline nor an interruption costs the other requests anything: each worker lives in a cancel
scope of its own, which somebody cancels on behalf of the one request that it serves just then; it answers
and begins a new scope. A cancellation can come too late, when the handler has just ended: then the worker
sees that before it takes another request. A request that moves data has no deadline here: it may go on as
long as data advance, which only the cache manager sees.

A signal interrupts a request only if it kills the caller: programs do not expect EINTR from files.
"""

import errno
import logging
import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import trio

from realmfs.fuse import wire
from realmfs.fuse.device import Buffer, Device, DeviceClosedError
from realmfs.fuse.requests import Requests, Running, errno_of
from realmfs.fuse.wire import Request

log = logging.getLogger(__name__)

_LIMIT = 400  # requests served at once; each may wait for a server as long as patience lasts
_SPARE = 16
_IN_A_ROW = 64  # requests answered before other tasks get their turn
_SIGKILL = 1 << 8  # its bit among pending signals; every signal that ends a process becomes this one

Handler = Callable[[Request], Coroutine[Any, Any, Buffer | None]]


class Operation(NamedTuple):
    """How an opcode is served; a handler that returns None has nothing to answer."""

    name: str
    handler: Handler
    moves_data: bool = False


class _Worker:
    """One worker: whether it holds the device, and what it serves while it does not."""

    __slots__ = ("errno", "holds", "operation", "pid", "scope", "unique")

    def __init__(self) -> None:
        self.holds = True
        self.scope = trio.CancelScope()
        self.unique = self.pid = 0
        self.operation: Operation | None = None  # only while the handler waits
        self.errno = errno.EINTR


class Workers:
    """Serves a device until the kernel lets go of it."""

    def __init__(self, device: Device, operations: Mapping[int, Operation], requests: Requests) -> None:
        """Nothing is read yet."""
        self._device = device
        self._operations = operations
        self._requests = requests
        self._nursery: trio.Nursery | None = None
        self._spare = trio.lowlevel.ParkingLot()
        self._waiting: dict[int, _Worker] = {}  # by the number of the request
        self._count = 1
        self._vacant = False

    async def run(self) -> None:
        """Serve; returns when the kernel has let go."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch)
            nursery.start_soon(self._work)

    async def _work(self) -> None:
        """Be a worker; begin as the holder of the device."""
        worker = _Worker()
        try:
            while True:
                with trio.CancelScope() as worker.scope:
                    if not await self._serve(worker):
                        return
        except DeviceClosedError:
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()
        finally:
            self._count -= 1

    async def _serve(self, worker: _Worker) -> bool:
        """Serve requests until one is called off; tell whether the worker is still needed."""
        served = 0
        while not worker.scope.cancel_called:
            if not worker.holds:
                if self._vacant:
                    self._vacant = False
                elif len(self._spare) >= _SPARE:
                    return False
                else:
                    await self._spare.park()
                worker.holds = True
            request = self._device.read()
            if request is None:
                await trio.lowlevel.wait_readable(self._device.fd)
                served = 0
                continue
            await self._answer(worker, request)
            served += 1
            if served == _IN_A_ROW:
                await trio.lowlevel.cancel_shielded_checkpoint()
                served = 0
        return True

    def _hand_over(self, worker: _Worker) -> None:
        """Give the device away: the worker is going to wait."""
        worker.holds = False
        if len(self._spare):
            self._spare.unpark()
        elif self._count < _LIMIT:
            assert self._nursery is not None
            self._count += 1
            self._nursery.start_soon(self._work)
        else:
            self._vacant = True

    # -- one request ---------------------------------------------------------------------------------------

    async def _answer(self, worker: _Worker, request: Request) -> None:
        if request.opcode == wire.Opcode.INTERRUPT:
            self._interrupt(wire.INTERRUPT.unpack_from(request.body)[0])
            return
        operation = self._operations.get(request.opcode)
        if operation is None:
            self._device.refuse(request.unique, errno.ENOSYS)
            return
        number = 0
        try:
            body = await self._until_it_waits(worker, request, operation)
            if body is not None:
                self._device.answer(request.unique, body)
        except trio.Cancelled:
            number = worker.errno
            self._device.refuse(request.unique, number)
            raise
        except Exception as error:
            number = errno_of(error) or 0
            if not number:
                log.exception("%s failed; answered with EIO", operation.name)
                number = errno.EIO
            self._device.refuse(request.unique, number)
        finally:
            if not worker.holds:
                self._ends(worker)
            self._requests.count(operation.name, number)

    @types.coroutine
    def _until_it_waits(
        self, worker: _Worker, request: Request, operation: Operation
    ) -> Generator[Any, Any, Buffer | None]:
        """Run a handler as `await` would; give the device away when it waits for the first time."""
        handler = operation.handler(request)
        try:
            trap = handler.send(None)
        except StopIteration as end:
            body: Buffer | None = end.value
            return body
        self._waits(worker, request, operation)
        step: Callable[[Any], Any]
        while True:
            try:
                argument = yield trap
            except BaseException as error:  # what trio throws in belongs to the handler
                step, argument = handler.throw, error
            else:
                step = handler.send
            try:
                trap = step(argument)
            except StopIteration as end:
                body = end.value
                return body

    def _waits(self, worker: _Worker, request: Request, operation: Operation) -> None:
        worker.unique, worker.pid = request.unique, request.pid
        worker.operation, worker.errno = operation, errno.EINTR
        self._waiting[request.unique] = worker
        self._requests.waiting[request.unique] = Running(operation.name, trio.current_time())
        self._hand_over(worker)

    def _ends(self, worker: _Worker) -> None:
        worker.operation = None
        del self._waiting[worker.unique], self._requests.waiting[worker.unique]

    # -- calling requests off --------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Call off what is past its deadline."""
        period = min(1.0, self._requests.deadline / 4)
        while True:
            await trio.sleep(period)
            limit = trio.current_time() - self._requests.deadline
            for unique, running in list(self._requests.waiting.items()):
                worker = self._waiting[unique]
                assert worker.operation is not None
                if running.since <= limit and not worker.operation.moves_data:
                    log.error(
                        "%s took longer than %.0f s; answered with ETIMEDOUT",
                        running.operation,
                        self._requests.deadline,
                    )
                    self._call_off(worker, errno.ETIMEDOUT)

    def _call_off(self, worker: _Worker, number: int) -> None:
        worker.errno = number
        worker.scope.cancel()

    def _interrupt(self, unique: int) -> None:
        """Call off a request whose caller is being killed; for any other signal it goes on."""
        worker = self._waiting.get(unique)
        if worker is not None and _is_killed(worker.pid):
            self._call_off(worker, errno.EINTR)


def _is_killed(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False  # not one that we can see
    pending = [line for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(int(line.split()[1], 16) & _SIGKILL for line in pending)
