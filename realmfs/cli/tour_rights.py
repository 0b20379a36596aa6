"""A station of the tour: two people log in, and one has something that the other may not see."""

import secrets
import time
from collections.abc import Callable

from realmfs.cli.stage import REALM, Player, Stage, StageError
from realmfs.cli.trees import Tree
from realmfs.control.protocol import ControlError

PLACE = "private"
_SEEN_WITHIN = 10.0


def keep_private(
    stage: Stage, alice: tuple[Player, Tree], bob: tuple[Player, Tree], say: Callable[[str], None]
) -> None:
    """Let alice have a directory of her own, and bob try. Raises StageError."""
    for player, name in ((alice[0], "alice"), (bob[0], "bob")):
        password = secrets.token_urlsafe(6)
        number = stage.add_user(name, password)
        with player.client() as daemon:
            daemon.call("tokens.login", realm=REALM, user=name, password=password)
        say(f"   realmfs login {name}@{REALM}: the servers know him as {number}")
    here, there = alice[1], bob[1]
    here.mkdir(PLACE)
    give(alice[0], say, "alice", "all")
    here.write(f"{PLACE}/diary", b"dear diary\n")
    if here.read(f"{PLACE}/diary") != b"dear diary\n":
        raise StageError("alice cannot read what she wrote")
    _refused(lambda: there.read(f"{PLACE}/diary"), "read alice's diary")
    _refused(lambda: there.write(f"{PLACE}/graffiti", b""), "write into alice's directory")
    say("   bob can neither read nor write there, nor learn a name")
    give(alice[0], say, "alice", "all", "bob", "rl")
    seconds = _seen(there)
    say(f"   now bob reads it: {seconds:.2f} s later")


def give(player: Player, say: Callable[[str], None], *entries: str) -> None:
    """Give the directory exactly these names and rights."""
    pairs = [
        {"name": name, "rights": rights} for name, rights in zip(entries[::2], entries[1::2], strict=True)
    ]
    with player.client() as daemon:
        daemon.call("acl.set", path=f"{REALM}/{PLACE}", entries=pairs, clear=True)
    say(f"   realmfs acl set --clear {REALM}/{PLACE} {' '.join(entries)}")


def _refused(attempt: Callable[[], object], what: str) -> None:
    try:
        attempt()
    except (OSError, ControlError):
        return
    raise StageError(f"bob could {what}")


def _seen(there: Tree) -> float:
    start = time.monotonic()
    while True:
        try:
            there.read(f"{PLACE}/diary")
        except (OSError, ControlError) as error:
            if time.monotonic() - start > _SEEN_WITHIN:
                raise StageError(f"bob still may not read it: {error}") from error
            time.sleep(0.02)
            continue
        return time.monotonic() - start
