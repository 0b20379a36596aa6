"""`realmfs reset` empties a cache, but not one that is in use or holds the only copy of something."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from realmfs.cache.cache import Cache
from realmfs.cache.limits import Limits
from realmfs.cli.main import main

LIMITS = Limits(bytes=1 << 20, objects=100, log_records=100, reserve=0)


def reset(directory: Path, *options: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["reset", "--cache-dir", str(directory), *options], input=answer)


def test_a_cache_without_changes_may_go(tmp_path: Path) -> None:
    assert reset(tmp_path).exit_code == 2
    Cache(tmp_path, LIMITS).close()
    cache = Cache(tmp_path, LIMITS)
    in_use = reset(tmp_path, "--yes")
    assert in_use.exit_code == 1
    assert "realmfs unmount" in in_use.output
    cache.close()
    assert reset(tmp_path, answer="n\n").exit_code == 1
    assert (tmp_path / "cache.db").exists()
    assert reset(tmp_path, "--yes").exit_code == 0
    assert not (tmp_path / "cache.db").exists()
    again = Cache(tmp_path, LIMITS)
    assert again.uuid != cache.uuid
    again.close()


def test_changes_that_wait_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path, LIMITS)
    with cache.transaction():
        cache.log.append(1, b"record", uid=1, identity="", time=1)
    cache.close()
    refused = reset(tmp_path, "--yes")
    assert refused.exit_code == 1
    assert "1 change waits" in refused.output
    assert "changes export" in refused.output
    assert (tmp_path / "cache.db").exists()
    assert reset(tmp_path, "--yes", "--discard-changes").exit_code == 0
    assert not (tmp_path / "cache.db").exists()


@pytest.mark.logs("damage")
def test_of_a_damaged_cache_nobody_knows(tmp_path: Path) -> None:
    Cache(tmp_path, LIMITS).close()
    (tmp_path / "cache.db").write_bytes(b"no database" * 1000)
    refused = reset(tmp_path, "--yes")
    assert refused.exit_code == 1
    assert "nobody can tell" in refused.output
