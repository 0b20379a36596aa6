"""A place on a node of the rig, used through its shell: what any program there would see."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from bench.rig import Rig, succeeds

REALM = "rig.test"
PASSWORDS = {"alice": "alicepw1", "bob": "bobpw123", "admin": "adminpw1"}  # the rig's own, for tests only


@dataclass(frozen=True)
class Place:
    """The tree below `top` on `node`, as `user` (None: root, who is nobody to the servers)."""

    rig: Rig
    node: str
    top: str
    user: str | None = None

    def below(self, path: str) -> Self:
        return replace(self, top=f"{self.top}/{path}")

    def run(self, *argv: str, stdin: str = "", within: float = 60.0) -> str:
        """Run a program in `top`."""
        inside = ("sh", "-c", 'cd "$0" && exec "$@"', self.top, *argv)
        return self.rig.exec(self.node, *inside, user=self.user, stdin=stdin, within=within)

    def exists(self) -> bool:
        """Tell whether `top` is there, as far as this client knows."""
        return succeeds(self.rig, self.node, "test", "-e", self.top)

    def names(self, path: str = ".") -> list[str]:
        return sorted(self.run("ls", "-A", path).splitlines())

    def read(self, path: str) -> bytes:
        return base64.b64decode(self.run("base64", path))

    def write(self, path: str, data: bytes) -> None:
        self.run("sh", "-c", 'base64 -d > "$0"', path, stdin=base64.b64encode(data).decode())

    def integrate(self) -> None:
        """The reference client's: everything written is at the servers when this returns."""
        self.rig.reintegrate(self.node, self.top)


def seconds_until(condition: Callable[[], bool], within: float) -> float:
    """How long it takes until `condition()`; more than `within` fails the test."""
    start = time.monotonic()
    while not condition():
        spent = time.monotonic() - start
        assert spent < within, f"not within {within} s"
        time.sleep(0.02)
    return time.monotonic() - start
