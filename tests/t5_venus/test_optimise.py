"""The log in use: each cancellation rule of reintegration.md §4, a day's work in figures, and a judge."""

import itertools
import stat
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realmfs.cache.log import LogEntry
from realmfs.venus import files, operation
from realmfs.venus.optimise import Plan
from realmfs.vice.calls import Reintegrate
from realmfs.vice.errors import CodaError, Code
from realmfs.vice.log import unpack_log
from tests.t5_venus.conftest import _at_once
from tests.t5_venus.test_logins import Door
from tests.t5_venus.world import ME, REALM, Client, world

ROOT = f"/{REALM}"
F, G, D = f"{ROOT}/f", f"{ROOT}/g", f"{ROOT}/d"

Steps = Callable[[Client], Awaitable[object]]


def entries(client: Client) -> list[LogEntry]:
    return [entry for key in client.cache.log.volumes() for entry in client.cache.log.entries(key)]


def kinds(client: Client) -> list[str]:
    """Return what waits, as the names of the records."""
    return [type(unpack_log(entry.record)[0]).__name__ for entry in entries(client)]


async def do(client: Client, text: str) -> None:
    """Do what the words say: to the file f, the new file n, the directory d, the new directory m."""
    for word in text.split():
        await WORDS[word](client)


WORDS: dict[str, Steps] = {
    "store": lambda c: c.write(F, b"anew"),
    "utimes": lambda c: c.change(F, mtime_ns=10**18),
    "chmod": lambda c: c.change(F, mode=0o600),
    "chown": lambda c: c.change(F, uid=4711),
    "remove": lambda c: c.unlink(F),
    "link": lambda c: c.link(F, f"{ROOT}/f2"),
    "unlink-other": lambda c: c.unlink(f"{ROOT}/f2"),
    "rename-over": lambda c: c.rename(G, F),
    "create": lambda c: c.write(f"{ROOT}/n", b""),
    "store-new": lambda c: c.write(f"{ROOT}/n", b"contents"),
    "chmod-new": lambda c: c.change(f"{ROOT}/n", mode=0o600),
    "link-new": lambda c: c.link(f"{ROOT}/n", f"{ROOT}/n2"),
    "unlink-n2": lambda c: c.unlink(f"{ROOT}/n2"),
    "move-new": lambda c: c.rename(f"{ROOT}/n", f"{ROOT}/o"),
    "remove-moved": lambda c: c.unlink(f"{ROOT}/o"),
    "remove-new": lambda c: c.unlink(f"{ROOT}/n"),
    "symlink": lambda c: c.symlink(f"{ROOT}/s", b"text"),
    "remove-symlink": lambda c: c.unlink(f"{ROOT}/s"),
    "utimes-d": lambda c: c.change(D, mtime_ns=10**18),
    "chmod-d": lambda c: c.change(D, mode=0o700),
    "rmdir": lambda c: c.rmdir(D),
    "mkdir": lambda c: c.mkdir(f"{ROOT}/m"),
    "move-m": lambda c: c.rename(f"{ROOT}/m", f"{ROOT}/m2"),
    "rmdir-m": lambda c: c.rmdir(f"{ROOT}/m"),
    "rmdir-m2": lambda c: c.rmdir(f"{ROOT}/m2"),
    "fill-m": lambda c: c.write(f"{ROOT}/m/x", b""),
    "empty-m": lambda c: c.unlink(f"{ROOT}/m/x"),
    "move-f-into-m": lambda c: c.rename(F, f"{ROOT}/m/f"),
    "move-f-out": lambda c: c.rename(f"{ROOT}/m/f", F),
    "n-over-f": lambda c: c.rename(f"{ROOT}/n", F),
}

RULES = {
    "a store cancels earlier stores": ("store store", "Store"),
    "unless a chown lies between": ("store chown store", "Store Chown Store"),
    "a store cancels every earlier utimes": ("utimes store", "Store"),
    "a utimes cancels every earlier utimes": ("utimes utimes", "Utimes"),
    "but no store": ("store utimes", "Store Utimes"),
    "a chmod cancels every earlier chmod": ("chmod chmod", "Chmod"),
    "unless a store lies between": ("chmod store chmod", "Chmod Store Chmod"),
    "a store that goes opens the way for a chmod": ("chmod store chmod store", "Chmod Store"),
    "a removal cancels stores, utimes and chmods": ("chmod store utimes remove", "Remove"),
    "and chowns": ("chown remove", "Remove"),
    "of an object with another name it cancels nothing": (
        "store link unlink-other",
        "Store Link Remove",
    ),
    "made and removed here: nothing is sent": ("create store-new chmod-new remove-new", ""),
    "links of it included": ("create link-new unlink-n2 remove-new", ""),
    "and renames": ("create move-new remove-moved", ""),
    "symbolic links as well": ("symlink remove-symlink", ""),
    "a removed directory needs no utimes and chmod": ("utimes-d chmod-d rmdir", "RemoveDir"),
    "a directory made and removed here: nothing is sent": ("mkdir move-m rmdir-m2", ""),
    "also if all in it was made and removed here": ("mkdir fill-m empty-m rmdir-m", ""),
    "unless something went through it": (
        "mkdir move-f-into-m move-f-out rmdir-m",
        "MakeDir Rename Rename RemoveDir",
    ),
    "a rename onto a name removes first, by the same rules": ("chmod store rename-over", "Remove Rename"),
    "links, creations and renames cancel nothing": (
        "store link create mkdir move-new",
        "Store Link Create MakeDir Rename",
    ),
    "a rename of a new file onto an old one keeps both": (
        "create store-new n-over-f",
        "Create Store Remove Rename",
    ),
}


@pytest.mark.parametrize("rule", RULES)
async def test_rule(tmp_path: Path, autojump_clock: trio.abc.Clock, rule: str) -> None:
    words, left = RULES[rule]
    async with world(tmp_path) as w:
        door, a = Door(w), await w.client()
        await a.ls(ROOT)
        door.log_in(a, "alice")
        await a.write(F, b"old")
        await a.write(G, b"other")
        await a.mkdir(D)
        await a.drained()
        a.offline()
        await trio.sleep(60)
        await do(a, words)
        assert kinds(a) == left.split()
        here = await a.ls(ROOT)
        a.online()
        await a.drained(600)
        assert await (await w.client()).ls(ROOT) == here


# -- while records are on their way ----------------------------------------------------------------------


def freeze(client: Client, *wanted: str) -> list[LogEntry]:
    """Choose the waiting records of these kinds for sending."""
    chosen = [entry for entry, kind in zip(entries(client), kinds(client), strict=True) if kind in wanted]
    with client.cache.transaction():
        return client.cache.log.freeze(chosen)


def thaw(client: Client, frozen: list[LogEntry]) -> None:
    """They come back: no server has applied them."""
    (volume,) = (one for one in client.venus.core.volumes if one.key == frozen[0].volume)
    client.venus.reintegrator.wake(volume)
    sender = client.venus.reintegrator._senders[volume.key]
    sender._thaw(frozen, Code.EWOULDBLOCK)


ON_THEIR_WAY = {
    "a frozen store goes when it thaws": ("store", ["Store"], "store", "Store Store", "Store"),
    "a frozen utimes": ("utimes", ["Utimes"], "store", "Utimes Store", "Store"),
    "a frozen chmod": ("chmod", ["Chmod"], "chmod", "Chmod Chmod", "Chmod"),
    "a frozen creation keeps the removal until it thaws": (
        "create store-new",
        ["Create"],
        "remove-new",
        "Create Remove",
        "",
    ),
    "the same with its store": (
        "create store-new",
        ["Create", "Store"],
        "remove-new",
        "Create Store Remove",
        "",
    ),
    "a frozen mkdir": ("mkdir", ["MakeDir"], "rmdir-m", "MakeDir RemoveDir", ""),
    "what has another name stays": (
        "create link-new",
        ["Create"],
        "remove-new",
        "Create Link Remove",
        "Create Link Remove",
    ),
    "a directory with something from elsewhere stays": (
        "mkdir move-f-into-m move-f-out",
        ["MakeDir"],
        "rmdir-m",
        "MakeDir Rename Rename RemoveDir",
        "MakeDir Rename Rename RemoveDir",
    ),
}


@pytest.mark.parametrize("rule", ON_THEIR_WAY)
async def test_rule_for_what_is_on_its_way(tmp_path: Path, autojump_clock: trio.abc.Clock, rule: str) -> None:
    before, frozen, then, meanwhile, after = ON_THEIR_WAY[rule]
    async with world(tmp_path) as w:
        a = await w.client()
        await a.write(F, b"old")
        await a.drained()
        a.offline()
        await trio.sleep(60)
        await do(a, before)
        chosen = freeze(a, *frozen)
        await do(a, then)
        assert kinds(a) == meanwhile.split()
        thaw(a, chosen)
        assert kinds(a) == after.split()
        here = await a.ls(ROOT)
        a.online()
        await a.drained(600)
        assert await (await w.client()).ls(ROOT) == here


# -- numbers ---------------------------------------------------------------------------------------------


async def test_a_days_work_shrinks_to_what_the_servers_must_see(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """mkdir; 500 creates; 500 writes; rewrite all; rm half: 1 + 250 + 250 records of 1 + 500 + 1000 + 250."""
    async with world(tmp_path) as w:
        a, b = await w.client(), await w.client()
        await a.ls(ROOT)
        a.offline()
        await a.mkdir(D)
        for number in range(500):
            await a.write(f"{D}/f{number:03}", b"")
        assert a.pending == 501
        for data in (b"first" * 200, b"again" * 200):
            for number in range(500):
                await a.write(f"{D}/f{number:03}", data)
            assert a.pending == 1001
        for number in range(250):
            await a.unlink(f"{D}/f{number:03}")
        assert Counter(kinds(a)) == {"MakeDir": 1, "Create": 250, "Store": 250}
        (key,) = a.cache.log.volumes()
        made, created, stored = 92 + 8, 92 + 12, 76  # bytes of each record (reintegration.md §1.1)
        assert a.cache.log.summary(key).bytes == made + 250 * (created + stored + 1000)
        assert a.cache.containers.used == 250 * 1000
        w.realm.counted()
        a.online()
        await a.drained(600)
        assert w.realm.counted()[Reintegrate.OPCODE] <= 8
        assert await b.ls(D) == [f"f{number:03}" for number in range(250, 500)]
        assert await b.read(f"{D}/f333") == b"again" * 200


# -- the judge -------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
PATHS = st.sampled_from([f"{ROOT}/{name}" for name in NAMES] + [f"{ROOT}/d/{name}" for name in NAMES])
ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write"] * 4
            + ["unlink", "rename", "mkdir", "rmdir", "link", "symlink", "chmod", "utimes", "chown"]
        ),
        PATHS,
        PATHS,
        st.integers(0, 99),
    ),
    min_size=3,
    max_size=25,
)


async def act(client: Client, kind: str, path: str, other: str, number: int) -> None:
    """Try one change; what is refused is refused with either log."""
    match kind:
        case "write":
            await client.write(path, b"%d" % number)
        case "rename":
            await client.rename(path, other)
        case "link":
            await client.link(path, other)
        case "symlink":
            await client.symlink(path, b"%d" % number)
        case "chmod":
            await client.change(path, mode=0o600 + number % 8)
        case "utimes":
            await client.change(path, mtime_ns=(1_500_000_000 + number) * 10**9)
        case "chown":
            await client.change(path, uid=number)
        case _:
            await getattr(client, kind)(path)


async def state(client: Client, path: str = ROOT) -> dict[str, object]:
    """Return all that servers keep of a tree but the times of directories, which each entry made moves."""
    found: dict[str, object] = {}
    for name in await client.ls(path):
        attr = await client.look(f"{path}/{name}")
        facts: tuple[object, ...] = (attr.mode, attr.links, attr.uid)
        if stat.S_ISDIR(attr.mode):
            facts += (await state(client, f"{path}/{name}"),)
        elif stat.S_ISLNK(attr.mode):
            facts += (await client.venus.readlink(ME, attr.ino), attr.mtime_ns)
        else:
            facts += (await client.read(f"{path}/{name}"), attr.mtime_ns)
        found[name] = facts
    return found


async def replay(acts: list[tuple[str, str, str, int]]) -> tuple[dict[str, object], int]:
    """Do it all disconnected, reconnect; return what another client then sees, and how long the log was."""
    with TemporaryDirectory() as directory:
        async with world(Path(directory)) as w:
            door, a = Door(w), await w.client()
            await a.ls(ROOT)
            door.log_in(a, "alice")
            await a.mkdir(D)
            await a.write(f"{ROOT}/a", b"from before")
            await a.write(f"{D}/b", b"from before")
            await a.drained()
            a.offline()
            await trio.sleep(60)
            for one in acts:
                with suppress(CodaError, FileNotFoundError):
                    await act(a, *one)
            pending, here = a.pending, await state(a)
            a.online()
            await a.drained(3600)
            there = await state(await w.client())
            assert there == here
            return there, pending


@given(ACTS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_optimised_log_and_the_full_one_leave_the_same(
    monkeypatch: pytest.MonkeyPatch, acts: list[tuple[str, str, str, int]]
) -> None:
    def run() -> tuple[dict[str, object], int]:
        clock = itertools.count(1_700_000_000)
        with monkeypatch.context() as patched:
            for module in (operation, files):
                patched.setattr(module, "time", lambda: next(clock))
            return trio.run(replay, acts, clock=trio.testing.MockClock(autojump_threshold=0))

    with monkeypatch.context() as patched:
        patched.setattr(trio.to_thread, "run_sync", _at_once)
        optimised, short = run()
        patched.setattr(operation, "plan", lambda opcode, past, last_name: Plan())
        full, long = run()
    assert optimised == full
    assert short <= long
