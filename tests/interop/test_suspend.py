"""The machine of our client sleeps: nobody waits for it meanwhile, and it believes nothing old afterwards.

Sleep is made of what a program sees of it: logind says that it begins, and waits for the lock; then nothing
of the daemon runs any more and its link is down; later the link is up, the daemon runs, logind says so.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from bench.ournode import NodeMount
from bench.rig import OUR_NODE, Rig
from tests.interop.nodes import REALM, Place, seconds_until
from tests.logind import bus

SERVER = "10.79.0.11"
PROMISES = 1000
ASLEEP = float(os.environ.get("SUSPEND_TEST_SECONDS", "40"))
"""Longer than the interval of probes (30 s)."""
FRESH_WITHIN = 2.0

T = TypeVar("T")
Sleep = Callable[[bool], Awaitable[None]]


async def off(call: Callable[[], T]) -> T:
    """Run what blocks beside the bus."""
    return await trio.to_thread.run_sync(call)


def prepared(rig: Rig, mount: NodeMount, alice: Place) -> tuple[Place, Place]:
    """A directory of files that our client has promises for, here and at the reference client."""
    top = Place(rig, OUR_NODE, f"{mount.point}/{REALM}")
    name = f"public/asleep{time.time_ns():x}"
    top.run("mkdir", name)
    here, there = top.below(name), alice.below(name)
    here.run("sh", "-c", f"for i in $(seq {PROMISES}); do echo $i > f$i; done")
    seconds_until(lambda: mount.command("changes", "--json").strip() == "[]", 200.0)
    here.run("sh", "-c", "ls -l > /dev/null; cat f* > /dev/null")
    seconds_until(there.exists, 30.0)
    there.run("cat", "f17")
    there.write("before", b"servers that were restarted lately are waited for here, and not later")
    there.integrate()
    return here, there


def written(there: Place, text: bytes) -> float:
    start = time.monotonic()
    there.write("f17", text)
    there.integrate()
    return time.monotonic() - start


@pytest.fixture
async def machine(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[NodeMount, Sleep]]:
    async with bus(tmp_path) as (address, logind):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        point = tmp_path / "coda"
        point.mkdir()
        mount = await off(partial(NodeMount, rig, point, tmp_path / "run"))
        try:
            lock = await logind.lock_taken(1)

            async def sleep(begins: bool) -> None:
                await logind.tell(about_to_sleep=begins)
                if begins:
                    assert await lock.receive_some(1) == b"", "the lock is given back"

            yield mount, sleep
        finally:
            await off(mount.stop)


@pytest.mark.timeout(300)
async def test_nobody_waits_for_who_sleeps(rig: Rig, alice: Place, machine: tuple[NodeMount, Sleep]) -> None:
    mount, sleep = machine
    here, there = await off(partial(prepared, rig, mount, alice))
    inner = (mount.files / "mount.pid").read_text().strip()
    start = time.monotonic()
    await sleep(True)
    print(f"leave taken, {PROMISES} promises: {time.monotonic() - start:.2f} s")
    route = await off(partial(rig.exec, OUR_NODE, "ip", "-o", "route", "get", SERVER))
    link = route.split(" dev ")[1].split()[0]
    await off(partial(rig.exec, OUR_NODE, "kill", "-STOP", inner))
    await off(partial(rig.exec, OUR_NODE, "ip", "link", "set", link, "down"))
    spent = await off(partial(written, there, b"written while it slept"))
    print(f"asleep: the reference client's write was at the servers after {spent:.2f} s")
    await trio.sleep(ASLEEP)
    await off(partial(rig.exec, OUR_NODE, "ip", "link", "set", link, "up"))
    await off(partial(rig.exec, OUR_NODE, "kill", "-CONT", inner))
    await sleep(False)
    fresh = await off(partial(seconds_until, lambda: here.read("f17") == b"written while it slept", 30.0))
    print(f"awake after {ASLEEP:.0f} s: the new contents are seen after {fresh:.2f} s")
    again = await off(partial(written, there, b"and when it was awake"))
    seen = await off(partial(seconds_until, lambda: here.read("f17") == b"and when it was awake", 30.0))
    print(f"the next write took {again:.2f} s and was seen after {seen:.2f} s")
    assert spent < 3.0
    assert fresh < FRESH_WITHIN
