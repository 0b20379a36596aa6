"""`realmfs status`."""

import time
from typing import Any

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json
from realmfs.control.client import Client
from realmfs.control.words import age, size


@click.command()
@click.option("--short", is_flag=True, help="One line, for status bars.")
@json_option
@with_daemon
def command(client: Client, short: bool, as_json: bool) -> None:
    """Show the daemon, its cache and its servers at a glance."""
    status = client.call("daemon.status")
    if short:
        line = short_form(status, list(client.pages("tokens.list")), time.time())
        if as_json:
            print_json({"text": line})
        else:
            click.echo(line)
        return
    if as_json:
        print_json(status)
        return
    where = f"mounted on {status['mount_point']}" if status["mount_point"] else "without a mount"
    click.echo(f"realmfs {status['version']}, process {status['pid']}, up {age(status['uptime'])}, {where}")
    servers = f"{status['servers_up']} servers up, {status['servers_down']} down"
    click.echo(f"{status['realms']} realms known, {servers}")
    used, limit = size(status["cache_used"]), size(status["cache_size"])
    click.echo(
        f"{used} of {limit} cached, {status['objects']} of {status['objects_limit']} objects, "
        f"in {status['cache_dir']}"
    )
    click.echo(f"{status['pending']} changes wait ({size(status['pending_bytes'])})")
    for channel in status["channels"]:
        click.echo(f"server {channel}")
    for where in status["off_line"]:
        click.echo(f"off line {where}")
    for trouble in status["troubles"]:
        click.echo(f"warning: {trouble}")
    for request in status["waiting"]:
        click.echo(f"waiting: {request}")


def short_form(status: dict[str, Any], tokens: list[dict[str, Any]], now: float) -> str:
    """Return the one line for status bars; `now` in seconds since 1970.

    The worst comes first: trouble, being off line; then what waits, the token that ends first, the cache.
    """
    if any(where.startswith("everywhere") for where in status["off_line"]):
        presence = "off line"
    elif status["servers_up"] or not status["servers_down"]:
        presence = "online"
    else:
        presence = "no server answers"
    up = status["servers_up"]
    servers = f"{up} server" + ("" if up == 1 else "s")
    if status["servers_down"]:
        servers += f" ({status['servers_down']} down)"
    ends = [token["ends"] for token in tokens if token["state"] == "valid" and token["ends"] is not None]
    lost = any(token["state"] != "valid" for token in tokens)
    login = "log in again" if lost else f"token {age(max(0.0, min(ends) - now))}" if ends else "no token"
    parts = [
        *(["trouble"] if status["troubles"] else []),
        presence,
        servers,
        f"{status['pending']} pending",
        login,
        f"{size(status['cache_used'])} of {size(status['cache_size'])} cached",
    ]
    return ", ".join(parts)
