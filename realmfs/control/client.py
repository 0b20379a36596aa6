"""The caller's side of the control socket: blocking, standard library only.

It is public (docs/reference/client.md). A program makes one `Client` and calls: `call` gives JSON values,
`ask` and `entries` the message classes of `messages` and its siblings, `reading` and `writing` files. A
daemon that is not there raises NoDaemonError, a request that fails ControlError.
"""

import itertools
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from realmfs import __version__
from realmfs.control.protocol import (
    HELLO,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    VERSION,
    ControlError,
    line_of,
    other_version,
    read_message,
    speaker,
)

M = TypeVar("M")


class NoDaemonError(Exception):
    """Nobody listens on the control socket."""


def check_version(answer: Any) -> None:
    """Judge the answer to `hello`, a result or a ControlError. Raises ControlError."""
    if isinstance(answer, ControlError):
        if answer.code == METHOD_NOT_FOUND:
            raise other_version(speaker(__version__, VERSION), "older") from None
        raise answer
    known = answer if isinstance(answer, Mapping) else {}
    if known.get("protocol") != VERSION:
        daemon = speaker(known.get("version"), known.get("protocol"))
        raise other_version(speaker(__version__, VERSION), daemon)


class Client:
    """A connection to the daemon; a context manager."""

    def __init__(self, path: Path, timeout: float | None = 60.0, *, any_version: bool = False) -> None:
        """Connect; `timeout` in seconds bounds each wait for an answer.

        Raises NoDaemonError, and ControlError for a daemon that speaks another version: `any_version` does
        without that check, and then only `daemon.stop` may be called.
        """
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise NoDaemonError(f"no realmfs daemon is running ({path}). Start one: realmfs mount") from None
        except OSError as error:
            self._socket.close()
            raise NoDaemonError(
                f"the daemon cannot be reached at {path}: {error.strerror or error}"
            ) from None
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._serials = itertools.count(1)
        if not any_version:
            try:
                check_version(self._greet())
            except BaseException:
                self.close()
                raise

    def _greet(self) -> Any:
        """Say hello; returns the answer, a ControlError where it was one."""
        try:
            return self.call(HELLO, protocol=VERSION, version=__version__)
        except ControlError as error:
            return error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    @property
    def peer(self) -> int:
        """The process that listens."""
        size = struct.calcsize("3i")
        return int(
            struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        )

    def be_patient(self) -> None:
        """Wait for answers as long as it takes: a tree may be fetched meanwhile."""
        self._socket.settimeout(None)

    def call(self, method: str, **params: Any) -> Any:
        """Call a method; returns its result as JSON values. Raises ControlError and NoDaemonError."""
        return self._call(method, params).get("result")

    def ask(self, shape: type[M], method: str, **params: Any) -> M:
        """Call a method; returns its result as the message class that the reference names."""
        return read_message(shape, self.call(method, **params))

    def pages(
        self, method: str, most: int | None = None, *, cursor: str | None = None, **params: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield what a method lists page by page, as JSON values; at most `most` of it.

        It begins behind `cursor`, which an answer gave.
        """
        left = most
        while left is None or left > 0:
            page = self.call(method, cursor=cursor, **params)
            yield from page["entries"][:left]
            cursor, left = page["cursor"], None if left is None else left - len(page["entries"])
            if cursor is None:
                return

    def entries(self, shape: type[M], method: str, **params: Any) -> Iterator[M]:
        """Yield what a method lists page by page, each as a message of this class."""
        return (read_message(shape, entry) for entry in self.pages(method, **params))

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        """Open a file of the tree to read it, from its beginning on.

        What stops the contents on their way is raised as ControlError at the end of the block.
        """
        handle, stream = self._open(path=path)
        try:
            with stream:
                yield stream
        except BaseException:
            self._abandon(handle)
            raise
        self.call("file.close", handle=handle)

    @contextmanager
    def writing(self, path: str, mode: int = 0o644, *, sync: bool = False) -> Iterator[BinaryIO]:
        """Make a file of the tree, or replace it at the end of the block; an exception leaves what was there.

        `sync`: return only when it is safe against power loss here.
        """
        handle, stream = self._open(path=path, write=True, mode=mode)
        try:
            with suppress(BrokenPipeError), stream:  # the daemon could not go on: it tells why below
                yield stream
        except BaseException:
            self._abandon(handle)
            raise
        self.call("file.close", handle=handle, sync=sync)

    def _open(self, **params: Any) -> tuple[int, BinaryIO]:
        answer = self._call("file.open", params)
        if not self._descriptors:
            raise ControlError(INTERNAL_ERROR, "the daemon has passed no descriptor: too many files are open")
        stream = open(self._descriptors.popleft(), "wb" if params.get("write") else "rb")  # noqa: SIM115  # the caller closes it
        return answer["result"]["handle"], stream

    def _abandon(self, handle: int) -> None:
        with suppress(ControlError, NoDaemonError):
            self.call("file.close", handle=handle, abandon=True)

    def _call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        serial = next(self._serials)
        request = {"jsonrpc": "2.0", "id": serial, "method": method, "params": params}
        try:
            self._socket.sendall(line_of(request))
            while True:
                answer = self._next()
                if answer.get("id") == serial:
                    break
        except TimeoutError:
            raise ControlError(INTERNAL_ERROR, f"the daemon did not answer {method} in time") from None
        except OSError as error:
            raise NoDaemonError(f"the daemon has gone: {error.strerror or error}") from None
        if "error" in answer:
            raise ControlError.from_json(answer["error"])
        return answer

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Watch the event stream until the daemon ends."""
        self.call("events.watch")
        self._socket.settimeout(None)
        while True:
            try:
                message = self._next()
            except (OSError, NoDaemonError):
                return
            if message.get("method") == "event":
                yield message["params"]

    def _next(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 64 << 10, 4, socket.MSG_CMSG_CLOEXEC)
            self._descriptors.extend(descriptors)
            if not data:
                raise NoDaemonError("the daemon has gone. Its log tells why; start it again: realmfs mount")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message: dict[str, Any] = json.loads(line)
        return message
