"""``ghl-oauth completion``: prints a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse

from .. import output, shells, status

DESCRIPTION = (
    "Prints a script that completes the commands and options of ghl-oauth in bash, zsh or fish."
)
EXAMPLES = (
    "ghl-oauth completion bash > ~/.local/share/bash-completion/completions/ghl-oauth",
    "ghl-oauth completion zsh > ~/.zfunc/_ghl-oauth  # a folder of $fpath",
    "ghl-oauth completion fish > ~/.config/fish/completions/ghl-oauth.fish",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "shell", choices=sorted(shells.SCRIPTS), metavar="SHELL", help="bash, zsh or fish"
    )


def run(options: argparse.Namespace) -> int:
    """Prints the script."""
    from ..program import make_parser  # which imports every command

    output.put(shells.SCRIPTS[options.shell](make_parser()), end="")
    return status.OK
