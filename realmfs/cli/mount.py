"""`realmfs mount`.

Without `--foreground` the daemon is started as a process of its own that leads its own session, and the
command returns when it is ready. The daemon reports by one JSON line on a pipe: what became of it, or why
not.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from realmfs.cli.daemon import PLACE
from realmfs.cli.failure import Exit, Failure
from realmfs.host.paths import Paths
from realmfs.host.settings import KEYS, Settings, settle

_READY_WITHIN = 60.0


def setting_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each setting; all but the mount point, which is its argument."""
    for key in reversed(KEYS):
        if key.name == "mount_point":
            continue
        note = f"{key.meaning[0].upper()}{key.meaning[1:]} (default: {key.default})."
        if key.is_switch:
            option = click.option(f"{key.flag}/--no{key.flag[1:]}", key.name, default=None, help=note)
        else:
            option = click.option(key.flag, key.name, metavar="VALUE", help=note)
        function = option(function)
    return function


@click.command()
@click.argument("directory", required=False, type=PLACE)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground and log to standard error.")
@click.option("--no-kernel", is_flag=True, help="Serve without a mount: ls, cat, get and put still work.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--system", is_flag=True, help="Be the system daemon: /etc/realmfs, /var/cache/realmfs, /coda.")
@click.option("--report-to", type=int, hidden=True)
@setting_options
def command(
    directory: Path | None,
    foreground: bool,
    no_kernel: bool,
    config: Path | None,
    system: bool,
    report_to: int | None,
    **flags: Any,
) -> None:
    """Start the daemon and mount the tree of realms on DIRECTORY (by default: the setting mount_point)."""
    paths = Paths.of_system() if system else Paths.of_user()
    settings = settle(paths, config, {"mount_point": directory, **flags})
    if foreground or report_to is not None:
        _serve(settings, not no_kernel, report_to)
    else:
        _start(settings)


def _start(settings: Settings) -> None:
    """Start this very command again as a daemon, and wait for its report."""
    settings.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with open(reading, "rb") as report:
        with settings.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "realmfs", *sys.argv[1:], "--report-to", str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
            )
        os.close(writing)
        readable, _, _ = select.select([report], [], [], _READY_WITHIN)
        line = report.readline() if readable else b""
    if not line:
        what = "died" if process.poll() is not None else f"was not ready within {_READY_WITHIN:.0f} s"
        raise Failure(f"the daemon {what}. Its log says why: {settings.log_file}")
    answer = json.loads(line)
    if "error" in answer:
        raise Failure(answer["error"], Exit(answer["status"]))
    click.echo(answer["ready"])


def _serve(settings: Settings, kernel: bool, report_to: int | None) -> None:
    from realmfs import daemon
    from realmfs.host import process

    report = _Reporter(report_to)
    process.keep_secrets()
    process.raise_file_limit()
    try:
        process.log_to(None if report_to is None else settings.log_file, settings.log_level)
        if report_to is not None:
            os.chdir("/")
        daemon.run(settings, report.ready, kernel=kernel)
    except daemon.StartError as error:
        report.failed(str(error))
        raise Failure(str(error)) from None
    except Exception as error:
        report.failed(f"the daemon failed ({error!r}). Its log has the details: {settings.log_file}")
        raise


class _Reporter:
    """Tells whoever started us, once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def ready(self, where: str) -> None:
        from realmfs.host.process import tell_service_manager

        tell_service_manager("READY=1")
        if self._descriptor is None:
            click.echo(where, err=True)
        self._send({"ready": where})

    def failed(self, text: str) -> None:
        self._send({"error": text, "status": int(Exit.FAILED)})

    def _send(self, message: dict[str, Any]) -> None:
        if self._descriptor is not None:
            with open(self._descriptor, "wb") as pipe:
                pipe.write(json.dumps(message).encode() + b"\n")
            self._descriptor = None
