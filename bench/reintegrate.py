"""`python -m bench.reintegrate`: how fast pending changes reach three real servers, ours next to theirs, and
how fast a server of our own.

Both clients do the same, one after the other, each run in new directories of the same volume, as the same
user; then ours does it in an embedded realm, whose server is on its own node:

    send            the log is held back while files are written; then the time from "send" to an empty log
    write and send  nothing is held back: the time from the first create to an empty log

The reference client holds its log back by `cfs writedisconnect -age`, and sends by `cfs forcereintegrate`.
realmfs does by `realmfs writeback --age` and `realmfs changes send`; their start counts. At the end of each
measurement another client reads everything and the digests must agree. Exit status as that of `python -m
bench`.

The processor seconds of the servers together, and of the client, stand beside each time: a machine that all
of them share cannot be faster than their sum, divided by its processors.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from bench.data import KIB, MIB
from bench.ournode import NodeMount, Served, mounted
from bench.plan import Line
from bench.process import StepError
from bench.results import Results
from bench.rig import OUR_NODE, REALM, Rig
from bench.rigside import READER_NODE, WRITER, WRITER_NODE, WRITER_PASSWORD
from bench.subject import WORK

SEND, BOTH = "send", "write and send"
SERVERS = ("s1", "s2", "s3")
EMBEDDED = "embedded.test"
OUR_ADDRESS = "10.79.0.31"
"""Of our node in the rig's network."""
HOLD = "100000"
"""Seconds; nothing here takes so long."""


class Writer(ABC):
    """A client that writes as the rig's user."""

    name: str

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    @abstractmethod
    def processor(self) -> float:
        """Return the processor seconds that the client has used so far."""

    def servers_processor(self) -> float:
        """Return the processor seconds that the servers have used so far."""
        return sum(self._rig.processor(node, "codasrv") for node in SERVERS)

    @abstractmethod
    def place(self, path: str) -> str:
        """The path on its node of a path below the realm."""

    def read(self, path: str, *argv: str, within: float) -> str:
        """Run a program, whose last argument is a path below the realm, where another client shows that."""
        return self._rig.exec(READER_NODE, *argv, f"/coda/{REALM}/{path}", within=within)

    @abstractmethod
    def hold(self, held: bool) -> None:
        """Hold the log back, or do not."""

    @abstractmethod
    def send(self, within: float) -> None:
        """Send the log and wait until it is empty."""

    @abstractmethod
    def run(self, *argv: str, within: float) -> str:
        """Run a program on its node as the user."""


class Reference(Writer):
    """The reference client, on the node where the rig runs it."""

    name = "reference"

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        rig.login(WRITER_NODE, WRITER, WRITER_PASSWORD)

    def processor(self) -> float:
        return self._rig.processor(WRITER_NODE, "venus")

    def place(self, path: str) -> str:
        return f"/coda/{REALM}/{path}"

    def hold(self, held: bool) -> None:
        how = ("writedisconnect", "-age", HOLD) if held else ("adaptive",)
        self.run("cfs", *how, self.place(WRITER), within=60.0)

    def send(self, within: float) -> None:
        self.run("cfs", "adaptive", self.place(WRITER), within=60.0)
        self._rig.reintegrate(WRITER_NODE, self.place(WRITER), within)

    def run(self, *argv: str, within: float) -> str:
        return self._rig.exec(WRITER_NODE, *argv, user=WRITER, within=within)


class Ours(Writer):
    """realmfs on the bare node; root there has the user's token."""

    name = "realmfs"
    realm = REALM

    def __init__(self, rig: Rig, mount: NodeMount) -> None:
        super().__init__(rig)
        self._mount = mount
        self.run("ls", self.place(""), within=20.0)
        mount.command("login", f"{WRITER}@{self.realm}", stdin=WRITER_PASSWORD + "\n")

    def processor(self) -> float:
        return self._mount.program.processor()

    def place(self, path: str) -> str:
        return f"{self._mount.point}/{self.realm}/{path}"

    def hold(self, held: bool) -> None:
        self._mount.command("writeback", "--age", HOLD if held else "0")

    def send(self, within: float) -> None:
        self._mount.command("changes", "send", "--within", str(within))

    def run(self, *argv: str, within: float) -> str:
        return self._rig.exec(OUR_NODE, *argv, within=within)


class OnOurServer(Ours):
    """The same mount in an embedded realm, and a second one that reads."""

    name = "own server"
    realm = EMBEDDED

    def __init__(self, rig: Rig, mount: NodeMount, server: Served, reader: NodeMount) -> None:
        super().__init__(rig, mount)
        self._server = server
        self._reader = reader

    def servers_processor(self) -> float:
        return self._server.program.processor()

    def read(self, path: str, *argv: str, within: float) -> str:
        return self._rig.exec(OUR_NODE, *argv, f"{self._reader.point}/{self.realm}/{path}", within=within)


@contextmanager
def writers(rig: Rig, room: Path) -> Iterator[list[Writer]]:
    """Start what is measured; `room` may be entered by anybody."""
    tree, realms = room / "tree", room / "realms"
    (tree / WRITER).mkdir(parents=True)
    realms.write_text(f"{EMBEDDED} {OUR_ADDRESS}\n")
    for name in ("mount", "reader"):
        (room / name).mkdir()
    with Served(rig, EMBEDDED, OUR_ADDRESS, room / "server", tree) as server:
        server.add_user(WRITER, WRITER_PASSWORD)
        with (
            mounted(rig, room / "mount", room / "realmfs", "--realms", os.fspath(realms)) as mount,
            mounted(rig, room / "reader", room / "other", "--realms", os.fspath(realms)) as reader,
        ):
            yield [Ours(rig, mount), Reference(rig), OnOurServer(rig, mount, server, reader)]


class Comparison:
    """Measures a list of writers."""

    def __init__(self, rig: Rig, results: Results, limit: float) -> None:
        self._rig = rig
        self._results = results
        self._limit = limit
        self._count = 0

    def measure(self, writer: Writer, files: int, size: int) -> None:
        """Write files of one size both ways; add the seconds to the results."""
        work = f"{files} x {size // KIB} KiB" if size < MIB else f"{files} x {size // MIB} MiB"
        for state in (SEND, BOTH):
            try:
                seconds, servers, client = self._once(writer, files, size, held=state == SEND)
            except StepError as error:
                self._results.fail(writer.name, f"{work}, {state}", error)
            else:
                for what, value in (("", seconds), (", servers' CPU", servers), (", client's CPU", client)):
                    self._results.add(Line(f"new files: {work}{what}", state), writer.name, value)
                text = f"{seconds:.2f} s, CPU servers {servers:.2f} client {client:.2f}"
                print(f"{writer.name}: {work}, {state}: {text}", file=sys.stderr, flush=True)

    def _once(self, writer: Writer, files: int, size: int, *, held: bool) -> tuple[float, float, float]:
        """Return how long it took, and the processor seconds of servers and client meanwhile."""
        self._count += 1
        path = f"{WRITER}/send-{os.getpid()}-{self._count}"
        top = writer.place(path)
        writer.run("mkdir", top, within=self._limit)
        writer.send(self._limit)
        options = ("--count", str(files), "--size", str(size))
        try:
            writer.hold(held)
            write = ("python3", os.fspath(WORK), "write", top, *options)
            if held:
                writer.run(*write, within=self._limit)
            before = writer.servers_processor(), writer.processor()
            start = time.monotonic()
            if not held:
                writer.run(*write, within=self._limit)
            writer.send(self._limit)
            seconds = time.monotonic() - start
            after = writer.servers_processor(), writer.processor()
        finally:
            writer.hold(False)
        self._compare(writer, path, top)
        writer.run("rm", "-rf", top, within=self._limit)
        writer.send(self._limit)
        return seconds, after[0] - before[0], after[1] - before[1]

    def _compare(self, writer: Writer, path: str, top: str) -> None:
        """See that another client gets the same bytes from the servers."""
        job = ("python3", os.fspath(WORK), "digest")
        mine = json.loads(writer.run(*job, top, within=self._limit))["sha256"]
        theirs = json.loads(writer.read(path, *job, within=self._limit))["sha256"]
        if mine != theirs:
            raise StepError(f"{writer.name} and the reader do not see the same files in {path}")


def main() -> int:
    """Run the comparison."""
    options = _options()
    rig = Rig.from_environment()
    reason = rig.missing()
    if reason is not None:
        print(f"bench: the rig cannot be used: {reason}", file=sys.stderr)
        return 2
    results = Results()
    comparison = Comparison(rig, results, options.limit)
    with tempfile.TemporaryDirectory(prefix="realmfs-send-") as name:
        room = Path(name)
        room.chmod(0o755)
        about = machine.describe(room)
        with writers(rig, room) as found:
            for _ in range(options.runs):
                for files, size in ((options.files, 4 * KIB), (1, options.mib * MIB)):
                    for writer in found:
                        comparison.measure(writer, files, size)
    about["load_after"] = os.getloadavg()[0]
    print(machine.sentence(about))
    print(results.table("realmfs", ["reference"]))
    print()
    print(results.table("own server", ["reference"]))
    if options.json is not None:
        options.json.write_text(json.dumps(results.as_json("realmfs", ["reference"]), indent=1) + "\n")
    return 1 if results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.reintegrate", description=__doc__)
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="how many runs; the median counts")
    parser.add_argument("--files", type=int, default=2000, metavar="N", help="how many small files")
    parser.add_argument("--mib", type=int, default=64, metavar="N", help="size of the large file")
    parser.add_argument("--limit", type=float, default=120.0, metavar="SECONDS", help="the longest step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
