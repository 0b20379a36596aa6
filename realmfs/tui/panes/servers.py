"""Servers, groups and tokens: who is up, how far away, how protected; who holds what; who we are there."""

import getpass
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from realmfs.control.words import age, size
from realmfs.tui.dialogs import Confirm, Form
from realmfs.tui.groups import HEADS, group_rows
from realmfs.tui.link import Link
from realmfs.tui.pane import Pane
from realmfs.tui.table import Cell, Rows

HISTORY = 12
_BARS = "▁▂▃▄▅▆▇█"
_STATES = {"up": ("● up", "green"), "down": ("○ down", "red")}
_TOKENS = {"valid": "green", "expired": "red", "missing": "yellow"}


class ServersPane(Pane):
    """The servers of all realms, over the groups in which they hold volumes, over the tokens."""

    key = "servers"
    title = "Servers & tokens"
    watches = frozenset({"connection", "token"})
    period = 3.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "check", "Check now"),
        Binding("l", "login", "Log in"),
        Binding("o", "logout", "Log out"),
    ]

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._round_trips: dict[str, deque[float]] = {}
        self._bandwidths: dict[str, deque[float]] = {}

    def compose(self) -> ComposeResult:
        """Put one table over the other."""
        yield Static("Servers", classes="heading")
        yield Rows(
            (
                "realm",
                "server",
                "state",
                "round trip",
                "bandwidth",
                "callbacks",
                "heard",
                "protection / reason",
            ),
            id="servers-table",
            shrink=("protection / reason", "server", "realm"),
            drop=("callbacks", "bandwidth", "heard"),
            empty="No server met yet. Go to a realm first: 1, then g.",
        )
        yield Static("Groups", classes="heading")
        yield Rows(
            HEADS,
            id="groups-table",
            shrink=("volumes", "group", "realm"),
            empty="No volume is known yet.",
        )
        yield Static("Tokens", classes="heading")
        yield Rows(
            ("realm", "user", "state", "ends in", "changes that wait"),
            id="tokens-table",
            empty="Not logged in anywhere: l logs in.",
        )

    def shown(self) -> None:
        """Take the keys."""
        super().shown()
        if not self.query_one("#tokens-table").has_focus:
            self.query_one("#servers-table").focus()

    async def load(self) -> None:
        """Ask for all of it."""
        servers = await self._load_servers(False)
        volumes = await self.link.entries("volumes.list")
        self.query_one("#groups-table", Rows).show_rows(group_rows(volumes, servers))
        realms = sorted({server["realm"] for server in servers})
        tokens = await self.link.entries("tokens.list")
        rows = {realm: (realm, "-", Text("not logged in: l", "dim"), "-", "-") for realm in realms}
        rows |= {token["realm"]: _token_row(token) for token in tokens}
        self.query_one("#tokens-table", Rows).show_rows(rows)

    async def _load_servers(self, check: bool) -> Sequence[Mapping[str, Any]]:
        """Ask for the servers, show and return them."""
        servers = await self.link.entries("servers.list", check=check)
        rows = {f"{server['realm']} {server['address']}": self._server_row(server) for server in servers}
        self.query_one("#servers-table", Rows).show_rows(rows)
        return servers

    def _server_row(self, server: Mapping[str, Any]) -> Sequence[Cell]:
        key = f"{server['realm']} {server['address']}"
        round_trip, bandwidth = server["round_trip"], server["bandwidth"]
        word, colour = _STATES.get(server["state"], ("? not met", "dim"))
        return (
            server["realm"],
            server["name"],
            Text(word, colour),
            _measured(
                None if round_trip is None else f"{round_trip * 1000:.1f} ms",
                _history(self._round_trips, key, round_trip),
            ),
            _measured(
                None if bandwidth is None else f"{size(bandwidth)}/s",
                _history(self._bandwidths, key, bandwidth),
            ),
            str(server["callbacks"]),
            "never" if server["last_heard"] is None else f"{age(server['last_heard'])} ago",
            server["reason"] or server["protection"],
        )

    # actions

    def action_check(self) -> None:
        """Ask each server now."""
        self.ask(self._check)

    async def _check(self) -> None:
        await self._load_servers(True)

    def action_login(self) -> None:
        """Ask who and with which password, and log in."""
        realm = self._realm_chosen()
        fields = (("Realm", realm), ("User", getpass.getuser()), ("Password", ""))

        def answered(answer: tuple[str, ...] | None) -> None:
            if answer is not None and all(answer):
                self.ask(self._log_in, *answer)

        self.app.push_screen(Form("Log in to a realm", fields, secret="Password"), answered)

    async def _log_in(self, realm: str, user: str, password: str) -> None:
        token = await self.link.call("tokens.login", realm=realm, user=user, password=password)
        left = age(token["ends"] - time.time())
        self.notify(f"{user}@{realm} for {left}", title="Logged in", markup=False)
        self.mark_stale()

    def action_logout(self) -> None:
        """Ask, and log out of the realm under the cursor."""
        realm = self._realm_chosen()

        def answered(answer: bool | None) -> None:
            if answer:
                self.ask(self._log_out, realm)

        self.app.push_screen(
            Confirm(f"Log out of {realm}? Changes made there wait for the next login.", "Log out"), answered
        )

    async def _log_out(self, realm: str) -> None:
        await self.link.call("tokens.logout", realm=realm)
        self.mark_stale()

    def _realm_chosen(self) -> str:
        """The realm under the cursor of the table that has the focus; the first known one otherwise."""
        tokens, servers = self.query_one("#tokens-table", Rows), self.query_one("#servers-table", Rows)
        for table in (tokens, servers) if tokens.has_focus else (servers, tokens):
            if table.chosen is not None:
                return table.chosen.split(" ")[0]
        return ""


def _token_row(token: Mapping[str, Any]) -> Sequence[Cell]:
    left = "-" if token["ends"] is None else age(max(0.0, token["ends"] - time.time()))
    name = f"{token['user']} ({token['id']})" if token["user"] else str(token["id"])
    return (
        token["realm"],
        name,
        Text(token["state"], _TOKENS.get(token["state"], "")),
        left,
        str(token["pending"]),
    )


def _history(histories: dict[str, deque[float]], key: str, value: float | None) -> Sequence[float]:
    """Remember a value; return the last ones."""
    history = histories.setdefault(key, deque(maxlen=HISTORY))
    if value is not None:
        history.append(value)
    return history


def _measured(text: str | None, history: Sequence[float]) -> Cell:
    """Return a figure and, dim, the bars of its past, scaled to the largest."""
    if text is None:
        return "-"
    top = max(history, default=0.0) or 1.0
    bars = "".join(_BARS[min(len(_BARS) - 1, int(value / top * (len(_BARS) - 1) + 0.5))] for value in history)
    return Text.assemble(f"{text:>12} ", (bars, "dim"))
