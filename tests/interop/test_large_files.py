"""Large files from real servers: read while they come, in parts, and not at all where they are here."""

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.ournode import NodeMount, mounted
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import PASSWORDS, REALM, Place, seconds_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

SIZE = 1 << 30
MIDDLE = 60 << 20
"""Above what is brought as a whole without being asked for (client.md §5)."""
SHARED = 5 << 20
VOLUME = "solo"
"""On one server: three times a GiB says no more, and is written three times."""
WITHIN = 300.0

READ = """
import json, os, sys, time
path, offsets = sys.argv[1], [int(word) for word in sys.argv[2:]]
begun, found = time.monotonic(), []
descriptor = os.open(path, os.O_RDONLY)
for offset in offsets:
    text = os.pread(descriptor, 6, offset)
    seconds = time.monotonic() - begun
    found.append([text.decode(), os.getxattr(path, "user.coda.cached").decode(), seconds])
print(json.dumps({"reads": found, "state": os.getxattr(path, "user.coda.state").decode()}))
"""
WRITE = """
import os, sys
path, size = sys.argv[1], int(sys.argv[2])
with open(path, "wb") as file:
    for offset, text in ((0, b"first:"), (size // 2, b"middle"), (size - 6, b"finish")):
        file.seek(offset)
        file.write(text)
"""


@pytest.fixture(scope="module")
def top(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory of alice's with the files, written through a mount of ours; its path below the realm."""
    files = tmp_path_factory.mktemp("writer")
    point = files / "coda"
    point.mkdir()
    with mounted(rig, point, files / "run", "--cache-size", "3G") as mount:
        rig.exec(OUR_NODE, "ls", f"{point}/{REALM}")
        mount.command("login", f"alice@{REALM}", stdin=PASSWORDS["alice"] + "\n")
        place = Place(rig, OUR_NODE, f"{point}/{REALM}/{VOLUME}")
        place.run("mkdir", "large")
        source = files / "shared"
        source.write_bytes(random.Random(4).randbytes(SHARED))
        place.run("cp", str(source), "large/shared")
        for name, size in (("huge", SIZE), ("middle", MIDDLE)):
            place.run(sys.executable, "-c", WRITE, f"large/{name}", str(size), within=WITHIN)
        seconds_until(lambda: not json.loads(mount.command("changes", "--json")), WITHIN)
        yield f"{REALM}/{VOLUME}/large"
        place.run("rm", "-rf", "large")
        seconds_until(lambda: not json.loads(mount.command("changes", "--json")), WITHIN)


@pytest.fixture
def reader(rig: Rig, top: str, tmp_path: Path) -> Iterator[NodeMount]:
    """A mount with an empty cache; its lookaside directory holds what `shared` holds, under another name."""
    point, aside = tmp_path / "coda", tmp_path / "aside"
    point.mkdir()
    aside.mkdir()
    (aside / "another").write_bytes(random.Random(4).randbytes(SHARED))
    options = ("--cache-size", "3G", "--lookaside", str(aside))
    with mounted(rig, point, tmp_path / "run", *options) as mount:
        yield mount


def _read(rig: Rig, path: str, *offsets: int) -> dict[str, Any]:
    words = [str(offset) for offset in offsets]
    answer: dict[str, Any] = json.loads(rig.exec(OUR_NODE, sys.executable, "-c", READ, path, *words))
    return answer


def _percent(text: str) -> int:
    return int(text.removeprefix("partial:").removesuffix("%"))


def test_a_gibibyte_is_read_at_both_ends_before_a_twentieth_has_come(
    rig: Rig, top: str, reader: NodeMount
) -> None:
    read = _read(rig, f"{reader.point}/{top}/huge", 0, SIZE - 6, SIZE // 2)
    for (text, cached, seconds), wanted in zip(read["reads"], ("first:", "finish", "middle"), strict=True):
        print(f"{wanted} after {seconds:.3f} s, {cached} of 1 GiB")
        assert text == wanted
        assert _percent(cached) < 5
    assert read["state"] == "partial"


def test_a_part_becomes_the_whole_when_it_is_hoarded(rig: Rig, top: str, reader: NodeMount) -> None:
    path = f"{reader.point}/{top}/middle"
    read = _read(rig, path, MIDDLE - 6)
    assert (read["reads"][0][0], read["state"]) == ("finish", "partial")
    reader.command("hoard", "add", f"/coda/{top}/middle", "600")
    reader.command("hoard", "walk", within=WITHIN)
    assert _read(rig, path, 0)["state"] == "cached"
    reader.command("hoard", "verify")
    sums = rig.exec(OUR_NODE, "sh", "-c", f"sha1sum < {path}", within=WITHIN)
    assert sums.split()[0] == _sha_of_middle()


def test_what_is_aside_is_not_fetched(rig: Rig, top: str, reader: NodeMount) -> None:
    found = rig.exec(OUR_NODE, "cmp", f"{reader.point}/{top}/shared", f"{reader.point.parent}/aside/another")
    assert not found
    metrics = reader.command("metrics")
    counted = {line.split()[0]: line.split()[-1] for line in metrics.splitlines() if "reused_" in line}
    print(counted)
    reused = {name.removeprefix("realmfs_"): value for name, value in counted.items() if name != "#"}
    assert (reused["reused_files_total"], int(float(reused["reused_bytes_total"]))) == ("1", SHARED)


def _sha_of_middle() -> str:
    image = bytearray(MIDDLE)
    for offset, text in ((0, b"first:"), (MIDDLE // 2, b"middle"), (MIDDLE - 6, b"finish")):
        image[offset : offset + 6] = text
    return hashlib.sha1(image, usedforsecurity=False).hexdigest()
