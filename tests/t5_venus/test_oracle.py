"""The same random operations on a plain directory and on Coda, through disconnections and crashes."""

import os
import random
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from realmfs.vice.errors import CodaError
from tests.seeds import first_seed
from tests.t5_venus.test_changes import tree
from tests.t5_venus.world import REALM, Client, world

ROOT = f"/{REALM}"
NAMES = "abc"


class Pair:
    """A client and a plain directory that must always look the same."""

    def __init__(self, client: Client, plain: Path, rng: random.Random) -> None:
        self.client = client
        self.plain = plain
        self.rng = rng
        self.done = 0
        plain.mkdir()

    def path(self) -> str:
        return "/".join(self.rng.choice(NAMES) for _ in range(self.rng.choice([1, 1, 1, 2, 2, 3])))

    async def step(self) -> None:
        """Do one random operation in both; both must succeed or both fail."""
        operation = self.rng.choice(
            [self.write, self.mkdir, self.rename] * 2
            + [self.unlink, self.rmdir, self.symlink, self.chmod, self.truncate, self.link]
        )
        ours, plain, what = operation()
        try:
            plain()
            expected = True
        except OSError:
            expected = False
        try:
            await ours()
            happened, why = True, ""
        except (CodaError, FileNotFoundError) as error:
            happened, why = False, str(error)
        assert happened == expected, (what, why)
        self.done += happened

    Step = tuple[Callable[[], Awaitable[object]], Callable[[], object], str]

    def write(self) -> Step:
        path, data = self.path(), self.rng.randbytes(self.rng.choice([0, 1, 100, 5000]))
        plain = self.plain / path

        def act() -> None:
            if plain.is_symlink():
                raise OSError
            mode = plain.stat().st_mode & 0o777 if plain.exists() else 0
            plain.write_bytes(data)
            plain.chmod(mode or 0o644)

        return lambda: self.client.write(f"{ROOT}/{path}", data), act, f"write {path}"

    def mkdir(self) -> Step:
        path = self.path()
        return lambda: self.client.mkdir(f"{ROOT}/{path}"), (self.plain / path).mkdir, f"mkdir {path}"

    def unlink(self) -> Step:
        path = self.path()
        return lambda: self.client.unlink(f"{ROOT}/{path}"), (self.plain / path).unlink, f"unlink {path}"

    def rmdir(self) -> Step:
        path = self.path()
        return lambda: self.client.rmdir(f"{ROOT}/{path}"), (self.plain / path).rmdir, f"rmdir {path}"

    def rename(self) -> Step:
        old, new = self.path(), self.path()
        old_plain, new_plain = self.plain / old, self.plain / new

        def act() -> None:
            several = not old_plain.is_dir() and old_plain.lstat().st_nlink > 1
            if several and old_plain.parent != new_plain.parent:
                raise OSError("what Coda calls EXDEV")
            old_plain.rename(new_plain)

        return lambda: self.client.rename(f"{ROOT}/{old}", f"{ROOT}/{new}"), act, f"rename {old} {new}"

    def symlink(self) -> Step:
        path = self.path()
        return (
            lambda: self.client.symlink(f"{ROOT}/{path}", b"nowhere/to/go"),
            lambda: (self.plain / path).symlink_to("nowhere/to/go"),
            f"symlink {path}",
        )

    def chmod(self) -> Step:
        path, mode = self.path(), self.rng.choice([0o600, 0o640, 0o755])
        plain = self.plain / path

        def act() -> None:
            if plain.is_symlink():
                raise OSError
            plain.chmod(mode)

        return lambda: self.client.change(f"{ROOT}/{path}", mode=mode), act, f"chmod {path}"

    def truncate(self) -> Step:
        path, size = self.path(), self.rng.choice([0, 3, 200])
        plain = self.plain / path

        def act() -> None:
            if plain.is_symlink():
                raise OSError
            os.truncate(plain, size)

        return lambda: self.client.change(f"{ROOT}/{path}", size=size), act, f"truncate {path}"

    def link(self) -> Step:
        old, name = self.path(), self.rng.choice(NAMES)
        old_plain = self.plain / old
        new = str(Path(old).parent / name)

        def act() -> None:
            if old_plain.is_symlink():
                raise OSError
            (self.plain / new).hardlink_to(old_plain)

        return lambda: self.client.link(f"{ROOT}/{old}", f"{ROOT}/{new}"), act, f"link {old} {new}"

    def wanted(self, directory: Path | None = None) -> dict[str, object]:
        """Return the plain tree in the form of `tree`."""
        found: dict[str, object] = {}
        for path in (directory or self.plain).iterdir():
            info = path.lstat()
            if stat.S_ISDIR(info.st_mode):
                found[path.name] = self.wanted(path)
            elif stat.S_ISLNK(info.st_mode):
                found[path.name] = os.fsencode(path.readlink())
            else:
                found[path.name] = (path.read_bytes(), info.st_nlink, info.st_mode & 0o777)
        return found


@pytest.mark.parametrize(
    ("network", "number"), [("flapping", n) for n in range(6)] + [("connected", 6), ("disconnected", 7)]
)
async def test_one_client_is_like_a_plain_directory(
    tmp_path: Path, autojump_clock: trio.abc.Clock, network: str, number: int
) -> None:
    """With crashes in between; the same on a real mount, errnos too: tests/t6_fuse/test_oracle.py."""
    seed = first_seed() + number
    rng = random.Random(seed)
    async with world(tmp_path) as w:
        a, b = await w.client(own_servers=seed % 2 == 0, batch_records=rng.choice([3, 100])), await w.client()
        pair = Pair(a, tmp_path / "plain", rng)
        await a.ls(ROOT)
        w.net.loss = 0.05 * (seed % 3 == 0)
        if network == "disconnected":
            a.offline()
        for _ in range(
            1000
        ):  # most operations are refused in a tree of three names: as many are done as there is room for
            if pair.done == 50:
                break
            await pair.step()
            chance = rng.random()
            if chance < 0.08 and network == "flapping":
                (a.offline if chance < 0.03 else a.online)()
            elif chance < 0.11:
                await a.restart()
            elif chance < 0.15:
                await trio.sleep(rng.random() * 3)
            elif chance < 0.17:
                assert await tree(a) == pair.wanted()
        assert await tree(a) == pair.wanted()
        assert pair.done == 50
        w.net.loss = 0.0
        a.online()
        await a.drained(3600)
        assert await tree(b) == pair.wanted()
        assert await tree(a) == pair.wanted()
        shutil.rmtree(pair.plain)
