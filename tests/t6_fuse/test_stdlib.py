"""Python's own tests of its file modules, with their temporary directory on the mount.

What is left out is left out because Coda is so: times in whole seconds and no access time, hard links
within one directory only, no pipes, owners that are not given away, files below 2 GiB, and directories that
permission bits do not protect.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from realmfs.cli.stage import REALM, Stage

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(600)]

MODULES = {
    "test_shutil": ["test_on_error"],
    "test_os": ["test_utime*", "test_chown_with_root"],
    "test_pathlib": ["test_hardlink_to", "test_link_to"],
    "test_tempfile": [],
    "test_fileio": [],
    "test_file": [],
    "test_io": ["test_large_file_ops"],
    "test_glob": [],
    "test_mmap": [],
    "test_zipfile": [],
    "test_posixpath": [],
    "test_largefile": [],
    "test_sqlite3": [],
    "test_gzip": [],
    "test_bz2": [],
    "test_fcntl": [],
    "test_dbm_dumb": [],
    "test_shelve": [],
    "test_zipapp": [],
    "test_compileall": [],
    "test_import": ["test_unwritable_directory"],
    "test_importlib": [],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    stage = Stage()
    try:
        stage.serve(tmp_path_factory.mktemp("empty"))
        player = stage.enter("alice", kernel=True)
        assert player.mount_point is not None
        yield player.mount_point / REALM
        assert "ERROR" not in player.program.log.read_text()
    finally:
        stage.close()


@pytest.mark.parametrize("module", MODULES)
def test_module(place: Path, module: str) -> None:
    if not (Path(sysconfig.get_paths()["stdlib"]) / "test" / "support").is_dir():
        pytest.skip("this Python came without its tests")
    directory = place / module
    directory.mkdir()
    ignore = [part for pattern in MODULES[module] for part in ("--ignore", pattern)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [sys.executable, "-m", "test", "-v", "--tempdir", str(directory), *ignore, module],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=environment | {"TMPDIR": str(directory)},
        timeout=500,
    )
    bad = [line for line in result.stdout.splitlines() if line.startswith(("FAIL:", "ERROR:"))]
    assert result.returncode == 0, "\n".join(bad) or result.stdout[-2000:]
