"""The station of the demonstration that hoards: plan, walk, verify, and then read everything off line."""

import time
from collections.abc import Callable
from pathlib import Path

from realmfs.cli.hoardwalk import follow
from realmfs.cli.stage import REALM, Player, StageError
from realmfs.cli.trees import Tree
from realmfs.control.words import size

DIRECTORY = "email"
"""What is hoarded: a package of the library, some 40 files."""


def hoard(player: Player, tree: Tree, library: Path, say: Callable[[str], None]) -> None:
    """Hoard a directory of which `player` has only a little, and live on it."""
    with player.client() as client:
        client.call("hoard.add", path=f"{REALM}/{DIRECTORY}", attributes="600:d+")
        plan = client.call("hoard.plan")
        wanted = plan["fetched"]
        say(f"   {DIRECTORY} with all below it: to fetch {wanted['files']} files, {size(wanted['bytes'])}")
        last = follow(client)["last"]
        say(f"   walked: {last['files']} objects, {size(last['bytes'])} in {last['seconds']:.2f} s")
        if not client.call("hoard.verify")["ready"]:
            raise StageError("something hoarded is missing after the walk")
        say("   may I unplug? yes")
        client.call("connection.disconnect")
        try:
            start = time.monotonic()
            files = _read(tree, library)
            say(f"   off line, all {files} files read in {time.monotonic() - start:.2f} s")
        finally:
            client.call("connection.reconnect")


def _read(tree: Tree, library: Path) -> int:
    """Compare what is hoarded with its original; return how many files it is."""
    files = 0
    for file in (library / DIRECTORY).rglob("*"):
        if file.is_file():
            path = str(file.relative_to(library))
            if tree.read(path) != file.read_bytes():
                raise StageError(f"{path} differs from its original")
            files += 1
    return files
