"""`realmfs events`."""

import contextlib
import json

import click

from realmfs.cli.daemon import with_daemon
from realmfs.cli.failure import Exit, Failure
from realmfs.control.client import Client


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--kind", multiple=True, help="Only events of this kind (repeatable).")
@click.option("--follow/--no-follow", default=True, help="Go on until the daemon ends (the default).")
@click.option("--count", type=click.IntRange(1), help="Stop after so many.")
@with_daemon
def command(client: Client, as_json: bool, kind: tuple[str, ...], follow: bool, count: int | None) -> None:
    """Watch what the daemon does, one line an event."""
    if kind:
        _check(kind)
    left = count if follow else (count or 1)
    with contextlib.suppress(KeyboardInterrupt):
        for event in client.events():
            if kind and event.get("kind") not in kind:
                continue
            click.echo(json.dumps(dict(event)) if as_json else str(event["line"]))
            if left is not None:
                left -= 1
                if left == 0:
                    return


def _check(kinds: tuple[str, ...]) -> None:
    """Refuse kinds that never come. Raises Failure."""
    from realmfs.venus.events import KINDS

    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong:
        raise Failure(f"there are no events of kind {wrong[0]!r}. Kinds: {', '.join(KINDS)}", Exit.USAGE)
