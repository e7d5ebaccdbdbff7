"""The commands, each in a module of its own, which is imported only when it is needed.

A command's module has ``DESCRIPTION``, ``EXAMPLES``, ``arguments`` and ``run``: see
:class:`Module`. A new command needs its module, a line in :data:`COMMANDS`, and lines in
``docs/python.md`` and ``docs/man/ghl-oauth.1``.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any, Protocol

    class Module(Protocol):
        """What a command's module contains."""

        DESCRIPTION: str
        """The first paragraph of its help."""
        EXAMPLES: Sequence[str]
        """Complete command lines, each optionally followed by two spaces, ``#`` and a remark."""

        def arguments(self, parser: argparse.ArgumentParser) -> None:
            """Adds the command's own arguments."""

        def run(self, options: argparse.Namespace) -> int:
            """Runs the command. Returns the exit status."""
            ...


class Command:
    """A command's line in the help."""

    def __init__(self, name: str, module: str, summary: str, aliases: tuple[str, ...] = ()) -> None:
        self.name = name
        self.module = module
        self.summary = summary
        self.aliases = aliases

    def load(self) -> Module:
        """Imports the command's module."""
        imported: Any = import_module(f".{self.module}", __name__)
        module: Module = imported
        return module


COMMANDS = (
    Command("init", "init", "write a configuration file with explanations"),
    Command("login", "login", "obtain user consent and store the token"),
    Command("status", "status", "sum up the stored tokens; for scripts with --json"),
    Command("doctor", "doctor", "find problems and say how to fix them"),
    Command("list", "list_tokens", "list the stored tokens without their secrets", ("tokens",)),
    Command("token", "token", "print a valid access token and nothing else"),
    Command("locations", "locations", "list a company's locations"),
    Command("mint", "mint", "mint tokens for a company's locations"),
    Command("refresh", "refresh", "refresh a token now, even if it is not due"),
    Command("delete", "delete", "delete a token after confirmation"),
    Command("maintain", "maintain", "refresh the tokens that are due; for a scheduler"),
    Command("import", "import_tokens", "import tokens from a file"),
    Command(
        "adopt", "adopt", "move the tokens of another client id in the same database to this one"
    ),
    Command("export", "export_tokens", "export the tokens with their secrets"),
    Command("metrics", "metrics", "print metrics of the stored tokens for Prometheus"),
    Command("completion", "completion", "print a completion script for bash, zsh or fish"),
)
