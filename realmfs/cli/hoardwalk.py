"""Following a hoard walk on the terminal."""

import time
from typing import Any

import click

from realmfs.cli.progress import Bar
from realmfs.control.client import Client
from realmfs.control.words import counted, size

_LOOK = 0.1


def follow(client: Client) -> dict[str, Any]:
    """Have a walk begin and wait for its end; an interruption ends the walk. Returns the last status."""
    before = client.call("hoard.status")["walks"]
    status: dict[str, Any] = client.call("hoard.walk")
    with Bar("hoarding") as bar:
        try:
            while status["walks"] == before:
                time.sleep(_LOOK)
                status = client.call("hoard.status")
                bar.tell(*_stand(status), is_bytes=status["phase"] == "data")
        except KeyboardInterrupt:
            client.call("hoard.stop")
            raise
    return status


def _stand(status: dict[str, Any]) -> tuple[float, float | None, str]:
    """Return how far the walk is, of how much, and its phase."""
    if status["phase"] != "data":
        return status["files"], None, "hoarding: looking what is there"
    eta = f", {status['eta']:.0f} s left" if status["eta"] is not None else ""
    return status["bytes"], status["bytes"] + status["bytes_left"], f"hoarding: fetching{eta}"


def report(status: dict[str, Any]) -> None:
    """Say what a walk did."""
    last = status["last"]
    if last is None:
        click.echo("the walk failed: the daemon's log has the reason", err=True)
        return
    rate = last["bytes"] / last["seconds"] if last["seconds"] else 0.0
    files = counted(last["files"], "object")
    click.echo(
        f"{files}, {size(last['bytes'])} in {last['seconds']:.2f} s ({size(rate)}/s)"
        + ("" if last["complete"] else "; stopped before its end")
    )


def show(status: dict[str, Any]) -> None:
    """Show the hoard at a glance."""
    words = {None: "not known yet", True: "yes", False: f"no, {counted(status['missing'], 'object')} missing"}
    click.echo(f"entries:         {status['entries']}")
    click.echo(f"all here:        {words[status['ready']]}")
    click.echo(f"walks:           {'begin by themselves' if status['on'] else 'on demand only'}")
    if status["hindrance"]:
        click.echo(f"                 not now: {status['hindrance']}")
    if status["walking"]:
        files = counted(status["files"], "object")
        click.echo(f"walking:         {status['phase']}, {status['percent']} %, {files} so far")
    elif status["last"] is not None:
        files = counted(status["last"]["files"], "object")
        click.echo(f"last walk:       {status['last']['age']:.0f} s ago, {files} came")
