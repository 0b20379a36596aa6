"""`realmfs doctor`: the questions one would ask somebody who says that it does not work.

Each check is a function that yields findings. `wrong` is what keeps something from working and makes the
exit status 1; `note` is what may be as it should be (off line, not logged in).
"""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from realmfs.cli.daemon import json_option, socket_path
from realmfs.cli.failure import Exit
from realmfs.cli.schema import Finding
from realmfs.cli.show import print_json
from realmfs.control.client import Client, NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.control.words import age, size, to_log_in, waiting
from realmfs.host.paths import Paths
from realmfs.host.settings import ConfigError, Settings, settle
from realmfs.realms import realmsfile

_RESERVE = 64 << 20
_SOON = 3600.0
_DNS_WITHIN = 3.0


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), envvar="REALMFS_SOCKET", help="Control socket.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
@json_option
@click.pass_context
def command(context: click.Context, socket: Path | None, config: Path | None, as_json: bool) -> None:
    """Look for what is wrong on this machine and with the daemon; tell what to do. Exits 1 if anything is."""
    findings = list(examine(socket, config))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:5}  {finding.check:14}  {finding.text}")
            if finding.advice:
                click.echo(f"{'':23}-> {finding.advice}")
    if any(finding.verdict == "wrong" for finding in findings):
        context.exit(int(Exit.FAILED))


def examine(socket: Path | None, config: Path | None) -> Iterator[Finding]:
    """Yield the findings of all checks."""
    try:
        settings = settle(Paths.of_user(), config, {"socket": socket})
    except ConfigError as error:
        yield Finding("configuration", "wrong", str(error), "correct it; `realmfs config path` tells where")
        return
    yield Finding("configuration", "ok", "every setting can be read")
    yield from _fuse()
    yield from _realms_file(settings)
    yield from _dns(settings)
    yield from _clock(time.time())
    yield from _disk(settings)
    yield from _daemon(socket_path(socket, config))


def _fuse() -> Iterator[Finding]:
    from realmfs.fuse.mountpoint import obstacle

    reason = obstacle()
    if reason is None:
        yield Finding("/dev/fuse", "ok", "the kernel lets us mount")
    else:
        advice = "load the module fuse, or use `realmfs mount --no-kernel` and ls, cat, get, put"
        yield Finding("/dev/fuse", "wrong", reason, advice)
    helper = shutil.which("fusermount3")
    if helper is not None:
        yield Finding("fusermount3", "ok", helper)
    else:
        verdict = "note" if os.geteuid() == 0 else "wrong"
        yield Finding("fusermount3", verdict, "not in PATH; only root mounts without it", "install fuse3")


def _realms_file(settings: Settings) -> Iterator[Finding]:
    file = settings.realms
    if file is None:
        yield Finding("realms file", "ok", "none is named: realms are looked up in DNS")
        return
    try:
        text = file.read_text("utf-8", "replace")
    except OSError as error:
        advice = "correct the setting `realms`, or make the file"
        yield Finding("realms file", "wrong", f"{file}: {error.strerror}", advice)
        return
    wrong = realmsfile.mistakes(text)
    for one in wrong:
        yield Finding("realms file", "wrong", f"{file}, {one}", "a line is REALM SERVER[:PORT]...")
    if not wrong:
        yield Finding("realms file", "ok", str(file))


def _dns(settings: Settings) -> Iterator[Finding]:
    """Ask for the root's name servers: any answer, also a refusal, shows that somebody is there."""
    import dns.exception
    import dns.resolver

    try:
        resolver = dns.resolver.Resolver(configure=settings.dns is None)
        if settings.dns is not None:
            resolver.nameservers, resolver.port = [settings.dns[0]], settings.dns[1]
        resolver.resolve(".", "NS", lifetime=_DNS_WITHIN)
    except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN, dns.resolver.NoNameservers):
        yield Finding("DNS", "ok", "the name server answers")
    except (dns.exception.DNSException, OSError, ValueError) as error:
        text = f"no name server answers ({type(error).__name__}): only realms known before can be found"
        yield Finding("DNS", "note", text, "see /etc/resolv.conf and the setting dns, or name `realms`")
    else:
        yield Finding("DNS", "ok", "the name server answers")


def _clock(now: float) -> Iterator[Finding]:
    """A clock that is far off makes tokens look expired; earlier than this program it is surely wrong."""
    installed = Path(__file__).stat().st_mtime
    if now < installed:
        text = f"the clock is {age(installed - now)} before this program was installed"
        yield Finding("clock", "wrong", text, "set it; tokens and times of files depend on it")
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)))


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.cache_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        yield Finding("disk", "wrong", f"{place} cannot be written", "name another cache_dir")
    elif free < _RESERVE:
        text = f"{size(free)} free at {place}; nothing is cached below {size(_RESERVE)}"
        yield Finding("disk", "wrong", text, "make room, or name another cache_dir")
    else:
        yield Finding("disk", "ok", f"{size(free)} free at {place}")


def _daemon(path: Path) -> Iterator[Finding]:
    try:
        with Client(path, timeout=20.0) as client:
            status = client.call("daemon.status")
            yield Finding("daemon", "ok", f"process {status['pid']}, up {age(status['uptime'])}")
            yield from _troubles(status)
            yield from _servers(list(client.pages("servers.list", check=not status["off_line"])))
            yield from _tokens(list(client.pages("tokens.list")), time.time())
    except NoDaemonError as error:
        yield Finding("daemon", "note", str(error))
    except ControlError as error:
        yield Finding("daemon", "wrong", error.text, "see its log: `realmfs config show` tells where")


def _troubles(status: dict[str, Any]) -> Iterator[Finding]:
    for trouble in status["troubles"]:
        yield Finding("daemon", "wrong", trouble, "its log has the details")
    for request in status["waiting"]:
        yield Finding("daemon", "note", f"a request waits: {request}", "see `realmfs servers --check`")
    for where in status["off_line"]:
        yield Finding("connection", "note", f"off line {where}", "realmfs reconnect")
    if not status["troubles"]:
        yield Finding("cache", "ok", f"{status['objects']} objects, {size(status['cache_used'])}, no damage")


def _servers(servers: list[dict[str, Any]]) -> Iterator[Finding]:
    for server in servers:
        name = f"{server['name']} ({server['realm']})"
        if server["state"] == "up":
            yield Finding("server", "ok", f"{name} is up")
        elif server["state"] == "down":
            text = f"{name} is down{': ' + server['reason'] if server['reason'] else ''}"
            yield Finding("server", "wrong", text, "check the network, or ask its administrator")


def _tokens(tokens: list[dict[str, Any]], now: float) -> Iterator[Finding]:
    for token in tokens:
        advice = to_log_in(token["realm"], token["user"])
        held = f"; {waiting(token['pending'])} for it" if token["pending"] else ""
        ends = token["ends"]
        if token["state"] != "valid":
            verdict = "wrong" if token["pending"] or token["state"] == "expired" else "note"
            yield Finding("login", verdict, f"{token['realm']}: token {token['state']}{held}", advice)
        elif ends is not None and ends - now < _SOON:
            text = f"{token['realm']}: the token ends in {age(max(0.0, ends - now))}"
            yield Finding("login", "note", text, advice)
        else:
            yield Finding("login", "ok", f"{token['realm']}: logged in")
