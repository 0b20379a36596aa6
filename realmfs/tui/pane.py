"""What all panes have in common: when they ask the daemon again, and how a failed question shows.

A pane never waits in a message handler. It marks itself stale, when events of the kinds it `watches` arrive,
when it is shown, when the line comes back, or every `period` seconds; a tick then starts one `load` at a
time, at most twice a second and only while the pane can be seen. What goes wrong with that stands in a line
at the top of the pane until it goes well. Actions that call the daemon go through `ask`, which turns what
went wrong into a toast.
"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.widgets import Static

from realmfs.control.client import NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.tui.link import Event, Link

TICK = 0.5


class Pane(Vertical):
    """One of the tabs."""

    key: ClassVar[str] = ""
    """Its name within the application, and its widget's id."""
    title: ClassVar[str] = ""
    watches: ClassVar[frozenset[str]] = frozenset()
    """Kinds of events after which what is shown may be wrong."""
    period: ClassVar[float | None] = None
    """Seconds after which it is asked again anyway."""

    def __init__(self, link: Link) -> None:
        super().__init__(id=self.key)
        self.link = link
        self._stale = True
        self._since_load = 0.0

    def on_mount(self) -> None:
        """Begin to tick. Textual calls this beside the `on_mount` of the pane's own class."""
        problem = Static(classes="problem", markup=False)
        problem.display = False
        self.mount(problem, before=0)
        self.set_interval(TICK, self._tick)

    async def load(self) -> None:
        """Ask the daemon and show what it says. Raises ControlError and NoDaemonError."""

    def take_events(self, events: Sequence[Event], lost: int) -> None:
        """Note what happened."""
        if lost or any(event.get("kind") in self.watches for event in events):
            self.mark_stale()

    def mark_stale(self) -> None:
        """Ask again soon."""
        self._stale = True

    def shown(self) -> None:
        """The pane has come to the front: ask at once."""
        self._stale = True
        self._tick()

    def ask(
        self, work: Callable[..., Awaitable[None]], *args: Any, group: str = "ask", alone: bool = False
    ) -> None:
        """Do something that calls the daemon; tell in a toast what went wrong.

        `alone`: instead of whatever this pane has under way in that group.
        """
        begin: Callable[[], Awaitable[None]] = functools.partial(self._guarded, work, *args)
        self.run_worker(begin, group=group, exclusive=alone)

    def _tick(self) -> None:
        self._since_load += TICK
        if self.period is not None and self._since_load >= self.period:
            self._stale = True
        if not self._stale or not self.link.up or not self.display:
            return
        if any(worker.group == "load" and worker.node is self for worker in self.workers):
            return
        self._stale = False
        self._since_load = 0.0
        self.ask(self._load, group="load")

    async def _load(self) -> None:
        """Ask; what is wrong stands above what is shown until it is over."""
        reason = ""
        try:
            await self.load()
        except ControlError as error:
            reason = error.text
        for problem in self.query(".problem").results(Static):
            problem.update(f"! {reason}. What is shown may be old; r asks again.")
            problem.display = bool(reason)

    async def _guarded(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            await work(*args)
        except NoDaemonError:
            self._stale = True  # the banner tells; asked again when the daemon is back
        except NoMatches:
            self.log.debug("the interface closes: the widget that was to show the answer is gone")
        except ControlError as error:
            self.notify(error.text, title=self.title, severity="error", markup=False)
