"""The tour of the demonstration, station by station. Each says what it does and what came of it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from realmfs.cli.stage import REALM, Player, Stage, StageError
from realmfs.cli.tour_conflict import disagree
from realmfs.cli.tour_hoard import hoard
from realmfs.cli.tour_offline import work_offline
from realmfs.cli.tour_rights import keep_private
from realmfs.cli.tour_servers import lose_a_server
from realmfs.cli.tour_tls import through_tls
from realmfs.cli.trees import MountedTree, SocketTree, Tree, copy_library, files_below
from realmfs.control.words import size

_SENT_WITHIN = 60.0
_SEEN_WITHIN = 40.0  # the probe interval, and then some
_SMALL_FILES = 50
_BIG_FILE = 8 << 20


@dataclass(frozen=True, slots=True)
class Figures:
    """What one pass over all files did."""

    files: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        rate = size(self.bytes / self.seconds)
        return f"{self.files} files, {size(self.bytes)} in {self.seconds:.2f} s ({rate}/s)"


class Tour:
    """One tour. `kernel` False: through the control socket."""

    def __init__(self, stage: Stage, *, kernel: bool, say: Callable[[str], None] = click.echo) -> None:
        """Play on `stage`; `say` prints a line."""
        self._stage = stage
        self._kernel = kernel
        self._say = say
        self._library = stage.room / "library"
        self._number = 0
        self._written: dict[str, bytes] = {}

    def take(self) -> None:
        """Go from the first station to the last. Raises StageError where something is not as it should be."""
        self._station("A realm")
        self._serve()
        self._station("A client" + (" and its mount" if self._kernel else ", without a mount"))
        alice = self._stage.enter("alice", kernel=self._kernel)
        self._say(f"   {alice.mount_point or 'reached by ls, cat, get and put over the control socket'}")
        tree = self._tree(alice)
        self._say(f"   the names in /coda/{REALM}: {', '.join(tree.names('')[:6])}, ...")
        self._station("Every file is what it was")
        self._say(f"   fetched:               {self._compare(tree)}")
        self._say(f"   again, from the cache: {self._compare(tree)}")
        self._station("Work")
        self._work(tree)
        self._say(f"   all of it has reached the servers after {self._sent(alice):.2f} s")
        self._station("Another client, with an empty cache")
        bob = self._stage.enter("bob", kernel=self._kernel)
        self._check(self._tree(bob))
        self._say("   sees the same: written, renamed and removed")
        self._answer(self._tree(bob), tree, bob)
        self._station("Hoarding")
        hoard(bob, self._tree(bob), self._library, self._say)
        self._station("Off line and back")
        work_offline(alice, tree, self._tree(bob), self._say)
        self._station("A conflict")
        disagree(alice, tree, bob, self._tree(bob), self._say)
        self._station("Through TLS")
        options = ("--tls", "require", "--ca-dir", str(self._stage.authorities))
        carol = self._stage.enter("carol", *options, kernel=self._kernel)
        through_tls(carol, self._tree(carol), tree, self._say)
        self._station("Whose is it")
        keep_private(self._stage, (alice, tree), (bob, self._tree(bob)), self._say)
        self._station("A server dies")
        lose_a_server(self._stage, bob, self._tree(bob), self._say)

    def _station(self, title: str) -> None:
        self._number += 1
        self._say(f"\n{self._number}. {title}")

    def _serve(self) -> None:
        copy_library(self._library)
        start = time.monotonic()
        addresses = self._stage.serve(self._library)
        count = sum(1 for _ in files_below(self._library))
        seconds = time.monotonic() - start
        self._say(
            f"   {REALM}: servers at {', '.join(addresses)}; the first is filled with Python's standard "
            f"library, {count} files ({seconds:.1f} s); the others fill themselves from it"
        )

    def _tree(self, player: Player) -> Tree:
        if player.mount_point is not None:
            return MountedTree(player.mount_point / REALM)
        return SocketTree(player.client(), REALM)

    def _compare(self, tree: Tree) -> Figures:
        """Read every file and compare it with its original."""
        start = time.monotonic()
        files = total = 0
        for path in files_below(self._library):
            data = tree.read(path)
            if data != (self._library / path).read_bytes():
                raise StageError(f"{path} differs from its original")
            files += 1
            total += len(data)
        return Figures(files, total, time.monotonic() - start)

    def _work(self, tree: Tree) -> None:
        start = time.monotonic()
        tree.mkdir("work")
        for number in range(_SMALL_FILES):
            tree.write(f"work/note-{number:02}", b"note %d\n" % number * 100)
        tree.write("work/draft", os.urandom(16) * (_BIG_FILE // 16))
        tree.rename("work/draft", "work/report")
        tree.write("work/note-00", b"written again\n")
        for number in range(_SMALL_FILES // 2, _SMALL_FILES):
            tree.remove(f"work/note-{number:02}")
        self._written = {name: tree.read(f"work/{name}") for name in tree.names("work")}
        seconds = time.monotonic() - start
        self._say(
            f"   a directory, {_SMALL_FILES} small files and one of {size(_BIG_FILE)}; "
            f"renamed it, removed half of the others: {seconds:.2f} s"
        )

    def _sent(self, player: Player) -> float:
        """Wait until nothing is pending; returns for how long."""
        start = time.monotonic()
        while player.pending():
            if time.monotonic() - start > _SENT_WITHIN:
                raise StageError(f"{player.pending()} changes still wait after {_SENT_WITHIN:.0f} s")
            time.sleep(0.05)
        return time.monotonic() - start

    def _check(self, tree: Tree) -> None:
        """The second client must see what the first one left."""
        names = tree.names("work")
        if names != sorted(self._written):
            raise StageError(f"the second client sees {names} instead of {sorted(self._written)}")
        for name, data in self._written.items():
            if tree.read(f"work/{name}") != data:
                raise StageError(f"the second client reads something else in work/{name}")

    def _answer(self, there: Tree, here: Tree, writer: Player) -> None:
        """What the second client writes is seen by the first, whose cached copy is called back."""
        there.write("work/note-01", b"an answer\n")
        self._sent(writer)
        start = time.monotonic()
        while here.read("work/note-01") != b"an answer\n":
            if time.monotonic() - start > _SEEN_WITHIN:
                raise StageError("the first client does not see the second one's change")
            time.sleep(0.05)
        seconds = time.monotonic() - start
        self._say(
            f"   its own change of a file was seen by the first client {seconds:.2f} s after it was sent"
        )
