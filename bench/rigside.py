"""The subjects of `--target rig`: the reference client and realmfs, reading the same data from the same
servers.

Both read as nobody, through a FUSE layer of their own: the reference client through the rig's bridge, which
caches nothing, realmfs through pyfuse3. What these layers cost shows when all data is on this machine
already: `fuse_shares` tells it for both, so that the comparison with it taken off can be seen too.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.ournode import NodeMount
from bench.plan import COLD, RESTARTED, WARM, Reading
from bench.process import StepError
from bench.results import Results
from bench.rig import OUR_NODE, REALM, Rig
from bench.subject import WORK, Subject

WRITER, WRITER_NODE, READER_NODE = "alice", "client", "client2"
WRITER_PASSWORD = "alicepw1"  # the rig's own, for tests only


@contextmanager
def write_data(rig: Rig, source: Path, within: float) -> Iterator[str]:
    """Let the reference client put `source` on the servers; yields its path below the realm, removes it at
    the end.
    """
    place = f"{WRITER}/bench-{os.getpid()}"
    shown = f"/coda/{REALM}/{place}"
    rig.login(WRITER_NODE, WRITER, WRITER_PASSWORD)
    try:
        rig.exec(WRITER_NODE, "cp", "-r", os.fspath(source), shown, user=WRITER, within=within)
        rig.reintegrate(WRITER_NODE, f"/coda/{REALM}/{WRITER}", within)
        warm_up(rig, shown, within)
        yield place
    finally:
        rig.exec(WRITER_NODE, "rm", "-rf", shown, user=WRITER, within=within)
        rig.reintegrate(WRITER_NODE, f"/coda/{REALM}/{WRITER}", within)


def warm_up(rig: Rig, shown: str, within: float) -> None:
    """Read everything once: after a write the servers are busy, and the first reader would pay."""
    rig.control("client", READER_NODE.removeprefix("client"), "restart", "--init")
    rig.exec(READER_NODE, "python3", os.fspath(WORK), "digest", shown, within=within)


class Reference(Subject):
    """The reference client, Coda's own venus, on a node that the rig runs; restarted with an empty cache
    for cold.
    """

    name = "reference"
    python = "python3"
    keeps_cache = True

    def __init__(self, rig: Rig, place: str) -> None:
        self._rig = rig
        self._place = place

    def start(self) -> None:
        """The rig has it running."""

    def mount(self, *, fresh: bool) -> None:
        self._rig.control(
            "client", READER_NODE.removeprefix("client"), "restart", *(("--init",) if fresh else ())
        )

    @property
    def data(self) -> str:
        return f"/coda/{REALM}/{self._place}"

    @property
    def scratch(self) -> str:
        raise StepError("nothing is written as nobody")

    def describe(self) -> dict[str, Any]:
        version = self._rig.shell(READER_NODE, "venus -version 2>&1 || true").strip().splitlines()
        return {"version": version[0] if version else "", "transport": "RPC2 over UDP"}

    def command(self, argv: Sequence[str], within: float) -> str:
        return self._rig.exec(READER_NODE, *argv, within=within)

    def stop(self) -> None:
        """It goes on running: it is the rig's."""


class Ours(Subject):
    """realmfs, mounted on the bare node."""

    name = "realmfs"
    python = "python3"
    keeps_cache = True

    def __init__(self, rig: Rig, place: str, room: Path) -> None:
        self._rig = rig
        self._place = place
        self._room = room / "realmfs"
        self._point = room / "realmfs-mount"
        self._generation = 0
        self._mount: NodeMount | None = None

    def start(self) -> None:
        self._room.mkdir()
        self._point.mkdir()

    def mount(self, *, fresh: bool) -> None:
        self._unmount()
        self._generation += fresh
        self._mount = NodeMount(self._rig, self._point, self._room / f"cache{self._generation}")

    @property
    def data(self) -> str:
        return f"{self._point}/{REALM}/{self._place}"

    @property
    def scratch(self) -> str:
        raise StepError("nothing is written as nobody")

    def describe(self) -> dict[str, Any]:
        return {"transport": "RPC2 over UDP"}

    def command(self, argv: Sequence[str], within: float) -> str:
        return self._rig.exec(OUR_NODE, *argv, within=within)

    def _unmount(self) -> None:
        if self._mount is not None:
            self._mount.stop()
            self._mount = None

    def stop(self) -> None:
        self._unmount()


def fuse_shares(results: Results, scenes: Sequence[Reading]) -> list[str]:
    """A line for each reading, subject and state: the cost of the FUSE layer and the cached path below it."""
    lines = []
    for scene in scenes:
        for name in ("realmfs", "reference"):
            cold = results.median(scene.line(COLD), name)
            for state in (WARM, RESTARTED):
                layer = results.median(scene.line(state), name)
                if cold and layer is not None:
                    share = f"{state} {layer:.3f} s, {layer / cold:.0%} of cold {cold:.3f} s"
                    rest = f"cold without it {max(cold - layer, 0.0):.3f} s"
                    lines.append(f"FUSE layer of {name}, {scene.work}: {share}; {rest}")
    return lines
