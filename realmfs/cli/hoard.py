"""`realmfs hoard`: what must be here when the servers are away."""

import sys
from pathlib import Path
from typing import Any

import click

from realmfs.cli import hoardwalk
from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.cli.hoardfile import carry_out, complete, entries_of, entry_line, lines_of, verified
from realmfs.cli.hoardlearn import learn
from realmfs.cli.progress import Bar
from realmfs.cli.show import print_json, print_table
from realmfs.cli.treepath import TREE
from realmfs.control.client import Client
from realmfs.control.words import counted, printable, size

VERDICT = 25  # columns of the reference's verify
_SHOWN = 20
"""Objects that `plan` names of each kind; `--json` names all."""
_PARTS = (
    ("to fetch", "fetch", "fetched"),
    ("would go", "evict", "evicted"),
    ("too much", "short", "lacking"),
)


@click.group("hoard")
def command() -> None:
    """Have with you what you need: name it, and walks bring it and keep it fresh.

    ATTRIBUTES are fields joined by colons: a priority from 1 to 1000 (usual: 10), c+ for the directory's
    children, d+ for all below it, both now and later; c or d for those that are there now.
    """


@command.command("add")
@click.argument("path", type=TREE)
@click.argument("attributes", default="")
@click.option("--uid", type=int, help="Local user whose entry it is (root's daemons).")
@json_option
@with_daemon
def add(client: Client, path: str, attributes: str, uid: int | None, as_json: bool) -> None:
    """Hoard what is at PATH; it may come to be later. Example: hoard add ~/coda/realm/src 600:d+."""
    entries = client.call("hoard.add", path=tree_path(client, path), attributes=attributes, uid=uid)
    if as_json:
        print_json(entries)


@command.command("remove")
@click.argument("paths", type=TREE, nargs=-1, required=True, metavar="PATH...")
@with_daemon
def remove(client: Client, paths: tuple[str, ...]) -> None:
    """Remove the entries of exactly these PATHs; what is here stays until its room is wanted."""
    for path in paths:
        if not client.call("hoard.remove", path=tree_path(client, path))["removed"]:
            raise Failure(f"{path} has no entry of its own; see `realmfs hoard list`")


@command.command("clear")
@click.option("--uid", type=int, help="Only those of one local user.")
@with_daemon
def clear(client: Client, uid: int | None) -> None:
    """Remove all entries that were added by command; profiles keep theirs."""
    click.echo(f"entries removed: {client.call('hoard.clear', uid=uid)['removed']}")


@command.command("list")
@click.option("--coda", is_flag=True, help="Print the lines of the reference's `hoard list`.")
@json_option
@with_daemon
def list_(client: Client, coda: bool, as_json: bool) -> None:
    """List the entries, and how much of each is here."""
    entries = entries_of(client)
    if as_json:
        print_json(entries)
    elif coda:
        for line in map(entry_line, entries):
            click.echo(line)
    else:
        head = ("PATH", "ATTRIBUTES", "HERE", "SIZE", "STATE", "FROM")
        print_table(head, map(_row, entries), "Nothing is hoarded. Begin with `realmfs hoard add`.")


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    here = "-"
    if entry["objects"]:
        here = f"{100 * entry['present'] // entry['objects']} %"
    state = entry["state"] if entry["bound"] or entry["state"] != "valid" else "no such name"
    return (
        printable(entry["path"]),
        entry["attributes"],
        here,
        "-" if entry["bytes"] is None else size(entry["bytes"]),
        f"{state} ({printable(entry['trouble'])})" if entry["trouble"] and entry["bound"] else state,
        entry["profile"] or "command",
    )


@command.command("load")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_daemon
def load(client: Client, files: tuple[str, ...]) -> None:
    """Carry out command files of hoard(1); - is the standard input."""
    mistakes = 0
    client.be_patient()
    for file in files:
        mistakes += carry_out(client, file)
    if mistakes:
        raise Failure(f"{mistakes} lines could not be carried out; all others were")


@command.command("save")
@click.argument("file", type=click.File("w", errors="surrogateescape"), default="-")
@with_daemon
def save(client: Client, file: Any) -> None:
    """Write the entries as a command file that `hoard load` and hoard(1) read."""
    # In one go, also nothing at all: the file is opened, and an old one emptied, only by writing.
    file.write("".join(line + "\n" for line in lines_of(entries_of(client))))


@command.command("walk")
@click.option("--background", is_flag=True, help="Do not wait for its end.")
@click.option("--stop", is_flag=True, help="End the walk under way.")
@json_option
@with_daemon
def walk(client: Client, background: bool, stop: bool, as_json: bool) -> None:
    """Bring everything hoarded now, also over a metered link and on a low battery."""
    if stop or background:
        status = client.call("hoard.stop" if stop else "hoard.walk")
    else:
        status = hoardwalk.follow(client)
    if as_json:
        print_json(status)
    elif not (stop or background):
        hoardwalk.report(status)
    if not (stop or background) and status["missing"]:
        why = "; ".join(status["reasons"])
        raise Failure(
            f"{counted(status['missing'], 'object')} still missing: {why}. See `realmfs hoard verify`"
        )


@command.command("status")
@json_option
@with_daemon
def status(client: Client, as_json: bool) -> None:
    """Tell how the hoard is, and how far a walk."""
    answer = client.call("hoard.status")
    if as_json:
        print_json(answer)
    else:
        hoardwalk.show(answer)


@command.command("plan")
@json_option
@with_daemon
def plan(client: Client, as_json: bool) -> None:
    """Say what a walk would bring, how large it is, and what would have to go. Brings nothing itself."""
    client.be_patient()
    with Bar("looking what is missing"):
        answer = client.call("hoard.plan", limit=_SHOWN)
    if as_json:
        complete(client, answer, "hoard.problems", "fetch", "fetch_cursor")
        complete(client, answer, "hoard.problems", "short", "short_cursor")
        complete(client, answer, "hoard.evicted", "evict", "evict_cursor")
        print_json(answer)
        return
    for title, key, sum_ in _PARTS:
        total = answer[sum_]
        click.echo(f"{title}: {counted(total['files'], 'object')}, {size(total['bytes'])}")
        for one in answer[key]:
            what = "?" if one["size"] is None else size(one["size"])
            click.echo(f"  {what:>10}  {printable(one['path'])}")
        if total["files"] > len(answer[key]):
            click.echo(f"  {'...':>10}  and {total['files'] - len(answer[key])} more")
    if answer["unknown"]:
        click.echo(f"of {answer['unknown']} objects the size is not known", err=True)
    click.echo(f"free without anything going: {size(answer['free'])}")


@command.command("verify")
@click.option("--all", "everything", is_flag=True, help="Also list the entries that are complete.")
@json_option
@with_daemon
def verify(client: Client, everything: bool, as_json: bool) -> None:
    """May I unplug? Status 1, and a list, if anything hoarded is absent or stale."""
    client.be_patient()
    with Bar("looking what is missing"):
        answer = verified(client)
    if as_json:
        print_json(answer)
    else:
        verdicts = [(one["verdict"], one["path"]) for one in answer["problems"]]
        if everything:
            verdicts += [
                ("OK", entry["path"]) for entry in entries_of(client) if entry["present"] == entry["objects"]
            ]
        for verdict, path in verdicts:
            click.echo(f"{verdict:>{VERDICT}}  {printable(path)}")
        summary = (
            f"{answer['present']} of {answer['objects']} objects are here, {size(answer['present_bytes'])}"
        )
        if not answer["reachable"]:
            summary += "; not every server could be asked whether that is the newest"
        click.echo(summary, err=True)
    if not answer["ready"]:
        raise click.exceptions.Exit(Exit.FAILED)


@command.command("on")
@with_daemon
def on(client: Client) -> None:
    """Let walks begin by themselves (the default)."""
    client.call("hoard.switch", on=True)


@command.command("off")
@with_daemon
def off(client: Client) -> None:
    """Begin no walk but on demand, until the daemon ends."""
    client.call("hoard.switch", on=False)


@command.command("learn", context_settings={"ignore_unknown_options": True})
@click.option("--profile", help="Write the lines into this profile instead of printing them.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
@with_daemon
def learn_(client: Client, profile: str | None, argv: tuple[str, ...]) -> None:
    """Run CMD, watch what it opens in the tree, and propose what to hoard for it."""
    lines, code = learn(client, argv)
    if profile is None:
        for line in lines:
            click.echo(line)
    else:
        directory = Path(client.call("daemon.settings")["hoard_dir"])
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / profile).open("a", errors="surrogateescape") as file:
            file.writelines(line + "\n" for line in lines)
        click.echo(
            f"{len(lines)} lines in {directory / profile}; now: realmfs hoard profile enable {profile}",
            err=True,
        )
    sys.exit(code)


@command.group("profile")
def profile_() -> None:
    """Profiles: files of hoard(1) commands in the configuration directory, on or off as a whole."""


@profile_.command("list")
@json_option
@with_daemon
def list_profiles(client: Client, as_json: bool) -> None:
    """List the profiles, and what is wrong with them."""
    _show_profiles(list(client.pages("hoard.profiles")), as_json)


@profile_.command("enable")
@click.argument("name")
@click.option("--uid", type=int, help="Local user whose entries they are (root's daemons).")
@json_option
@with_daemon
def enable(client: Client, name: str, uid: int | None, as_json: bool) -> None:
    """Hoard what the profile NAME names."""
    _switch(client, name, enabled=True, uid=uid, as_json=as_json)


@profile_.command("disable")
@click.argument("name")
@json_option
@with_daemon
def disable(client: Client, name: str, as_json: bool) -> None:
    """Hoard no more what only the profile NAME names."""
    _switch(client, name, enabled=False, uid=None, as_json=as_json)


def _switch(client: Client, name: str, *, enabled: bool, uid: int | None, as_json: bool) -> None:
    client.call("hoard.profile", name=name, enabled=enabled, uid=uid)
    _show_profiles(list(client.pages("hoard.profiles")), as_json)


def _show_profiles(profiles: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(profiles)
        return
    rows = [
        (one["name"], "enabled" if one["enabled"] else "-", one["entries"], one["file"]) for one in profiles
    ]
    print_table(("NAME", "STATE", "ENTRIES", "FILE"), rows, "There are no profiles.")
    for mistake in [mistake for one in profiles for mistake in one["mistakes"]]:
        click.echo(mistake, err=True)
