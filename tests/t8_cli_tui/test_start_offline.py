"""A start without DNS, servers and token, with 100 000 cached objects."""

import json
import os
import random
from pathlib import Path

import pytest

from bench import bigcache, offline
from tests.seeds import first_seed
from tests.t8_cli_tui.conftest import Home

DIRECTORIES = 1000
MEMORY = 150  # MB


@pytest.mark.kernel
def test_everything_cached_is_there_without_a_network(home: Home) -> None:
    """Seconds are measured by `python -m bench --target offline`; here are counted memory and contents."""
    rng = random.Random(first_seed())
    objects = bigcache.fill(home.top / "cache", home.top / "state", DIRECTORIES)
    assert objects >= 100_000
    top = home.top / "coda"
    top.mkdir()
    home.run("mount", str(top), *offline.options(home.top))
    socket = ("--socket", str(home.top / "control"))
    try:
        assert sorted(os.listdir(top)) == sorted([bigcache.REALM, *bigcache.REALMS])
        assert offline.memory(home.top / "control") < MEMORY
        status = json.loads(home.run("status", *socket, "--json"))
        assert status["objects"] == objects
        assert status["realms"] == 1 + len(bigcache.REALMS)
        assert len(os.listdir(top / bigcache.REALM)) == DIRECTORIES
        for _ in range(500):
            directory, file = rng.randrange(DIRECTORIES), rng.randrange(bigcache.FILES)
            path = top / bigcache.REALM / f"d{directory:03}" / f"f{file:02}"
            assert path.read_bytes() == bigcache.contents(directory, file)
        assert offline.memory(home.top / "control") < MEMORY
        new = top / bigcache.REALM / "d007" / "new"
        new.write_text("made without a server")
        assert new.read_text() == "made without a server"
    finally:
        home.run("unmount", str(top), *socket)


def test_as_many_objects_as_that_are_cached_at_all(tmp_path: Path) -> None:
    count = bigcache.fill(tmp_path / "cache", tmp_path / "state", 2)
    assert count == 1 + 2 * (1 + bigcache.FILES) + len(bigcache.REALMS)
