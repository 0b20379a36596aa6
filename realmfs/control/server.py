"""The control socket of the daemon.

Per connection: one task reads lines and starts a task for each request, at most `_AT_ONCE` of them; then it
reads no further, so that a caller who does not take his answers is held up by his own socket. Each line out
goes through one lock, whole, within `_TAKE_WITHIN` seconds, or the connection is closed. Events go to a
watcher's bounded queue first (the stream counts what a slow one loses).

Who calls is asked twice. The kernel says who connected (SO_PEERCRED); and with every piece of a request, who
sent it (SO_PASSCRED). A connection that came into other hands, inherited or passed on, is closed: it has the
rights, and perhaps the open files, of somebody else.
"""

import errno
import logging
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import trio

from realmfs.control.contents import Passed
from realmfs.control.listening import CREDENTIALS, listen, peer_of
from realmfs.control.protocol import (
    DESCRIPTORS,
    HELLO,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    LINE_LIMIT,
    ControlError,
    Request,
    other_version,
    parse_request,
    pieces_of,
)
from realmfs.control.service import OURSELVES, Facts, Logins, Method, Session, Topic
from realmfs.venus.face import Caller, FileSystem
from realmfs.vice.errors import CodaError

log = logging.getLogger(__name__)

_CONNECTIONS = 64
_AT_ONCE = 16
_TAKE_WITHIN = 30.0
_WITHOUT_HELLO = frozenset({HELLO, "daemon.stop"})
_SIGNATURE = socket.CMSG_SPACE(CREDENTIALS.size)


class Event(Protocol):
    """What the stream carries."""

    def json(self) -> dict[str, object]: ...
    def line(self) -> str: ...


class Watcher(Protocol):
    """A reader of the event stream."""

    async def next(self) -> Event: ...


class Events(Protocol):
    """The event stream: a context manager gives a watcher. Raises OverflowError if too many watch."""

    def watch(self, limit: int = ...) -> AbstractContextManager[Watcher]: ...


class ControlServer:
    """Listens on a Unix socket, and serves whoever may connect."""

    def __init__(
        self,
        path: Path,
        files: FileSystem,
        facts: Facts,
        logins: Logins,
        events: Events,
        *,
        shared: bool = False,
        methods: Mapping[str, Method] = MappingProxyType({}),
        topics: Sequence[Topic] = (),
    ) -> None:
        """`shared`: any local user may connect, else the owner and root. `methods`: further ones, by name."""
        self._path = path
        self._files = files
        self._facts = facts
        self._logins = logins
        self._events = events
        self._shared = shared
        self._methods = methods
        self._topics = topics
        self._count = 0

    def session(self, caller: Caller) -> Session:
        """Return the methods for one caller."""
        return Session(self._files, self._facts, self._logins, caller, self._methods, self._topics)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; removes the socket in the end. Raises SocketError."""
        mode = 0o666 if self._shared else 0o600
        listener = listen(self._path, "the control socket", "--socket", mode=mode)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await trio.serve_listeners(self._welcome, [listener], handler_nursery=nursery)
        finally:
            self._path.unlink(missing_ok=True)

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """Serve one connection; no fault of it reaches the others."""
        self._count += 1
        try:
            pid, uid, gid = peer_of(stream)
            if self._count > _CONNECTIONS or (not self._shared and uid not in (0, os.geteuid())):
                log.warning("refused a connection of uid %d to the control socket", uid)
                return
            caller = Caller(uid, gid, pid, kernel=False)
            await Conversation(stream, self.session(caller), self._events).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the control socket went away")
        except Exception:
            log.exception("a connection to the control socket failed")
        finally:
            self._count -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await stream.aclose()


class Conversation:
    """One connection from its first line to its last."""

    def __init__(self, stream: trio.SocketStream, session: Session, events: Events) -> None:
        """Answer the lines of `stream` by `session`."""
        self._stream = stream
        self._session = session
        self._events = events
        self._sending = trio.Lock()
        self._watching = False
        self._greeted = False
        self._limit = trio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Serve until the caller hangs up; requests under way then end unheard."""
        try:
            async with trio.open_nursery() as nursery:
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the control socket went away")
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _TAKE_WITHIN):
                await self._session.close()

    async def _read(self, nursery: trio.Nursery) -> None:
        buffer = bytearray()
        while True:
            end = buffer.find(b"\n")
            if end >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                await self._limit.acquire()
                nursery.start_soon(self._answer, line, nursery)
                continue
            if len(buffer) > LINE_LIMIT:
                await self._fail(
                    None, ControlError(INVALID_REQUEST, f"a line has {LINE_LIMIT} bytes at most")
                )
                return
            data = await self._receive()
            if not data:
                return
            buffer += data

    async def _receive(self) -> bytes:
        """Return what comes next, or nothing if it is not from whom we talk with."""
        try:
            data, signatures, _, _ = await self._stream.socket.recvmsg(64 << 10, _SIGNATURE)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        senders = {
            CREDENTIALS.unpack(content)[1]
            for level, kind, content in signatures
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS
        }
        if data and senders != {self._session.uid}:
            log.warning("a connection of uid %d came into other hands and is closed", self._session.uid)
            return b""
        return bytes(data)

    async def _answer(self, line: bytes, nursery: trio.Nursery) -> None:
        request = None
        try:
            request = parse_request(line)
            if not self._greeted and request.method not in _WITHOUT_HELLO:
                raise other_version("of another version (it does not say hello)", OURSELVES)
            if request.method == "events.watch":
                self._session.require_owner(request.method)
                await self._watch(request, nursery)
                return
            result, then = await self._session.call(request)
            self._greeted = self._greeted or request.method == HELLO
            if isinstance(result, Passed):
                await self._pass(request, result, nursery)
            elif request.id is not None:
                await self._send({"jsonrpc": "2.0", "id": request.id, "result": result})
            if then is not None:
                then()
        except ControlError as error:
            await self._fail(request, error)
        except CodaError as error:
            await self._fail(request, ControlError.of_errno(error.errno, os.strerror(error.errno)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            nursery.cancel_scope.cancel()
        except Exception:
            log.exception("the request %s failed", request.method if request else "?")
            text = "the daemon failed on this request; its log has the details"
            await self._fail(request, ControlError(INTERNAL_ERROR, text, number=errno.EIO))
        finally:
            self._limit.release()

    async def _send_first(self, line: bytearray, descriptor: int) -> int:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
        try:
            return await self._stream.socket.sendmsg([line], [rights])
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def _fail(self, request: Request | None, error: ControlError) -> None:
        if request is not None and request.id is None:
            return
        await self._send({"jsonrpc": "2.0", "id": request.id if request else None, "error": error.to_json()})

    async def _pass(self, request: Request, passed: Passed[Any], nursery: trio.Nursery) -> None:
        """Answer with a descriptor; what goes through it does so in a task of its own."""
        nursery.start_soon(passed.pour)
        answer = {"jsonrpc": "2.0", "id": request.id, DESCRIPTORS: 1, "result": passed.result}
        try:
            await self._send(answer, passed.descriptor)
        finally:
            os.close(passed.descriptor)

    async def _watch(self, request: Request, nursery: trio.Nursery) -> None:
        """Start the event stream; asking twice is answered, and changes nothing."""
        if not self._watching:
            self._watching = True
            try:
                await nursery.start(self._stream_events)
            except OverflowError as error:
                self._watching = False
                raise ControlError.of_errno(errno.EUSERS, str(error)) from None
        await self._send({"jsonrpc": "2.0", "id": request.id, "result": {}})

    async def _stream_events(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self._events.watch() as watcher:
            task_status.started()
            while True:
                event = await watcher.next()
                params = event.json() | {"line": event.line()}
                await self._send({"jsonrpc": "2.0", "method": "event", "params": params})

    async def _send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a whole line, with its first byte a descriptor. A caller who does not take it is cut off."""
        line = bytearray()
        for piece in pieces_of(message):
            line += piece
            await trio.lowlevel.checkpoint()
        async with self._sending:
            with trio.move_on_after(_TAKE_WITHIN) as patience:
                if descriptor is not None:
                    line = line[await self._send_first(line, descriptor) :]
                await self._stream.send_all(line)
        if patience.cancelled_caught:
            await self._stream.aclose()
            raise trio.BrokenResourceError("the client does not read")
