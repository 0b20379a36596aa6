"""Unix sockets in the file system: made, taken over from a dead daemon, and who is at their other end."""

import os
import socket
import struct
from pathlib import Path

import trio

CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as SO_PEERCRED and SCM_CREDENTIALS tell them."""
_PATH_LIMIT = 107  # struct sockaddr_un
_WAITING = 64


class SocketError(Exception):
    """A socket cannot be made; the text says what to do."""


def listen(path: Path, what: str, option: str, *, mode: int) -> trio.SocketListener:
    """Listen at `path`, a socket with these permissions; `what` and `option` name it. Raises SocketError.

    It must not be there yet, but for one that nobody listens on: a daemon that was killed has left it.
    """
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise SocketError(f"the path of {what} is too long ({path}). Name a shorter one with {option}")
    _remove_dead(path, option)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Here, so that accepted ones inherit it: what was sent before the accept is signed, too.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listening.bind(str(path))
        path.chmod(mode)
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        text = f"{what} {path} cannot be made: {error.strerror}. Name another one with {option}"
        raise SocketError(text) from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _remove_dead(path: Path, option: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise SocketError(
        f"a daemon already listens on {path}. Stop it (realmfs unmount), or name another {option}"
    )


def peer_of(stream: trio.SocketStream) -> tuple[int, int, int]:
    """Return process, user and group of whoever has connected."""
    told = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, gid = CREDENTIALS.unpack(told)
    return pid, uid, gid
