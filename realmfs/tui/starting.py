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

    def tell(self, reason: str, offer: str) -> None:
        """Show why, and what the button would do; "": it would not help."""
        self.query_one("#reason", Static).update(f"{reason}.\n{offer}".rstrip())
        self.query_one("#start").display = bool(offer)
        self.display = True


def offer_of(config: Path | None) -> str:
    """Say what starting the daemon would do: where it mounts is in the settings."""
    from realmfs.host.paths import Paths  # not before it is wanted: reading settings takes time
    from realmfs.host.settings import ConfigError, settle

    try:
        return f"S starts it and mounts on {settle(Paths.of_user(), config, {}).mount_point}"
    except ConfigError:
        return "S starts it"


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
