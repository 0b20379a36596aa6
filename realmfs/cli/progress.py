"""How far something is that takes longer than a second: a bar on the terminal, drawn by a thread.

Whoever works says how far he is (`tell`), or has somebody look (`look`, in the thread, on a connection of its
own) while he waits for one long answer. Nothing is drawn where standard error is no terminal, and Rich is
imported only when the second is over.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError

AFTER = 1.0
_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Stand:
    """How far it is; `total` None: nobody knows. In bytes, or else things are counted."""

    done: float = 0
    total: float | None = None
    text: str = ""
    bytes: bool = False


class Bar:
    """A bar for the time of a `with` block; `text` says what is being done."""

    def __init__(self, text: str, look: Callable[[], Stand] | None = None) -> None:
        """`look` is asked now and then, in the bar's own thread; without it `tell` says how far it is."""
        self._stand = Stand(text=text)
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin to count the first second."""
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def tell(self, done: float, total: float | None, text: str | None = None, *, is_bytes: bool) -> None:
        """Say how far it is."""
        self._stand = Stand(done, total, self._stand.text if text is None else text, is_bytes)

    def _run(self) -> None:
        if self._over.wait(AFTER):
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(None))
        amount = TextColumn("{task.fields[amount]}", markup=False)
        console = Console(stderr=True)
        with Progress(*columns, amount, TimeElapsedColumn(), console=console, transient=True) as progress:
            task = progress.add_task(self._stand.text, total=None, amount="")
            while not self._over.wait(_EVERY):
                stand = self._now()
                progress.update(
                    task,
                    description=stand.text,
                    completed=stand.done,
                    total=stand.total or None,
                    amount=amount_of(stand),
                )

    def _now(self) -> Stand:
        if self._look is not None:
            try:
                self._stand = self._look()
            except (ControlError, NoDaemonError):
                self._look = None  # the command itself will say what is wrong
        return self._stand


def amount_of(stand: Stand) -> str:
    """Say how much is done."""
    from realmfs.control.words import size

    if not stand.done and stand.total is None:
        return ""
    say: Callable[[float], str] = size if stand.bytes else lambda number: f"{number:.0f}"
    return say(stand.done) if stand.total is None else f"{say(stand.done)} of {say(stand.total)}"


def sending(client: Client, text: str) -> Bar:
    """Return a bar for changes on their way: how many of those that wait now have gone."""
    before: list[int] = []
    other: list[Client] = []

    def look() -> Stand:
        pending = _ask(client, other)["pending"]
        before.append(pending)
        total = max(before)
        return Stand(total - pending, total, text)

    return Bar(text, look)


def fetching(client: Client, text: str) -> Bar:
    """Return a bar for contents on their way here: how much more is in the cache than before."""
    before: list[int] = []
    other: list[Client] = []

    def look() -> Stand:
        before.append(_ask(client, other)["cache_used"])
        return Stand(max(0, before[-1] - before[0]), None, text, bytes=True)

    return Bar(text, look)


def _ask(client: Client, other: list[Client]) -> dict[str, Any]:
    """Ask for the daemon's status beside a client who waits."""
    if not other:
        other.append(Client(client.path))
    status: dict[str, Any] = other[0].call("daemon.status")
    return status
