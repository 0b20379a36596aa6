"""`realmfs find`: what `coda-volmunge` looked for in a tree, by the control socket."""

import fnmatch
from collections.abc import Iterator
from typing import Any

import click

from realmfs.cli.daemon import json_option, tree_path, with_daemon
from realmfs.cli.failure import Failure
from realmfs.cli.progress import Bar
from realmfs.cli.schema import Found
from realmfs.cli.show import print_json
from realmfs.cli.treepath import TREE
from realmfs.cli.walking import Walker, joined
from realmfs.control.client import Client
from realmfs.control.words import printable

_UNCACHED = ("absent", "partial")


@click.command()
@click.argument("path", type=TREE, default="")
@click.option("--name", metavar="PATTERN", help="Only names like PATTERN, with * and ?.")
@click.option("--type", "kind", type=click.Choice(["file", "directory", "link"]), help="Only of this type.")
@click.option("--conflicts", is_flag=True, help="What is in conflict.")
@click.option("--mounts", is_flag=True, help="Where volumes are mounted.")
@click.option("--uncached", is_flag=True, help="What is not here, or only in part.")
@click.option("--dirty", is_flag=True, help="What was changed here and is not yet sent.")
@click.option("--hoarded", is_flag=True, help="What is hoarded.")
@click.option("--here", is_flag=True, help="Look only at what is on this machine; ask no server.")
@click.option("--one-volume", is_flag=True, help="Do not go into other volumes.")
@json_option
@with_daemon
def command(client: Client, /, path: str, here: bool, one_volume: bool, as_json: bool, **wanted: Any) -> None:
    """List what is below PATH (by default: everything), or what of it is as the options say.

    Of --conflicts, --mounts, --uncached, --dirty and --hoarded one must be true. Exits 1 if a directory could
    not be listed.
    """
    top = tree_path(client, path)
    client.be_patient()
    with Bar("looking") as bar:
        walker = Walker(client, bar, across=not one_volume, fetch=not here)
        found = _matching(walker, top, wanted)
        if as_json:
            print_json([{name: getattr(one, name) for name in one.__slots__} for one in found])
        else:
            for one in found:
                click.echo(_line(one))
    if walker.failed:
        raise Failure("not all could be looked at")


def _matching(walker: Walker, top: str, wanted: dict[str, Any]) -> Iterator[Found]:
    for below, entries in walker.directories(top):
        for entry in entries:
            if _fits(entry, wanted):
                path = joined(joined(top, below), entry["name"])
                yield Found(path, entry["kind"], entry["state"], entry["hoard"], entry["volume"])


def _fits(entry: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if wanted["name"] is not None and not fnmatch.fnmatchcase(entry["name"], wanted["name"]):
        return False
    if wanted["kind"] is not None and entry["kind"] != wanted["kind"]:
        return False
    judged = {
        "conflicts": entry["state"] == "conflict",
        "mounts": bool(entry["volume"]),
        "uncached": entry["state"] in _UNCACHED,
        "dirty": entry["state"] == "dirty",
        "hoarded": entry["hoard"] not in ("", "0"),
    }
    asked = [name for name in judged if wanted[name]]
    return not asked or any(judged[name] for name in asked)


def _line(one: Found) -> str:
    notes = [f"volume {printable(one.volume)}"] if one.volume else []
    if one.state == "conflict":
        notes.append("conflict")
    return printable(f"/{one.path}") + (f"  ({', '.join(notes)})" if notes else "")
