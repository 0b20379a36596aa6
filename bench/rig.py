"""The rig: three real Coda servers, two reference clients and a bare node, driven by one command.

The rig is no part of this repository; docs/how-to/test-with-real-servers.md says what it has to offer. It is
found by two environment variables: RIG, the path of its command, and CODA_PREFIX, the Coda installation that
it runs. Both the benchmark and tests/interop use this module.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import GRACE, Program, StepError, run

REALM = "rig.test"
OUR_NODE = "pyclient"
CONTROL_PATIENCE = 60.0
"""Seconds for the rig's own commands, such as a restart of a client."""
_STATUS_PATIENCE = 10.0


class Rig:
    """The running rig. Everything raises StepError if it fails or takes too long."""

    def __init__(self, command: str) -> None:
        self._command = command

    @property
    def command(self) -> str:
        """The path of the rig's command."""
        return self._command

    @classmethod
    def from_environment(cls) -> Self:
        return cls(os.environ.get("RIG", ""))

    def missing(self) -> str | None:
        """Why there is no rig to use, or None."""
        if not self._command:
            return "RIG is not set (the path of the rig's command)"
        if not os.environ.get("CODA_PREFIX"):
            return "CODA_PREFIX is not set (where Coda is installed)"
        if not os.access(self._command, os.X_OK):
            return f"RIG={self._command} is not an executable file"
        try:
            status = run([self._command, "status"], _STATUS_PATIENCE)
        except (StepError, OSError) as error:
            return f"the rig does not answer: {error}"
        nodes = {line.split()[0]: line.split()[1:] for line in status.splitlines() if line.startswith("  ")}
        down = [
            name
            for name in ("s1", "s2", "s3", "client", "client2", OUR_NODE)
            if "up" not in nodes.get(name, ())
        ]
        if down:
            return f"the rig is not up: {', '.join(down)}"
        servers = [name for name in ("s1", "s2", "s3") if "codasrv" not in nodes[name]]
        return f"no codasrv runs on {', '.join(servers)}" if servers else None

    def control(self, *argv: str, within: float = CONTROL_PATIENCE) -> str:
        """One of the rig's own commands."""
        return run([self._command, *argv], within)

    def argv(self, node: str, argv: Sequence[str], user: str | None = None) -> list[str]:
        """The command line that runs `argv` inside a node, as root or as one of the realm's users."""
        return [self._command, "exec", *(("-u", user) if user else ()), node, *argv]

    def exec(
        self,
        node: str,
        *argv: str,
        user: str | None = None,
        within: float = CONTROL_PATIENCE,
        stdin: str = "",
    ) -> str:
        """Run a program inside a node to its end and return what it printed."""
        return run(self.argv(node, argv, user), within, stdin=stdin)

    def shell(
        self,
        node: str,
        script: str,
        *,
        user: str | None = None,
        within: float = CONTROL_PATIENCE,
        stdin: str = "",
    ) -> str:
        """Run a shell script inside a node."""
        return self.exec(node, "sh", "-c", script, user=user, within=within, stdin=stdin)

    def processor(self, node: str, program: str) -> float:
        """Return the processor seconds that the programs of that name on a node have used."""
        script = 'for p in $(pidof "$0"); do cat /proc/$p/stat; done; getconf CLK_TCK'
        *lines, tick = self.exec(node, "sh", "-c", script, program).splitlines()
        spent = [line.rpartition(")")[2].split()[11:13] for line in lines]
        return sum(int(user) + int(system) for user, system in spent) / int(tick)

    def login(self, node: str, user: str, password: str, realm: str = REALM) -> None:
        """Get the reference client on `node` a token for a user."""
        self.exec(node, "clog", "-pipe", f"{user}@{realm}", user=user, stdin=password + "\n")

    def reintegrate(self, node: str, path: str, within: float = 2 * CONTROL_PATIENCE) -> None:
        """Send what the reference client still has to send for the volume of `path`, and wait until it is
        gone. It waits 15 s and more for each server that it has not missed yet.
        """
        limit = time.monotonic() + within
        while True:
            self.exec(node, "cfs", "forcereintegrate", path, within=within)
            listing = self.exec(node, "cfs", "lv", "-local", path, within=within)
            if "There are 0 CML entries" in listing or "CML entries" not in listing:
                return
            if time.monotonic() > limit:
                raise StepError(
                    f"{node} still has changes for {path} after {within:.0f} s: {listing.strip()}"
                )
            time.sleep(0.1)


class NodeProgram:
    """A program that runs inside a node until `stop`.

    The rig enters a node by a process that forks, so that killing what we started on the host would leave
    the program itself alive inside. A shell writes down its number there before it becomes the program, and
    signals are sent from inside.
    """

    def __init__(
        self,
        rig: Rig,
        node: str,
        argv: Sequence[str],
        files: Path,
        name: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. `files` is a directory on the host, seen at the same path inside; log and number go
        there.
        """
        self._rig = rig
        self._node = node
        self._number = files / f"{name}.pid"
        self._number.unlink(missing_ok=True)
        script = f'echo $$ > {shlex.quote(os.fspath(self._number))}; exec "$@"'
        inside = [
            "env",
            *(f"{key}={value}" for key, value in (env or {}).items()),
            "sh",
            "-c",
            script,
            "sh",
            *argv,
        ]
        self.log = files / f"{name}.log"
        self._program = Program(rig.argv(node, inside), self.log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until(self, condition: Callable[[], bool], within: float, what: str) -> None:
        """Wait until `condition()`; StepError if the program ends first or `within` seconds pass."""
        self._program.wait_until(condition, within, what)

    @property
    def running(self) -> bool:
        return self._program.running

    def signal(self, name: str) -> None:
        """Send a signal, by its name without SIG, to the program itself."""
        try:
            number = int(self._number.read_text())
            self._rig.exec(self._node, "kill", f"-{name}", str(number), within=GRACE)
        except (StepError, OSError, ValueError):
            return  # it has ended, or never began

    def processor(self) -> float:
        """Return the processor seconds that it has used so far."""
        line, tick = self._rig.shell(
            self._node, f"cat /proc/{int(self._number.read_text())}/stat; getconf CLK_TCK"
        ).splitlines()
        return sum(map(int, line.rpartition(")")[2].split()[11:13])) / int(tick)

    def stop(self) -> None:
        """TERM, then KILL. Never raises."""
        for name in ("TERM", "KILL"):
            if self._program.running:
                self.signal(name)
                self._program.ended(GRACE)
        self._program.stop()

    def wait(self, within: float) -> bool:
        """Wait for its end; tell whether it has come."""
        return self._program.ended(within)


def succeeds(rig: Rig, node: str, *argv: str) -> bool:
    """Tell whether a program inside a node ends with status 0, soon."""
    try:
        subprocess.run(
            rig.argv(node, argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_STATUS_PATIENCE,
        )
    except (subprocess.SubprocessError, OSError):
        return False
    return True
