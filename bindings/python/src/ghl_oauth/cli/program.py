"""The program: argument parsing, error reporting and signals."""

from __future__ import annotations

import argparse
import os
import sys
from functools import cache

from .._configuration import PATH_VARIABLE, SECRET_VARIABLE
from .._library import abi_version, library_version
from ..errors import GhlError
from . import output, status
from .commands import COMMANDS
from .session import Terminated, terminable

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from .commands import Command, Module

_DESCRIPTION = "OAuth 2.0 client for the GoHighLevel API that keeps tokens valid."

_EPILOG = f"""\
first steps:
  ghl-oauth init, ghl-oauth doctor, ghl-oauth login --paste, ghl-oauth list, ghl-oauth token ID

configuration:
  A JSON file with the library's keys (docs/configuration.md), the first of:
  --config, the environment variable {PATH_VARIABLE}, ~/.config/ghl-oauth/config.json.
  The client secret is the first of: the environment variable {SECRET_VARIABLE},
  the contents of the file "clientSecretFile", "clientSecret". Without "store", tokens are
  stored in tokens.db next to the configuration. Relative paths start at its folder.

exit status:
  0  success
  1  any error not listed below
  2  wrong command line or unusable configuration
  3  user consent is needed: run ghl-oauth login
  4  temporary error: the same command may succeed later
  5  the store did not save a new token, even after retries for some seconds: the token is
     lost when the command ends; stderr names the resource and says what to do
  6  some stored tokens cannot be read: stderr names them; the others were listed or exported
  130, 143  ended by Ctrl-C or SIGTERM
  If some tokens of a mint or maintain failed: 3 if one of them needs consent, 4 if all of
  them may succeed later, otherwise 1; a paused location is no failure unless it was named.
  An import that skipped every token: 1.
  The worst token determines the status of `status`, the worst finding that of `doctor`.
"""


_WITH_VALUE = ("--config", "--log-format")
"""The general options that have a value."""

_WIDTH = 78
"""The width of a command's description."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command-line arguments. Default: ``sys.argv[1:]``.

    Returns:
        The exit status.

    Raises:
        SystemExit: The arguments are wrong, or request the help or the version.
    """
    output.prepare()
    arguments = sys.argv[1:] if arguments is None else arguments
    output.messages_as_json = _wants_json(arguments)
    try:
        options = _parse(arguments)
    except output.Refusal as error:  # the help goes to a full disk
        output.show_error(error)
        output.discard_stdout()
        return error.exit_status
    except BrokenPipeError:
        output.discard_stdout()
        return status.ERROR
    if options.verbose or options.log_format:
        from . import logs

        logs.begin(sys.stderr, options.verbose, options.log_format == "json")
    exit_status = _run(options)
    unwritten = _flush()
    output.discard_unwritten()
    return exit_status if unwritten is None else unwritten


class _Parser(argparse.ArgumentParser):
    module: Module | None = None
    """The command's module; None for the program itself."""

    def format_help(self) -> str:
        if self.module is not None:
            import textwrap  # imported here because it is slow

            self.description = textwrap.fill(self.module.DESCRIPTION, _WIDTH)
            self.epilog = _examples(self.module.EXAMPLES)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Ends with the status of a wrong command line."""
        if not output.messages_as_json:
            super().error(message)
        output.show_error(output.Refusal(message, f"{self.prog} --help"))
        raise SystemExit(status.USAGE)

    def _print_message(self, message: str, file: Any = None) -> None:
        # The base class ignores a stream that cannot be written.
        if message and file is sys.stdout:
            output.put(message, end="")
        elif message:
            output.say(message.rstrip())


def _run(options: argparse.Namespace) -> int:
    try:
        with terminable():
            exit_status: int = options.command(options)
        return exit_status
    except GhlError as error:
        output.show_error(error)
        return status.of(error)
    except output.Refusal as error:
        output.show_error(error)
        return error.exit_status
    except output.Unsaved as unsaved:
        if isinstance(unsaved.__cause__, (GhlError, output.Refusal)):
            output.show_error(unsaved.__cause__)
        for lost in unsaved.errors:
            output.show_error(lost)
        return status.UNSAVED
    except KeyboardInterrupt:
        return status.INTERRUPTED
    except Terminated:
        return 143
    except BrokenPipeError:
        output.discard_stdout()
        return status.ERROR


def _flush() -> int | None:
    """Writes what is left in stdout. Returns the exit status if that fails."""
    if sys.stdout is None:
        return None
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        output.show_error(output.Refusal(f"stdout cannot be written: {error.strerror}"))
    else:
        return None
    output.discard_stdout()
    return status.ERROR


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether ``--json`` is given, as far as that is known of a command line that may be wrong."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(len(each) > 2 and "--json".startswith(each) for each in options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    named = _named_command(arguments)
    known = [each for each in COMMANDS if named in (each.name, *each.aliases)]
    if named is not None and not known:
        every = [name for each in COMMANDS for name in (each.name, *each.aliases)]
        _refuse(f"unknown command {named!r}", named, every, "ghl-oauth --help")
    parser = make_parser(known[0] if known and not _asks_for_help(arguments, named) else None)
    options, unknown = parser.parse_known_args(
        arguments, argparse.Namespace(config=None, json=False, verbose=0, log_format=None)
    )
    if unknown:
        kind = "option" if unknown[0].startswith("-") else "argument"
        every = [
            option
            for action in (*parser._actions, *options.parser._actions)
            for option in action.option_strings
        ]
        _refuse(
            f"unknown {kind} {unknown[0]!r}",
            unknown[0].partition("=")[0],
            every,
            f"{options.parser.prog} --help",
        )
    return options


def _refuse(message: str, word: str, every: Sequence[str], help_command: str) -> NoReturn:
    """Ends with the status of a wrong command line, and suggests what may have been meant."""
    from difflib import get_close_matches  # imported here because it is slow

    close = get_close_matches(word, sorted(set(every)), n=2)
    suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
    output.show_error(output.Refusal(f"{message}{suggestion}", help_command))
    raise SystemExit(status.USAGE)


@cache
def _width() -> int:
    """The width of the help. The function of :mod:`shutil` that argparse uses is slow to import."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns) - 2
    try:
        return os.get_terminal_size(1).columns - 2
    except (OSError, ValueError):
        return _WIDTH


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": _width(), **options})


def make_parser(only: Command | None = None) -> argparse.ArgumentParser:
    """Creates the argument parser.

    Args:
        only: The only command that it knows. Default: every command.
    """
    # Accepted before and after the command; a default after it must not override an earlier value.
    general = _Parser(add_help=False, formatter_class=_Formatter)
    absent = argparse.SUPPRESS
    general.add_argument("--config", metavar="FILE", default=absent, help="the configuration file")
    general.add_argument(
        "--json", action="store_true", default=absent, help="print results and errors as JSON"
    )
    general.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=absent,
        help="log to stderr as text or as JSON lines; without -v only warnings and errors",
    )
    general.add_argument(
        "-v", "--verbose", action="count", default=absent, help="log to stderr; -vv: also requests"
    )

    parser = _Parser(
        prog="ghl-oauth",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Formatter,
        parents=[general],
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"ghl-oauth {library_version()} (ABI {abi_version()})",
    )
    every = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="ghl-oauth"
    )
    for command in COMMANDS if only is None else (only,):
        one = every.add_parser(
            command.name,
            help=command.summary,
            aliases=command.aliases,
            parents=[general],
            formatter_class=_Formatter,
        )
        module = command.load()
        one.module = module
        module.arguments(one)
        one.set_defaults(command=module.run, parser=one)
    return parser


def _examples(lines: Sequence[str]) -> str:
    title = "example" if len(lines) == 1 else "examples"
    return f"{title}:\n" + "\n".join(f"  {line}" for line in lines)


def _asks_for_help(arguments: Sequence[str], named: str | None) -> bool:
    """Whether an option before the command may ask for the help of the program."""
    before = arguments[: arguments.index(named)] if named in arguments else arguments
    return any("h" in option.partition("=")[0] for option in before if option.startswith("-"))


def _named_command(arguments: Sequence[str]) -> str | None:
    """The command in a command line: its first argument that is no option nor an option's value."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            return argument
        # argparse accepts unique beginnings of an option.
        if len(argument) > 2 and any(option.startswith(argument) for option in _WITH_VALUE):
            next(rest, None)
    return None
