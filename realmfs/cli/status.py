"""`realmfs status`."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from realmfs.cli.daemon import json_option, with_socket
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.indicator import look, looks, lost
from realmfs.cli.show import print_json
from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.control.words import age, counted, size, to_log_in, waiting


@click.command()
@click.option("--short", is_flag=True, help="One line, for status bars; with --json in Waybar's form.")
@click.option("--follow", is_flag=True, help="With --short: go on, with a new line whenever it changes.")
@json_option
@with_socket
def command(path: Path, short: bool, follow: bool, as_json: bool) -> None:
    """Show the daemon, its cache and its servers at a glance."""
    if follow and not short:
        raise Failure("--follow goes with --short", Exit.USAGE)
    if short:
        _show_short(path, follow, as_json)
        return
    with Client(path) as client:
        status = client.call("daemon.status")
        if as_json:
            print_json(status)
        else:
            _show(status, client.pages("tokens.list"))


def _show_short(path: Path, follow: bool, as_json: bool) -> None:
    """Print a line, or one after the other. That no daemon runs is a line, too, and the exit status."""
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            for now in looks(path):
                click.echo(now.json() if as_json else now.text)
        return
    try:
        with Client(path) as client:
            now = look(client)
        status = Exit.DONE
    except (NoDaemonError, ControlError) as error:
        now = lost(error)
        status = Exit.NO_DAEMON if isinstance(error, NoDaemonError) else Exit.FAILED
    click.echo(now.json() if as_json else now.text)
    if status:
        raise click.exceptions.Exit(status)


def _show(status: dict[str, Any], tokens: Iterable[dict[str, Any]]) -> None:
    where = f"mounted on {status['mount_point']}" if status["mount_point"] else "without a mount"
    click.echo(f"realmfs {status['version']}, process {status['pid']}, up {age(status['uptime'])}, {where}")
    servers = f"{counted(status['servers_up'], 'server')} up, {status['servers_down']} down"
    click.echo(f"{counted(status['realms'], 'realm')} known, {servers}")
    used, limit = size(status["cache_used"]), size(status["cache_size"])
    click.echo(
        f"{used} of {limit} cached, {status['objects']} of {status['objects_limit']} objects, "
        f"in {status['cache_dir']}"
    )
    click.echo(f"{waiting(status['pending'])} ({size(status['pending_bytes'])})")
    if status["conflicts"]:
        conflicts = counted(status["conflicts"], "conflict")
        click.echo(f"{conflicts}: somebody must choose. See `realmfs conflicts`")
    for token in tokens:
        if token["state"] != "valid":
            advice = to_log_in(token["realm"], token["user"])
            click.echo(f"login in {token['realm']} {token['state']}: {advice}")
    for channel in status["channels"]:
        click.echo(f"server {channel}")
    for where in status["off_line"]:
        click.echo(f"off line {where}")
    for trouble in status["troubles"]:
        click.echo(f"warning: {trouble}")
    for request in status["waiting"]:
        click.echo(f"waiting: {request}")
