"""How tests drive the interface: Textual's pilot in an asyncio loop of its own, beside a real daemon."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.app import App
from textual.pilot import Pilot

from realmfs.tui.app import RealmfsApp

WITHIN = 20.0

Script = Callable[[RealmfsApp, Pilot[None]], Awaitable[None]]


def drive(
    socket: Path, script: Script, *, size: tuple[int, int] = (80, 24), config: Path | None = None
) -> None:
    """Run the interface without a terminal, and the script on it."""

    async def run() -> None:
        app = RealmfsApp(socket, config)
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(app, pilot)

    asyncio.run(run())


async def until(
    pilot: Pilot[None], condition: Callable[[], bool], *, within: float = WITHIN, wanted: str = ""
) -> None:
    """Let the interface work until the condition holds.

    Fails after `within` seconds, showing the screen, and after it what was wanted.
    """
    try:
        async with asyncio.timeout(within):
            while not condition():
                await pilot.pause(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain; the screen:\n{screen_text(pilot.app)}\n{wanted}")


def screen_text(app: App[None]) -> str:
    """Return what is painted, a line a row, without colours."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)
