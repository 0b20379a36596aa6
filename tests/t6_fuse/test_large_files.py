"""A file of 1 GiB on a mount: what of it has come when its first byte is there, and its last."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realmfs.cli.stage import REALM, Stage

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

SIZE = 1 << 30


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file, of which the mount has nothing yet: holes but for its ends and its middle."""
    tree = tmp_path_factory.mktemp("tree")
    with (tree / "large").open("wb") as file:
        for offset, text in ((0, b"first"), (SIZE // 2, b"middle"), (SIZE - 4, b"last")):
            file.seek(offset)
            file.write(text)
    stage = Stage()
    try:
        stage.serve(tree)
        player = stage.enter("alice", kernel=True)
        assert player.mount_point is not None
        yield player.mount_point / REALM / "large"
    finally:
        stage.close()


def _percent(path: Path) -> int:
    text = os.getxattr(path, "user.coda.cached").decode()
    match = re.fullmatch(r"partial:(\d+)%", text)
    assert match is not None, text
    return int(match[1])


def test_the_first_byte_and_the_last_come_before_the_rest(large: Path) -> None:
    begun = time.monotonic()
    descriptor = os.open(large, os.O_RDONLY)
    try:
        for offset, text in ((0, b"first"), (SIZE - 4, b"last"), (SIZE // 2, b"middle")):
            assert os.pread(descriptor, len(text), offset) == text
            percent, seconds = _percent(large), time.monotonic() - begun
            print(f"bytes at {offset} after {seconds:.3f} s, {percent} % of 1 GiB fetched")
            assert percent < 5
        assert os.getxattr(large, "user.coda.state") == b"partial"
    finally:
        os.close(descriptor)
