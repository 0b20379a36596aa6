"""`realmfs quota`."""

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import size
from realmfs.host.settings import size as read_size


@click.command()
@click.argument("path", type=TREE)
@click.option("--set", "wanted", metavar="SIZE", help="Set it, for administrators: 500M, 2G, or none.")
@json_option
@with_daemon
def command(client: Client, path: str, wanted: str | None, as_json: bool) -> None:
    """Show how much the volume that holds PATH may hold, and how full it and its server's disk are."""
    place = tree_path(client, path)
    if wanted is None:
        answer = client.call("volumes.status", path=place)
    else:
        answer = client.call("volumes.set_quota", path=place, max_quota=_kibibytes(wanted))
    if as_json:
        print_json(answer)
        return
    name = f"{answer['name']}@{answer['realm']}"
    if answer["blocks_used"] is None:
        raise Failure(f"{name}: no server of it answers, so nobody knows its quota", Exit.UNREACHABLE)
    used, quota = answer["blocks_used"], answer["max_quota"]
    limit = f"{size(quota << 10)} ({used * 100 // quota}%)" if quota else "no limit"
    click.echo(f"{name}: {size(used << 10)} used, quota {limit}")
    free, whole = size(answer["partition_free"] << 10), size(answer["partition_size"] << 10)
    click.echo(f"its server's disk: {free} free of {whole}")


def _kibibytes(text: str) -> int:
    """Read a size, rounded up to KiB; `none` is 0, no limit."""
    if text == "none":
        return 0
    try:
        return -(-read_size(text) // 1024)
    except ValueError as error:
        raise Failure(f"SIZE {error}, or none", Exit.USAGE) from None
