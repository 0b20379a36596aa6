"""`realmfs writeback`."""

from typing import Any

import click

from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.show import print_json
from realmfs.control.client import Client

_AUTO = (0.0, 5.0)
"""Age and time as they are when nobody has set them."""


@click.command()
@click.option("--volume", metavar="NAME@REALM", help="Of this volume only.")
@click.option("--age", type=click.FloatRange(0), metavar="S", help="Seconds a change waits at least.")
@click.option("--time", "span", type=click.FloatRange(0), metavar="S", help="Seconds a batch may take.")
@click.option("--sync", is_flag=True, help="Let what changes something wait until the servers have it.")
@click.option("--auto", is_flag=True, help="As at first, for all volumes; with --volume as for all others.")
@click.option("--pause/--resume", "paused", default=None, help="Send nothing by itself; go on.")
@json_option
@with_daemon
def command(
    client: Client,
    volume: str | None,
    age: float | None,
    span: float | None,
    sync: bool,
    auto: bool,
    paused: bool | None,
    as_json: bool,
) -> None:
    """Set when changes are sent to the servers; without options, show it.

    Changes that are younger than --age wait, so that what is changed again or removed soon is never sent;
    with 0, the default, everything goes at once. What servers fetch in one batch should take no longer than
    --time (default 5), since they keep others from the volume meanwhile. With --sync a program that changes
    something waits until the servers have it, as long as the patience allows and they can be reached. All
    stays in force until it is set again.
    `realmfs changes send` sends at once whatever waits, paused or not.
    """
    if sync + auto + (age is not None or span is not None) > 1:
        raise Failure("choose one of --sync, --auto, and --age with --time", Exit.USAGE)
    wanted: dict[str, Any] = {"age": age, "time": span}
    if sync:
        wanted = {"age": 0.0, "time": 0.0}
    elif auto:
        wanted = {} if volume is not None else dict(zip(wanted, _AUTO, strict=True))
        wanted["default"] = True
    holds = client.call("writeback", volume=volume, paused=paused, **wanted)
    if as_json:
        print_json(holds)
    else:
        _show(holds)


def _show(holds: dict[str, Any]) -> None:
    what = f"Changes of {holds['volume']}" if holds["volume"] else "Changes"
    if holds["time"] == 0:
        click.echo(f"{what} are synchronous: programs wait until the servers have them")
    else:
        wait = f"once they are {holds['age']:g} s old" if holds["age"] else "at once"
        click.echo(f"{what} are sent {wait}; a batch takes about {holds['time']:g} s at most")
    if holds["own"] and not holds["volume"]:
        click.echo(f"With settings of their own: {', '.join(holds['own'])}")
    if holds["paused"]:
        click.echo("Paused: nothing is sent by itself. Go on with `realmfs writeback --resume`")
