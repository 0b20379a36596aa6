"""No method of the control socket holds the loop: an instrument counts the processor time of each step."""

import gc
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from bench.bigcache import REALMS, fill
from realmfs.cache.hoard import Expand
from realmfs.cache.limits import Limits
from realmfs.control.facts import DaemonFacts
from realmfs.control.logins import Logins
from realmfs.control.protocol import VERSION
from realmfs.control.server import ControlServer
from realmfs.control.table import common_methods, topics
from realmfs.venus.settings import VenusSettings
from realmfs.vice.errors import Code
from realmfs.vice.log import Utimes, pack_log
from realmfs.vice.types import StoreId
from tests.t5_venus.world import REALM, Client, World, world
from tests.t7_control.conftest import Control, Line

T = TypeVar("T")

LIMIT = 0.010
ENTRIES = 10_000
ROUNDS = 3
"""The least of so many looks counts: the machine has other things to do, a defect holds each time."""

PAGES: dict[str, dict[str, Any]] = {
    "changes.list": {},
    "conflicts.list": {},
    "cache.list": {},
    "hoard.list": {},
    "volumes.list": {},
}
READERS: dict[str, dict[str, Any]] = {
    "hello": {"protocol": VERSION},
    "daemon.status": {},
    "daemon.settings": {},
    "realms.list": {},
    "servers.list": {},
    "tokens.list": {},
    "cache.list": {"volume": f"/@{REALM}"},
    "cache.usage": {},
    "conflicts.show": {},
    "hoard.status": {},
    "hoard.verify": {},
    "hoard.plan": {},
    "hoard.profiles": {},
    "path.stat": {"path": REALM},
    "path.list": {"path": "", "states": True},
    "writeback": {},
}
"""What looks at what is here, with parameters. All that asks servers are tasks below."""


class Holding(trio.abc.Instrument):
    """Notes the longest step of a task whose name holds `of`, in seconds of this thread's processor time."""

    def __init__(self, of: str) -> None:
        self.longest = 0.0
        self.name = ""
        self.steps = 0
        self._of = of
        self._begun: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._begun is None or self._of not in task.name:
            return  # the step that added the instrument, or not of those watched: the test is a client itself
        self.steps += 1
        took = time.thread_time() - self._begun
        if took > self.longest:
            self.longest, self.name = took, task.name


async def full_of_rows(w: World) -> Client:
    """A client with ENTRIES objects, as many changes, every fifth of them refused, and as many wishes."""
    directory = w.directory / "full"
    directory.mkdir()
    fill(directory / "cache", directory / "state", ENTRIES // 100 + 1)
    limits = Limits(bytes=64 << 20, objects=2 * ENTRIES, log_records=2 * ENTRIES, reserve=0)
    client = Client(w, "10.0.1.99", directory, limits, VenusSettings(own_servers=True))
    w.clients.append(client)
    client.offline()
    await client.start()
    cache = client.cache
    (key,) = {row.key for row in cache.volumes.all() if cache.realms.get(row.realm).name == REALM}
    with cache.transaction():
        for count, (number, _) in enumerate(cache.objects.hoard_after(100, ENTRIES)):
            row = cache.objects.load(number)
            assert row is not None
            change = Utimes(mtime=1, store_id=StoreId(1, count), fid=row.fid, date=1_700_000_000)
            record = pack_log([change])
            cache.log.append(key, record, uid=os.getuid(), identity="", time=1, objects=[number])
            cache.hoard.add(key, b"d%03d/f%02d" % divmod(count, 99), os.getuid(), 10, Expand.NONE, 1)
        entries = cache.log.entries(key)[::5]
        cache.log.thaw(entries, reason=Code.EACCES, blocked=True)
    return client


async def test_the_instrument_sees_who_holds_the_loop() -> None:
    async def hold() -> None:
        end = time.thread_time() + 2 * LIMIT
        while time.thread_time() < end:
            pass

    holding = Holding("hold")
    trio.lowlevel.add_instrument(holding)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
    trio.lowlevel.remove_instrument(holding)
    assert holding.longest >= LIMIT
    assert "hold" in holding.name


@pytest.mark.parametrize("limit", [50, 1000])
async def test_a_large_directory_is_listed_in_pages_without_holding_the_loop(
    control: Control, limit: int
) -> None:
    line = await control.connect()
    await line.call("path.mkdir", path="d")
    for number in range(ENTRIES):
        await line.call("path.mkdir", path=f"d/{number}")
    gc.collect()
    gc.freeze()  # the collector shall not look through what the test has made
    holding = Holding("realmfs.control.server")
    names: list[str] = []
    position: int | None = 0
    trio.lowlevel.add_instrument(holding)
    while position is not None:
        answer = await line.call("path.list", path="d", position=position, limit=limit)
        names += [entry["name"] for entry in answer["result"]["entries"]]
        position = answer["result"]["position"]
    trio.lowlevel.remove_instrument(holding)
    gc.unfreeze()
    assert len(set(names)) == len(names) == ENTRIES
    assert holding.steps >= ENTRIES // 256
    assert holding.longest < LIMIT, f"{holding.name} held the loop for {holding.longest * 1000:.1f} ms"


@pytest.mark.timeout(240)
async def test_no_method_holds_the_loop_over_ten_thousand_rows(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        client = await full_of_rows(w)
        venus, cache, realms = client.venus, client.cache, client.realms
        facts = DaemonFacts(cache, realms, {}, lambda force: None)
        server = ControlServer(
            tmp_path / "s",
            venus,
            facts,
            Logins(realms, cache, venus.logins.forget),
            venus.events,
            methods=common_methods(venus, realms, cache),
            topics=topics(venus, tmp_path),
        )
        await w.nursery.start(server.run)
        line = Line(await trio.open_unix_socket(os.fspath(tmp_path / "s")))
        await ask(line, "hello", protocol=VERSION)
        counts = {}
        for method, params in PAGES.items():
            counts[method] = await least_held(partial(all_pages, line, method, params))
        assert counts == {
            "changes.list": ENTRIES,
            "conflicts.list": ENTRIES // 5,
            "cache.list": cache.objects.count,
            "hoard.list": ENTRIES,
            "volumes.list": 1 + len(REALMS),
        }
        refused = (await ask(line, "conflicts.list", limit=1))["entries"][0]
        for method, params in READERS.items():
            given = {"id": refused["id"]} if method == "conflicts.show" else params
            await least_held(partial(ask, line, method, **given))
        line.stream.socket.close()


async def ask(line: Line, method: str, **params: Any) -> Any:
    answer = await line.call(method, **params)
    assert "error" not in answer, (method, answer)
    return answer["result"]


async def all_pages(line: Line, method: str, params: dict[str, Any]) -> int:
    page = await ask(line, method, **params)
    count = len(page["entries"])
    while page["cursor"] is not None:
        page = await ask(line, method, **(params | {"cursor": page["cursor"]}))
        count += len(page["entries"])
    return count


async def least_held(run: Callable[[], Awaitable[T]]) -> T:
    """Fail if the server's tasks hold the loop each time; returns what came last."""
    held = []
    for _ in range(ROUNDS):
        gc.collect()
        gc.freeze()
        holding = Holding("realmfs.control.server")
        trio.lowlevel.add_instrument(holding)
        result = await run()
        trio.lowlevel.remove_instrument(holding)
        gc.unfreeze()
        held.append(holding.longest)
        if holding.longest < LIMIT:
            return result
    raise AssertionError(f"{run} held the loop for {[round(1000 * one, 1) for one in held]} ms")
