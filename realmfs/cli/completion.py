"""`realmfs completion`."""

import click
from click.shell_completion import get_completion_class

from realmfs.cli.failure import Failure

_SHELLS = ("bash", "zsh", "fish")
_IN_DIRECTORIES = {
    "bash": ("    return 0\n", "    [[ ${COMPREPLY[0]} == */ ]] && compopt -o nospace\n    return 0\n"),
    "zsh": (
        "        compadd -U",
        "        local -a end; [[ $completions[1] == */ ]] && end=(-S '')\n        compadd \"${end[@]}\" -U",
    ),
}
"""What click's scripts lack: behind a directory comes no space, but the next name."""


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
    source = script.source_template % script.source_vars()
    click.echo(source.replace(*_IN_DIRECTORIES[shell]) if shell in _IN_DIRECTORIES else source)
