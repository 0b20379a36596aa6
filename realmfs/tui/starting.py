"""The banner over everything while there is no daemon, and the start of one from here."""

import asyncio
import sys
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Button, Static


class Banner(Horizontal):
    """Says that there is no daemon, and offers to start one."""

    def compose(self) -> ComposeResult:
        """Put the text beside the button."""
        yield Static(id="reason", markup=False)
        yield Button("Start it (S)", id="start", action="app.start_daemon")

    def tell(self, reason: str) -> None:
        """Show why."""
        text = f"{reason}. What is shown below is the last that was known."
        self.query_one("#reason", Static).update(text)
        self.display = True


async def start_daemon(socket: Path, config: Path | None) -> tuple[bool, str]:
    """Run `realmfs mount` as a shell would; returns whether it went well, and what it said.

    Where the machine cannot mount, the daemon serves without: everything here works all the same.
    """
    options = ["--socket", str(socket), *(() if config is None else ("--config", str(config)))]
    well, said = await _run("mount", *options)
    if well or "/dev/fuse" not in said:
        return well, said
    well, more = await _run("mount", "--no-kernel", *options)
    return well, f"{said}\n{more}" if not well else f"{more} (without a mount: {said})"


async def _run(*argv: str) -> tuple[bool, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "realmfs",
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode == 0, output.decode("utf-8", "replace").strip()
