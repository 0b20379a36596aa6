"""The caller's side of the control socket: blocking, standard library only.

A command makes one `Client`, calls, and reads events if it wants. A daemon that is not there raises
NoDaemonError.
"""

import itertools
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from realmfs import __version__
from realmfs.control.protocol import (
    HELLO,
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    VERSION,
    ControlError,
    line_of,
    other_version,
    speaker,
)


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
        self._lines = self._socket.makefile("rb")
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
        self._lines.close()
        self._socket.close()

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
        return answer.get("result")

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
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise NoDaemonError("the daemon has gone")
        message: dict[str, Any] = json.loads(line)
        return message
