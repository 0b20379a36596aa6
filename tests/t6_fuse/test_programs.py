"""Programs that people run, on a mounted embedded realm."""

import hashlib
import mmap
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realmfs.cli.stage import REALM, Player, Stage
from tests.t6_fuse.conftest import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "imported").write_text("from the server")
    stage = Stage()
    try:
        stage.serve(tree)
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="module")
def player(stage: Stage) -> Player:
    return stage.enter("alice", kernel=True)


@pytest.fixture
def place(player: Player, request: pytest.FixtureRequest) -> Path:
    """A fresh directory on the mount."""
    assert player.mount_point is not None
    name = str(request.node.name).replace("[", "-").rstrip("]")
    directory = player.mount_point / REALM / name
    directory.mkdir()
    return directory


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def run(*argv: str | os.PathLike[str], cwd: Path | None = None) -> str:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": "/dev/null"}
    identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    result = subprocess.run(
        argv, cwd=cwd, check=False, capture_output=True, text=True, env=os.environ | identity, timeout=100
    )
    assert result.returncode == 0, f"{argv}: {result.stderr}"
    return result.stdout


def digest_of(top: Path) -> dict[str, str]:
    return {
        str(path.relative_to(top)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def some_tree(top: Path, files: int) -> None:
    for number in range(files):
        directory = top / f"d{number % 7}" / f"e{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file {number}").write_bytes(b"%d\n" % number * (number % 50 * 37))
    (top / "link").symlink_to("d1/e1")
    for path in [top, *top.rglob("*")]:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)  # Coda keeps whole seconds


def test_the_import_is_there(player: Player) -> None:
    assert player.mount_point is not None
    assert (player.mount_point / REALM / "imported").read_text() == "from the server"
    assert REALM in os.listdir(player.mount_point)


def test_tar(place: Path, tmp_path: Path) -> None:
    some_tree(tmp_path / "t", 400)
    archive = tmp_path / "t.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "t", "t")
    run("tar", "xf", archive, cwd=place)
    assert digest_of(place / "t") == digest_of(tmp_path / "t")
    assert os.readlink(place / "t" / "link") == "d1/e1"
    run("tar", "df", archive, cwd=place)


def test_rsync(place: Path, tmp_path: Path) -> None:
    need("rsync")
    some_tree(tmp_path / "t", 200)
    run("rsync", "-a", f"{tmp_path}/t/", place / "t")
    assert digest_of(place / "t") == digest_of(tmp_path / "t")
    again = run("rsync", "-ai", f"{tmp_path}/t/", place / "t")
    assert again.strip() == "", "times and modes have arrived, so nothing is left to do"


def test_git(place: Path, tmp_path: Path) -> None:
    need("git")
    origin = tmp_path / "origin"
    some_tree(origin, 120)
    run("git", "init", "-q", origin)
    run("git", "add", ".", cwd=origin)
    run("git", "commit", "-qm", "one", cwd=origin)
    run("git", "clone", "-q", origin, place / "clone")
    clone = place / "clone"
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    (clone / "new").write_text("new\n")
    run("git", "add", "new", cwd=clone)
    run("git", "commit", "-qm", "two", cwd=clone)
    run("git", "mv", "new", "newer", cwd=clone)
    run("git", "commit", "-qam", "three", cwd=clone)
    run("git", "gc", "-q", cwd=clone)
    run("git", "fsck", "--full", cwd=clone)
    assert run("git", "log", "--format=%s", cwd=clone).split() == ["three", "two", "one"]


@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
def test_sqlite(place: Path, journal: str) -> None:
    path = place / "db"
    with sqlite3.connect(path) as database:
        mode = database.execute(f"PRAGMA journal_mode = {journal}").fetchone()[0]
        if mode != journal:
            pytest.skip(f"SQLite chose {mode}: a shared mapping is not to be had")
        database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x TEXT)")
        database.executemany("INSERT INTO t (x) VALUES (?)", [(f"row {n}" * 10,) for n in range(500)])
        database.commit()
        database.execute("UPDATE t SET x = 'changed' WHERE n % 2 = 0")
        database.commit()
    database.close()
    again = sqlite3.connect(path)
    assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert again.execute("SELECT count(*) FROM t WHERE x = 'changed'").fetchone() == (250,)
    again.close()


def test_python_environment(place: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    assert run(place / "venv" / "bin" / "python", "-c", "print(6 * 7)").strip() == "42"


def test_tail_follows(place: Path) -> None:
    log = place / "log"
    log.write_text("first\n")
    with subprocess.Popen(["tail", "-n", "+1", "-F", log], stdout=subprocess.PIPE, text=True) as tail:
        try:
            assert tail.stdout is not None
            assert tail.stdout.readline() == "first\n"
            with log.open("a") as stream:
                stream.write("second\n")
            assert tail.stdout.readline() == "second\n"
        finally:
            tail.kill()


def test_shared_mapping(place: Path) -> None:
    file = place / "mapped"
    file.write_bytes(bytes(64 * mmap.PAGESIZE))
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapping:
        for page in range(64):
            mapping[page * mmap.PAGESIZE] = page
        mapping.flush()
    data = file.read_bytes()
    assert [data[page * mmap.PAGESIZE] for page in range(64)] == list(range(64))


def test_save_by_rename(place: Path) -> None:
    """As editors do: write beside, sync, keep the old one as a backup, rename over."""
    file = place / "text"
    file.write_text("version 0\n")
    for version in range(1, 6):
        beside = place / f".text.{version}.swp"
        with beside.open("w") as stream:
            stream.write(f"version {version}\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(file, place / "text~")
        os.replace(beside, file)
        assert file.read_text() == f"version {version}\n"
        assert (place / "text~").read_text() == f"version {version - 1}\n"
    assert sorted(os.listdir(place)) == ["text", "text~"]


def test_open_file_survives_its_removal(place: Path) -> None:
    file = place / "gone"
    with file.open("w+b") as stream:
        stream.write(b"before")
        stream.flush()
        file.unlink()
        stream.write(b" and after")
        stream.flush()
        assert os.pread(stream.fileno(), 100, 0) == b"before and after"
        assert os.fstat(stream.fileno()).st_nlink == 0
    assert os.listdir(place) == []


def test_sparse_append_truncate(place: Path) -> None:
    file = place / "file"
    with file.open("wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"end")
    assert file.stat().st_size == (1 << 20) + 3
    with file.open("ab") as stream:
        stream.write(b"more")
    os.truncate(file, (1 << 20) + 5)
    assert file.read_bytes() == bytes(1 << 20) + b"endmo"
    os.truncate(file, 0)
    assert file.read_bytes() == b""


def test_what_was_done_reaches_another_client(stage: Stage, player: Player) -> None:
    """Last in this file: everything the programs left behind, through a second cache."""
    eventually(lambda: player.pending() == 0, within=60)
    second = stage.enter("bob", kernel=True)
    assert player.mount_point is not None
    assert second.mount_point is not None
    start = time.monotonic()
    assert digest_of(second.mount_point / REALM) == digest_of(player.mount_point / REALM)
    assert time.monotonic() - start < 60
