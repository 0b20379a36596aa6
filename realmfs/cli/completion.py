"""`realmfs completion`."""

import click
from click.shell_completion import get_completion_class

from realmfs.cli.failure import Failure

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    Put it where the shell looks: for bash ~/.local/share/bash-completion/completions/realmfs, for zsh a file
    _realmfs in a directory of $fpath, for fish ~/.config/fish/completions/realmfs.fish.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"click knows no completion for {shell}. Use another shell, or update click")
    script = kind(context.find_root().command, {}, "realmfs", "_REALMFS_COMPLETE")
    click.echo(script.source_template % script.source_vars())
