"""A station of the tour: a client that insists on TLS."""

import time
from collections.abc import Callable

from realmfs.cli.stage import Player, StageError
from realmfs.cli.trees import Tree


def through_tls(player: Player, here: Tree, there: Tree, say: Callable[[str], None]) -> None:
    """Let a client that takes nothing but TLS read what others wrote, seen in `there`. Raises StageError."""
    start = time.monotonic()
    for name in there.names("travel"):
        if here.read(f"travel/{name}") != there.read(f"travel/{name}"):
            raise StageError(f"travel/{name} came otherwise through TLS")
    seconds = time.monotonic() - start
    with player.client() as daemon:
        servers = list(daemon.pages("servers.list"))
    for server in servers:
        if not server["protection"].startswith("TLS"):
            raise StageError(f"{server['address']} is reached by {server['protection']}")
    say(f"   travel/ came byte for byte, {seconds:.2f} s with the first contact")
    for server in servers:
        say(f"   {server['address']} is reached by {server['protection']}, and not one datagram")
