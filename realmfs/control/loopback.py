"""A TCP port on the loopback, and which local user is at the other end of a connection to it.

There are no peer credentials for TCP. But both ends are on this machine, so the kernel's table of connections
(proc_pid_net(5), `tcp`) has a line for the other end, with the user who made it. Only of an established
connection: a socket that its owner has closed stands there as root's.
"""

import ipaddress
import socket
import sys
from pathlib import Path

import trio

from realmfs.control.listening import SocketError

HOST = "127.0.0.1"
_TABLE = Path("/proc/net/tcp")
_ESTABLISHED = "01"


def listen_on(port: int, what: str, option: str) -> trio.SocketListener:
    """Listen at a port; `what` and `option` name it. Raises SocketError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        text = f"{what} {port} cannot be used: {error.strerror}. Name another one with {option}"
        raise SocketError(text) from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def user_of(stream: trio.SocketStream) -> int | None:
    """Return the user who has connected; None: the kernel does not tell, or he has hung up."""
    try:
        table = _TABLE.read_text("ascii")
        return user_in(table, stream.socket.getpeername(), stream.socket.getsockname())
    except (OSError, ValueError):
        return None


def user_in(table: str, local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """Return the user of the established connection from `local` to `remote`, as a text of the table says."""
    ends = [_written(local), _written(remote)]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1:4] == [*ends, _ESTABLISHED]:
            return int(fields[7])
    return None


def _written(address: tuple[str, int]) -> str:
    """Return an address as the table has it: the number as it lies in memory, and the port."""
    number = int.from_bytes(ipaddress.IPv4Address(address[0]).packed, sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"
