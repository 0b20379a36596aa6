"""The tutorial, every command of it as printed; only its directory and address are the test's own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.loopback import own_address
from tests.t8_cli_tui.conftest import REPOSITORY, Home

PAGE = REPOSITORY / "docs" / "tutorial" / "first-mount.md"


@dataclass
class Step:
    """A command, and what the page shows of its output."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps() -> Iterator[Step]:
    """Read the page from where everything is installed; a line of three dots stands for any others."""
    step: Step | None = None
    for line in PAGE.read_text().partition("## Serve a realm")[2].splitlines():
        if not line.startswith("    "):
            if step is not None:
                yield step
            step = None
        elif step is None or line[4:6] == "$ " or not step.command.startswith("$ "):
            if step is not None:
                yield step
            step = Step(line[4:])
        else:
            step.shown.append(line[4:])
    if step is not None:
        yield step


class Terminals:
    """Two of them: the server's, and that of all else."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._log = home.top / "server.log"
        self._server: subprocess.Popen[bytes] | None = None
        host = own_address()
        self._as_here = {
            "~/try": str(home.top),
            "127.0.0.1:": f"{host}:",
            "realmfs ": f"{sys.executable} -m realmfs ",
        }

    def run(self, step: Step) -> None:
        command = step.command.removeprefix("$ ")
        for printed, here in self._as_here.items():
            command = command.replace(printed, here)
        if "-m realmfs serve" in command:
            self._serve(command)
            return
        done = subprocess.run(
            command,
            check=False,
            shell=True,
            env=self._home.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said = [line.split() for line in (done.stdout + done.stderr).splitlines()]
        shown = [line.split() for line in step.shown if line != "..."]
        assert said[: len(shown)] == shown

    def _serve(self, command: str) -> None:
        with self._log.open("wb") as output:
            self._server = subprocess.Popen(
                f"exec {command}", shell=True, stdout=output, stderr=output, env=self._home.environment
            )
        limit = time.monotonic() + 30
        while "serving" not in self._log.read_text():
            assert self._server.poll() is None, self._log.read_text()
            assert time.monotonic() < limit
            time.sleep(0.02)

    def interrupt(self) -> None:
        """Press Ctrl-C in the first terminal."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(10)
            self._server = None


@pytest.mark.kernel
def test_the_tutorial_works_as_printed(home: Home) -> None:
    terminals = Terminals(home)
    *todo, unmount, clean = steps()
    (serve,) = (step for step in todo if step.command.startswith("realmfs serve"))
    try:
        for step in todo:
            if "while you were away" in step.command:
                terminals.interrupt()
            if step.command == "$ realmfs changes" and "..." not in step.shown:
                home.run("changes", "send")
            terminals.run(step)
        terminals.run(serve)
        home.run("changes", "send")
        terminals.run(unmount)
        assert clean.command == "rm -r ~/try"
    finally:
        terminals.interrupt()
