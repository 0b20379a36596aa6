"""`realmfs metrics`: what the daemon counts, in the text form that Prometheus reads.

It is made from the answers of the control socket, so that a scrape costs the daemon no more than `status`.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from realmfs.cli.daemon import with_daemon
from realmfs.control.client import Client

Sample = tuple[Mapping[str, str], float]


@click.command()
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Replace FILE as a whole, for node_exporter's textfile collector (NAME.prom).",
)
@with_daemon
def command(client: Client, file: Path | None) -> None:
    """Print the daemon's counters and gauges for Prometheus."""
    text = render(
        client.call("daemon.status"),
        list(client.pages("servers.list")),
        list(client.pages("volumes.list")),
        client.call("cache.usage"),
    )
    if file is None:
        click.echo(text, nl=False)
    else:
        _replace(file, text)


def render(
    status: dict[str, Any],
    servers: list[dict[str, Any]],
    volumes: list[dict[str, Any]],
    usage: dict[str, Any],
) -> str:
    """Return the text form of the answers of daemon.status, servers.list, volumes.list and cache.usage."""
    return "\n".join([*_daemon(status), *_cache(usage), *_servers(servers), *_volumes(volumes), ""])


def _daemon(status: dict[str, Any]) -> Iterator[str]:
    yield from _family("info", "gauge", "The daemon's version.", [({"version": status["version"]}, 1)])
    yield from _family("uptime_seconds", "gauge", "Age of the daemon.", [({}, status["uptime"])])
    yield from _family("mounted", "gauge", "1: the tree is mounted.", [({}, bool(status["mount_point"]))])
    yield from _family("troubles", "gauge", "What keeps it from working in full.", _count(status["troubles"]))
    yield from _family("off_line", "gauge", "Places it is off line in.", _count(status["off_line"]))
    yield from _family("requests_slow", "gauge", "Kernel requests over 1 s old.", _count(status["waiting"]))
    for name, key, meaning in (
        ("reused_files_total", "reused_files", "Files that were here under another name and not fetched."),
        ("reused_bytes_total", "reused_bytes", "Their bytes."),
    ):
        yield from _family(name, "counter", meaning, [({}, status.get(key, 0))])
    yield from _family(
        "requests_total",
        "counter",
        "Kernel requests answered.",
        [({"operation": name}, count) for name, count in sorted(status["requests"].items())],
    )


def _cache(usage: dict[str, Any]) -> Iterator[str]:
    for name, key, meaning in (
        ("cache_size_bytes", "size", "Room for contents."),
        ("cache_used_bytes", "used", "Contents cached."),
        ("cache_free_bytes", "free", "Bytes that can still be written."),
        ("cache_objects", "objects", "Objects cached."),
        ("cache_objects_limit", "objects_limit", "Objects that fit."),
        ("hoarded_objects", "hoarded", "Objects hoarded."),
        ("hoarded_bytes", "hoarded_bytes", "Contents hoarded."),
        ("pending_changes", "pending", "Changes that wait to be sent."),
        ("pending_bytes", "pending_bytes", "Contents that wait to be sent."),
        ("pending_changes_limit", "pending_limit", "Changes that may wait."),
    ):
        yield from _family(name, "gauge", meaning, [({}, usage[key])])


def _servers(servers: list[dict[str, Any]]) -> Iterator[str]:
    def samples(key: str) -> list[Sample]:
        return [(_of(one), one[key]) for one in servers if one[key] is not None]

    def _of(one: dict[str, Any]) -> dict[str, str]:
        return {"realm": one["realm"], "address": one["address"]}

    up = [(_of(one), one["state"] == "up") for one in servers]
    yield from _family("server_up", "gauge", "1: the server answers.", up)
    yield from _family("server_round_trip_seconds", "gauge", "Round trip.", samples("round_trip"))
    yield from _family("server_bandwidth_bytes", "gauge", "Bytes a second.", samples("bandwidth"))
    yield from _family("server_callbacks", "gauge", "Promises it has made to us.", samples("callbacks"))


def _volumes(volumes: list[dict[str, Any]]) -> Iterator[str]:
    labels = [{"volume": f"{one['name']}@{one['realm']}", "id": one["id"]} for one in volumes]
    reachable = [(label, one["reachable"]) for label, one in zip(labels, volumes, strict=True)]
    pending = [(label, one["pending"]) for label, one in zip(labels, volumes, strict=True)]
    yield from _family("volume_reachable", "gauge", "1: a server of it answers.", reachable)
    yield from _family("volume_pending_changes", "gauge", "Changes that wait for it.", pending)


def _count(things: list[str]) -> list[Sample]:
    return [({}, len(things))]


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield one metric with its samples; nothing if there are none."""
    present = list(samples)
    if not present:
        return
    yield f"# HELP realmfs_{name} {meaning}"
    yield f"# TYPE realmfs_{name} {kind}"
    for labels, value in present:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"realmfs_{name}{'{' + inside + '}' if inside else ''} {float(value):.10g}"


def _escaped(text: str) -> str:
    """Escape a label's value as the exposition format asks; what is no text at all becomes a mark."""
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _replace(file: Path, text: str) -> None:
    """Put `text` in the place of `file` at once: a reader sees the old or the new one, whole."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as new:
            new.write(text)
            os.fchmod(new.fileno(), 0o644)
        os.replace(name, file)
    except OSError:
        os.unlink(name)
        raise
