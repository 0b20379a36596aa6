"""What the reference client sees of the realm when only one of the servers is there, for each of them."""

import time
from collections.abc import Callable
from typing import TypeVar

from bench.process import StepError
from bench.rig import Rig
from tests.interop.fallen import NUMBERS, start_fallen

PATIENCE = 40.0

T = TypeVar("T")


def through_each_server(rig: Rig, client: int, look: Callable[[], T], login: Callable[[], None]) -> list[T]:
    """Return what `look` finds at a reference client with an empty cache, by server.

    It is repeated until it raises no StepError: the client needs time to find out who is away. `login` is
    called after each start of the client. A server that has ended by itself is started again.
    """
    found = []
    for server in NUMBERS:
        start_fallen(rig)
        others = [one for one in NUMBERS if one != server]
        for one in others:
            rig.control("server", str(one), "partition")
        try:
            rig.control("client", str(client), "restart", "--init")
            login()
            found.append(_patiently(rig, server, look))
        finally:
            for one in others:
                rig.control("server", str(one), "heal")
    rig.control("client", str(client), "restart", "--init")
    login()
    return found


def _patiently(rig: Rig, server: int, look: Callable[[], T]) -> T:
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            return look()
        except StepError:
            if start_fallen(rig, (server,)):
                limit = time.monotonic() + PATIENCE
            if time.monotonic() > limit:
                raise
