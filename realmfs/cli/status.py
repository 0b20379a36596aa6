"""`realmfs status`."""

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.show import print_json
from realmfs.control.client import Client
from realmfs.control.words import age, size


@click.command()
@json_option
@with_daemon
def command(client: Client, as_json: bool) -> None:
    """Show the daemon, its cache and its servers at a glance."""
    status = client.call("daemon.status")
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
