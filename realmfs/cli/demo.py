"""`realmfs demo`."""

import signal
from types import FrameType

import click

from realmfs.cli.failure import Failure
from realmfs.cli.stage import Stage, StageError
from realmfs.cli.tour import Tour
from realmfs.control.client import NoDaemonError
from realmfs.control.protocol import ControlError
from realmfs.fuse.mountpoint import obstacle


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise StageError("the tour took longer than --time-limit")


def _ended(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command()
@click.option("--keep", is_flag=True, help="Leave the files and logs of all programs behind.")
@click.option("--no-tui", is_flag=True, help="Text only (what this version always does).")
@click.option("--no-kernel", is_flag=True, help="Take the tour over the control socket, without a mount.")
@click.option("--time-limit", default=300, show_default=True, help="Seconds after which to give up.")
def command(keep: bool, no_tui: bool, no_kernel: bool, time_limit: int) -> None:
    """A small realm with Python's standard library in it, a mount, and a tour through them.

    Nothing is left behind, and nothing of yours is touched: it all happens in a temporary directory.
    """
    reason = obstacle()
    if reason is not None and not no_kernel:
        click.echo(f"Without a mount: {reason}.\nThe tour goes over the control socket instead.")
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGHUP, _ended)
    stage = Stage()
    try:
        signal.alarm(time_limit)
        Tour(stage, kernel=reason is None and not no_kernel).take()
    except (StageError, NoDaemonError, ControlError, OSError) as error:
        _show_logs(stage)
        raise Failure(f"the tour ended early: {error}") from error
    except KeyboardInterrupt:
        raise Failure("broken off") from None
    finally:
        signal.alarm(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # nothing may break off the taking down
        stage.close(keep=keep)
        if keep:
            click.echo(f"\nFiles and logs are in {stage.room}")
    click.echo("\nThat was the tour. Everything is taken down again.")


def _show_logs(stage: Stage) -> None:
    """Print the ends of the logs before they go."""
    for log in stage.logs():
        text = log.read_text(errors="replace").strip()
        click.echo(f"--- {log.relative_to(stage.room)}\n{text[-1500:]}", err=True)
