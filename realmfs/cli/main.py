"""Entry point of the command `realmfs`.

Each sub-command is a module of this package with a click command named `command`. The table below is all
that is known of them beforehand, so that `realmfs --help` imports none and a command only itself.
"""

import importlib
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from realmfs import __version__

COMMANDS = {
    "demo": "A small realm, a mount, and a tour through them.",
    "mount": "Start the daemon and mount the tree.",
    "unmount": "Stop the daemon; tells what is still pending.",
    "status": "The daemon, its cache and its servers at a glance.",
    "realms": "List the realms ever reached.",
    "servers": "List the servers, and who is up.",
    "volumes": "List the volumes known here.",
    "whereis": "Tell which servers hold an object.",
    "stat": "Tell all that is known about an object.",
    "path": "Tell where an object is, by its fid.",
    "ls": "List a directory, without a mount.",
    "find": "List what is in conflict, mounted, not cached, changed... below a directory.",
    "cat": "Print files, without a mount.",
    "get": "Copy a file out of the tree, without a mount.",
    "put": "Copy a file into the tree, without a mount.",
    "mkdir": "Make directories, without a mount.",
    "rm": "Remove files and directories, without a mount.",
    "login": "Log in to a realm.",
    "logout": "Log out of a realm, or of all.",
    "tokens": "Show where you are logged in, and for how long.",
    "passwd": "Change a password in a realm.",
    "acl": "Show or set who may do what in a directory.",
    "mountpoint": "Make, show and remove mount points of volumes.",
    "quota": "Show or set how much a volume may hold.",
    "changes": "Show the changes that wait to be sent, or send them now.",
    "disconnect": "Go off line by hand, in a realm or everywhere.",
    "reconnect": "Be on line again.",
    "conflicts": "Show and settle conflicts.",
    "wait": "Let your programs wait for servers for ever, or no more.",
    "writeback": "Set when changes are sent.",
    "hoard": "Say what must be here when the servers are away.",
    "cache": "Show, fill, drop and limit what is cached.",
    "reset": "Empty the cache of a daemon that does not run.",
    "events": "Watch what the daemon does.",
    "tui": "Browse, hoard, and watch what waits, in the terminal.",
    "serve": "Serve an embedded realm.",
    "admin": "Administer the users and volumes of an embedded realm.",
    "metrics": "Print what the daemon counts, for Prometheus.",
    "doctor": "Look for what is wrong on this machine, and tell what to do.",
    "completion": "Print the completion script for a shell.",
    "config": "Show the settings in effect and where they come from.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"realmfs.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the names in the table, without importing the commands."""
        fitting = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name]) for name in fitting] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name close to one is suggested."""
        import difflib

        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            ctx.fail(f"there is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what went wrong into a text and an exit status."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            from realmfs.cli.failure import failure_of

            failure = failure_of(error)
            if failure is None:
                raise
            raise failure from error


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="realmfs")
def main() -> None:
    """Mount Coda realms, with or without a network."""


if __name__ == "__main__":
    sys.exit(main())
