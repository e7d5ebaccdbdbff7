"""The program: argument parsing, error reporting and signals."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from .._configuration import PATH_VARIABLE, SECRET_VARIABLE
from .._library import abi_version, library_version
from ..errors import GhlError
from . import commands, doctor, output, status
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command-line arguments. Default: ``sys.argv[1:]``.

    Returns:
        The exit status.

    Raises:
        SystemExit: The arguments are wrong, or request the help or the version.
    """
    options = make_parser().parse_args(
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


def make_parser() -> argparse.ArgumentParser:
    """Creates the argument parser."""
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

    def add(
        name: str,
        command: object,
        help_text: str,
        description: str = "",
        aliases: Sequence[str] = (),
    ) -> argparse.ArgumentParser:
        one = every.add_parser(
            name,
            help=help_text,
            description=description or help_text,
            aliases=aliases,
            parents=[general],
        )
        one.set_defaults(command=command)
        return one

    login = add(
        "login",
        commands.login,
        "obtain user consent and store the token",
        "Prints the link to the consent page, waits for the redirect, and stores the token. It "
        "listens on a loopback port, which your HTTPS tunnel must forward to; with --paste, you "
        "paste the browser's address instead.",
    )
    how = login.add_mutually_exclusive_group()
    how.add_argument(
        "--port",
        type=_number(0, 65_535),
        help="the loopback port. Default: the port of the redirect URI",
    )
    how.add_argument(
        "--paste", action="store_true", help="read the browser's final address from stdin"
    )
    login.add_argument(
        "--timeout",
        type=_number(1, 3_600),
        default=300,
        metavar="SECONDS",
        help="how long to wait. Default: 300",
    )
    login.add_argument(
        "--scopes", type=_text, help="scopes, separated by spaces. Default: the configured ones"
    )
    login.add_argument(
        "--redirect-uri",
        type=_text,
        metavar="URI",
        help="redirect URI. Default: the configured one",
    )
    login.add_argument(
        "--version-id",
        type=_text,
        metavar="ID",
        help="the app's version; a private app may need it",
    )
    login.add_argument(
        "--user-type", choices=("Company", "Location"), help="the requested type of token"
    )

    token = add(
        "token",
        commands.token,
        "print a valid access token and nothing else",
        "Prints a valid access token on stdout and nothing else. The token is refreshed or minted "
        "if necessary.",
    )
    token.add_argument(
        "resource", type=_text, metavar="RESOURCE", help="the ID of a company or location"
    )

    tokens = add(
        "list",
        commands.list_tokens,
        "list the stored tokens without their secrets",
        aliases=["tokens"],
    )
    _filters(tokens)

    locations = add("locations", commands.locations, "list a company's locations")
    locations.add_argument("company", type=_text, metavar="COMPANY", help="the company's ID")
    locations.add_argument("--query", type=_text, metavar="TEXT", help="part of a location's name")
    which = locations.add_mutually_exclusive_group()
    which.add_argument(
        "--installed", action="store_true", default=None, help="only locations with the app"
    )
    which.add_argument(
        "--not-installed",
        dest="installed",
        action="store_false",
        help="only locations without the app",
    )

    mint = add(
        "mint",
        commands.mint,
        "mint tokens for a company's locations",
        "Mints a token for each location where the app is installed, or for the given ones, as "
        "fast as the rate limit allows. Tokens that are not due are skipped, so a second run "
        "resumes where the first ended.",
    )
    mint.add_argument("company", type=_text, metavar="COMPANY", help="the company's ID")
    mint.add_argument(
        "location", type=_text, nargs="*", metavar="LOCATION", help="only these locations"
    )
    mint.add_argument("--force", action="store_true", help="also mint tokens that are not due")
    mint.add_argument(
        "--concurrency", type=_number(1, 64), metavar="N", help="concurrent requests. Default: 8"
    )

    refresh = add("refresh", commands.refresh, "refresh a token now, even if it is not due")
    refresh.add_argument(
        "resource", type=_text, metavar="RESOURCE", help="the ID of a company or location"
    )

    delete = add("delete", commands.delete, "delete a token after confirmation")
    delete.add_argument(
        "resource", type=_text, metavar="RESOURCE", help="the ID of a company or location"
    )
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")

    maintain = add(
        "maintain",
        commands.maintain,
        "refresh the tokens that are due; for a scheduler",
        "Refreshes the tokens that are due. Run it every few minutes from cron or a systemd timer.",
    )
    maintain.add_argument(
        "--company", type=_text, metavar="ID", help="only this company and its locations"
    )
    maintain.add_argument(
        "--concurrency", type=_number(1, 64), metavar="N", help="concurrent refreshes. Default: 1"
    )

    importing = add(
        "import",
        commands.import_tokens,
        "import tokens from a file",
        "Imports tokens from a file that `export` wrote, or from JSON in the format of the API or "
        "the vendor's SDKs.",
    )
    importing.add_argument("file", metavar="FILE", help="the file; - for stdin")
    importing.add_argument(
        "--replace", action="store_true", help="allow an older token to replace a newer one"
    )

    adopt = add(
        "adopt",
        commands.adopt,
        "move the tokens of another client id in the same database to this one",
        "After a key rotation the app has a new client id, under which the database looks empty. "
        "This moves the tokens of the old client id to the configured one. Stop the programs that "
        "use the old one first. A token that is already stored under the new client id stays. "
        "Without --from, the client ids that have tokens are listed.",
    )
    adopt.add_argument(
        "--from", dest="client", type=_text, metavar="CLIENT_ID", help="the old client id"
    )
    adopt.add_argument("--resource", type=_text, metavar="ID", help="only this company or location")
    adopt.add_argument("--dry-run", action="store_true", default=None, help="only report")

    export = add(
        "export",
        commands.export_tokens,
        "export the tokens with their secrets",
        "Writes the tokens with their secrets, in the format that `import` reads. Refresh tokens "
        "are single-use: only one program may continue to use them.",
    )
    export.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="a new file with mode 0600; - for stdout",
    )
    _filters(export)

    add(
        "doctor",
        doctor.run,
        "find problems and say how to fix them",
        "Checks the configuration, library, store, network, clock, API version and tokens.",
    )
    return parser


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--company", type=_text, metavar="ID", help="only this company and its locations"
    )
    parser.add_argument("--type", choices=("Company", "Location"), help="only tokens of this type")


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("not UTF-8") from None
    return value


def _number(least: int, most: int) -> type:
    class Number(int):
        """An integer in a range; argparse uses the class name in its error message."""

        def __new__(cls, value: str) -> Number:
            number = super().__new__(cls, value)
            if not least <= number <= most:
                raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
            return number

    Number.__name__ = "number"
    return Number
