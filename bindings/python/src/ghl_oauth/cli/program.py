"""The program: argument parsing, error reporting and signals."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import textwrap
from collections.abc import Sequence

from .._library import abi_version, library_version
from ..errors import GhlError
from . import output, status
from .commands import COMMANDS
from .configuration import PATH_VARIABLE, SECRET_VARIABLE
from .session import Terminated, terminable

_DESCRIPTION = "OAuth 2.0 client for the GoHighLevel API that keeps tokens valid."

_EPILOG = f"""\
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
  them may succeed later, otherwise 1. An import that skipped every token: 1.
"""


_WITH_VALUE = ("--config",)
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
    arguments = sys.argv[1:] if arguments is None else arguments
    named = _named_command(arguments)
    known = [each.name for each in COMMANDS if named in (each.name, *each.aliases)]
    options = make_parser(known or None).parse_args(
        arguments, argparse.Namespace(config=None, json=False, verbose=0)
    )
    if options.verbose:
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.INFO if options.verbose == 1 else logging.DEBUG,
            format="%(asctime)s %(levelname)s %(message)s",
        )
    try:
        with terminable():
            exit_status: int = options.command(options)
            sys.stdout.flush()
        return exit_status
    except GhlError as error:
        output.show_error(error, options.json)
        return status.of(error)
    except output.Refusal as error:
        output.show_error(error, options.json)
        return error.exit_status
    except output.Unsaved as unsaved:
        if isinstance(unsaved.__cause__, (GhlError, output.Refusal)):
            output.show_error(unsaved.__cause__, options.json)
        for lost in unsaved.errors:
            output.show_error(lost, options.json)
        return status.UNSAVED
    except KeyboardInterrupt:
        return status.INTERRUPTED
    except Terminated:
        return 143
    except BrokenPipeError:
        # The reader closed the pipe; redirect stdout, so that Python's final flush does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status.ERROR


def make_parser(only: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Creates the argument parser.

    Args:
        only: The commands whose modules are imported; the others have only their line in the help.
            Default: every command.
    """
    # Accepted before and after the command; a default after it must not override an earlier value.
    general = argparse.ArgumentParser(add_help=False)
    absent = argparse.SUPPRESS
    general.add_argument("--config", metavar="FILE", default=absent, help="the configuration file")
    general.add_argument(
        "--json", action="store_true", default=absent, help="print results and errors as JSON"
    )
    general.add_argument(
        "-v", "--verbose", action="count", default=absent, help="log to stderr; -vv: also requests"
    )

    parser = argparse.ArgumentParser(
        prog="ghl-oauth",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[general],
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"ghl-oauth {library_version()} (ABI {abi_version()})",
    )
    every = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        one = every.add_parser(
            command.name,
            help=command.summary,
            aliases=command.aliases,
            parents=[general],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only is None or command.name in only:
            module = command.load()
            one.description = textwrap.fill(module.DESCRIPTION, _WIDTH)
            one.epilog = _examples(module.EXAMPLES)
            module.arguments(one)
            one.set_defaults(command=module.run)
    return parser


def _examples(lines: Sequence[str]) -> str:
    title = "example" if len(lines) == 1 else "examples"
    return f"{title}:\n" + "\n".join(f"  {line}" for line in lines)


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
