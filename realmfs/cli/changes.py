"""`realmfs changes`."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import click

from realmfs.cli.credentials import note
from realmfs.cli.daemon import json_option, with_daemon
from realmfs.cli.failure import Exit
from realmfs.cli.progress import Bar, sending
from realmfs.cli.show import print_json, print_table
from realmfs.control.client import Client
from realmfs.control.protocol import ControlError
from realmfs.control.words import age, counted, printable, size


@click.group(invoke_without_command=True)
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@json_option
@with_daemon
def command(client: Client, volume: str | None, as_json: bool) -> None:
    """Show the changes that wait to be sent to the servers."""
    show(client, volume, as_json)


@command.command("list")
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@json_option
@with_daemon
def list_changes(client: Client, volume: str | None, as_json: bool) -> None:
    """List them, the oldest first (the default)."""
    show(client, volume, as_json)


@command.command("send")
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@click.option("--retry", is_flag=True, help="Those too that servers have refused before.")
@click.option(
    "--within",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Wait at most so long.",
)
@json_option
@with_daemon
def send(client: Client, volume: str | None, retry: bool, within: float, as_json: bool) -> None:
    """Send them now, whatever `writeback` says, and wait until they are at the servers.

    If any are left, tells why; the exit status is then 4 without servers, 5 without a login, 6 if servers
    have refused them, else 1.
    """
    client.be_patient()
    with sending(client, "sending changes"):
        left = client.call("changes.send", volume=volume, retry=retry, within=within)
    if as_json:
        print_json(left)
    elif not left:
        click.echo("Everything has reached the servers")
    for one in left if not as_json else ():
        waits = f", waiting for {one['waits_for']}" if one["waits_for"] else ""
        amount = f"{counted(one['pending'], 'change')} ({size(one['bytes'])})"
        click.echo(f"{one['volume']}@{one['realm']}: {amount} left{waits}")
    if left:
        worst = {one["waits_for"] for one in left}
        raise click.exceptions.Exit(next((status for why, status in _STATUS if why in worst), Exit.FAILED))


_STATUS = (
    ("servers", Exit.UNREACHABLE),
    ("tokens", Exit.UNAUTHENTICATED),
    ("a decision", Exit.CONFLICT),
)
"""What changes wait for, and the exit status that it means."""


def show(client: Client, volume: str | None, as_json: bool) -> None:
    """Print the pending changes."""
    changes = list(client.pages("changes.list", volume=volume))
    if as_json:
        print_json(changes)
        return
    rows = [
        (
            f"{change['volume']}@{change['realm']}",
            age(max(0.0, time.time() - change["made"])),
            change["uid"],
            change["what"],
            size(change["size"]) if change["size"] else "-",
            change["state"],
            printable(change["path"]),
        )
        for change in changes
    ]
    head = ("VOLUME", "AGE", "USER", "CHANGE", "SIZE", "STATE", "PATH")
    print_table(head, rows, "No change waits: everything has reached the servers.")


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, exists=False))
@click.option("--volume", help="Only those of one volume, NAME@REALM.")
@json_option
@with_daemon
def export(client: Client, file: Path, volume: str | None, as_json: bool) -> None:
    """Copy them to the new FILE, a tar archive with all contents. They go on waiting."""
    client.be_patient()
    with Bar("writing the archive"):
        result = client.call("changes.export", file=os.path.abspath(file), volume=volume)
    if as_json:
        print_json(result)
    elif result["file"] is None:
        click.echo("No change waits: no file was written.", err=True)
    else:
        click.echo(f"{counted(result['changes'], 'change')}, {size(result['bytes'])} in {result['file']}")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
@with_daemon
def import_changes(client: Client, file: Path, as_json: bool) -> None:
    """Make the changes in FILE again, as they were exported. Exits 1 if some cannot be made."""
    client.be_patient()
    with Bar("making the changes again"):
        result = client.call("changes.import", file=os.path.abspath(file))
    if as_json:
        print_json(result)
    else:
        click.echo(f"{counted(result['done'], 'change')} made again")
        for text in result["failed"]:
            click.echo(f"Error: {printable(text)}", err=True)
    if result["failed"]:
        raise click.exceptions.Exit(1)


@command.command("discard")
@click.argument("numbers", metavar="[NUMBER]...", nargs=-1, type=int)
@click.option("--volume", help="All of one volume, NAME@REALM.")
@click.option("--all", "every", is_flag=True, help="All changes there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@with_daemon
def discard(
    client: Client, numbers: tuple[int, ...], volume: str | None, every: bool, yes: bool, as_json: bool
) -> None:
    """Give changes up: those of these NUMBERs (see `list --json`) with all that rests on them, or all.

    What is given up is kept in a file, from which `import` can make it again.
    """
    if bool(numbers) + (volume is not None) + every != 1:
        raise click.UsageError("say NUMBERs, --volume or --all")
    if not yes:
        click.confirm("Give these changes up?", abort=True)
    client.be_patient()
    results: list[Any] = []
    try:
        with sending(client, "giving changes up"):
            if not numbers:
                results.append(client.call("changes.discard", volume=volume))
            for number in numbers:
                _give_up(client, number, results)
    finally:
        if results:
            _show_given_up(results, as_json)


def _give_up(client: Client, number: int, results: list[Any]) -> None:
    """Give one up and add what came of it. It may have gone with an earlier one that it rested on."""
    try:
        results.append(client.call("changes.discard", sequence=number))
    except ControlError as error:
        if error.number != errno.ENOENT or not results:
            raise
        note(f"{number} does not wait any more")


def _show_given_up(results: list[Any], as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    for result in results:
        click.echo(f"{counted(result['changes'], 'change')} given up")
        if result["file"]:
            click.echo(f"  kept in {result['file']} (realmfs changes import takes it)")
