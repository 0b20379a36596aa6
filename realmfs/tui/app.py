"""The application: the status line, the tabs, the panes, and the line to the daemon."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, ScreenStackError, SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.query import NoMatches
from textual.events import Event, InputEvent
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets import ContentSwitcher, Footer, Tab, Tabs

from realmfs.control.client import NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.tui.help import Help, keys_of
from realmfs.tui.link import Event as DaemonEvent
from realmfs.tui.link import Link
from realmfs.tui.pane import Pane
from realmfs.tui.panes.browse import BrowsePane
from realmfs.tui.panes.conflicts import ConflictsPane
from realmfs.tui.panes.events import EventsPane
from realmfs.tui.panes.hoard import HoardPane
from realmfs.tui.panes.reintegration import ReintegrationPane
from realmfs.tui.panes.servers import ServersPane
from realmfs.tui.remembered import remember_theme, remembered_theme
from realmfs.tui.starting import Banner, offer_of, start_daemon
from realmfs.tui.statusline import StatusLine
from realmfs.tui.tidying import Tidying

STATUS_EVERY = 1.0
SETTINGS_AFTER = 0.2
"""Seconds after which the settings are read where there is no daemon."""

PANES: tuple[type[Pane], ...] = (
    BrowsePane,
    HoardPane,
    ReintegrationPane,
    ConflictsPane,
    ServersPane,
    EventsPane,
)
"""The panes in the order of the tabs."""


class RealmfsApp(App[None]):
    """The terminal user interface of realmfs."""

    TITLE = "realmfs"
    CSS_PATH = "realmfs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"show('{pane.key}')", pane.title, show=False, tooltip=f"Go to {pane.title}")
            for number, pane in enumerate(PANES, 1)
        ),
        Binding("right_square_bracket", "turn(1)", "Next pane", show=False, tooltip="Next pane"),
        Binding("left_square_bracket", "turn(-1)", "Previous pane", show=False, tooltip="Previous pane"),
        Binding("r", "refresh_pane", "Refresh", show=False),
        Binding("S", "start_daemon", "Start the daemon", show=False),
        Binding("question_mark", "keys", "Help"),
        Binding("q", "quit", "Quit", tooltip="Leave; the daemon and the mount stay"),
    ]

    def __init__(
        self,
        socket: Path,
        config: Path | None = None,
        state: Path | None = None,
        tidying: Tidying | None = None,
    ) -> None:
        """Talk to the daemon at `socket`; `config` is handed on to one that is started from here.

        The theme is remembered in the directory `state`; None: not at all. `tidying` looks for garbage.
        """
        super().__init__()
        self._state = state
        theme = remembered_theme(state)
        if theme in self.available_themes:
            self.theme = theme
        self.link = Link(socket, self)
        self._config = config
        self._starting = False
        self._tidying = tidying

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield StatusLine("realmfs", id="status")
        yield Tabs(*(Tab(f"{number} {pane.title}", id=pane.key) for number, pane in enumerate(PANES, 1)))
        yield Banner(id="banner")
        with ContentSwitcher(initial=PANES[0].key):
            for pane in PANES:
                yield pane(self.link)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to talk."""
        self.query_one(Tabs).can_focus = False
        self.theme_changed_signal.subscribe(self, self._theme_changed)
        self.run_worker(self.link.run(), group="link")
        self.set_interval(STATUS_EVERY, self._ask_status)
        if self._tidying is not None:
            self.set_interval(STATUS_EVERY, self._tidying.look)

    async def on_event(self, event: Event) -> None:
        """Note that somebody is there."""
        if self._tidying is not None and isinstance(event, InputEvent):
            self._tidying.touched()
        await super().on_event(event)

    # the line

    def link_up(self) -> None:
        """The daemon is there, perhaps again: everything shown may be old."""
        self.query_one(Banner).display = False
        self._ask_status()
        for pane in self.query(Pane):
            pane.mark_stale()
        self.pane.shown()

    def link_down(self, reason: str) -> None:
        """The daemon is not there."""
        self.query_one(StatusLine).tell_down()
        reason = reason[:1].upper() + reason[1:]
        self.query_one(Banner).tell(reason, "" if self.link.foreign else "S starts it")
        if not self.link.foreign:
            self.set_timer(SETTINGS_AFTER, partial(self._offer, reason))

    def _offer(self, reason: str) -> None:
        """Say where a daemon would mount; reading the settings must not delay the first paint."""
        with suppress(NoMatches, ScreenStackError):  # the interface may be ending when the timer comes
            banner = self.query_one(Banner)
            if banner.display and not self.link.foreign:
                banner.tell(reason, offer_of(self._config))

    def link_events(self, events: Sequence[DaemonEvent], lost: int) -> None:
        """Pass on what happened."""
        for pane in self.query(Pane):
            pane.take_events(events, lost)

    def _ask_status(self) -> None:
        if self.link.up:
            self.run_worker(self._status(), group="status", exclusive=True)

    async def _status(self) -> None:
        try:
            status = await self.link.call("daemon.status")
            tokens = await self.link.entries("tokens.list")
        except (NoDaemonError, ControlError):
            return  # the line says so itself
        for line in self.query(StatusLine):  # none if the screen has gone meanwhile
            line.tell(status, tokens)
        for tab in self.query("#conflicts").results(Tab):
            number = [pane.key for pane in PANES].index("conflicts") + 1
            mark = Text("!", "bold red") if status.get("conflicts", 0) else ""
            tab.label = Content.from_rich_text(Text.assemble(f"{number} {ConflictsPane.title}", mark))

    # panes

    @property
    def pane(self) -> Pane:
        """The pane in front."""
        current = self.query_one(ContentSwitcher).current
        return self.query_one(f"#{current}", Pane) if current else next(iter(self.query(Pane)))

    def on_tabs_tab_activated(self, message: Tabs.TabActivated) -> None:
        """Bring a pane to the front."""
        self.query_one(ContentSwitcher).current = message.tab.id
        self.pane.shown()

    def action_show(self, name: str) -> None:
        """Go to a pane."""
        self.query_one(Tabs).active = name

    def action_turn(self, step: int) -> None:
        """Go to a neighbour."""
        names = [pane.key for pane in PANES]
        self.action_show(names[(names.index(self.pane.key) + step) % len(names)])

    def action_refresh_pane(self) -> None:
        """Ask the daemon again."""
        self.pane.shown()

    def action_keys(self) -> None:
        """List all keys of this pane."""
        self.push_screen(Help(type(self.pane), type(self)))

    def get_system_commands(self, screen: Screen[Any]) -> Iterator[SystemCommand]:
        """Offer every action of every pane in the command palette; those of the pane in front first."""
        yield from super().get_system_commands(screen)
        panes = sorted(self.query(Pane), key=lambda pane: pane is not self.pane)
        for pane in panes:
            yield SystemCommand(f"Go to {pane.title}", "Pane", partial(self.action_show, pane.key))
        for pane in panes:
            for key in keys_of(type(pane)):
                run = partial(self._run_in, pane, key.action)
                yield SystemCommand(f"{pane.title}: {key.name}", f"{key.text} ({key.keys})", run)

    async def _run_in(self, pane: Pane, action: str) -> None:
        self.action_show(pane.key)
        await self.run_action(action, pane)

    def _theme_changed(self, theme: Theme) -> None:
        why_not = remember_theme(self._state, theme.name)
        if why_not is not None:
            self.notify(why_not, title="The theme is not remembered", severity="warning", markup=False)

    # the daemon itself

    def action_start_daemon(self) -> None:
        """Start the daemon, if there is none."""
        if not self.link.up and not self.link.foreign and not self._starting:
            self._starting = True
            self.notify("Starting the daemon…")
            self.run_worker(self._start(), group="start")

    async def _start(self) -> None:
        try:
            well, said = await start_daemon(self.link.path, self._config)
        finally:
            self._starting = False
        severity: SeverityLevel = "information" if well else "error"
        self.notify(said or "no word", title="The daemon", severity=severity, markup=False)
