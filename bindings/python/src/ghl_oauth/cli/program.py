"""The program: its command line, and what becomes of errors and signals."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from .._library import abi_version, library_version
from ..errors import GhlError
from . import commands, doctor, output, status
from .configuration import PATH_VARIABLE, SECRET_VARIABLE
from .session import Terminated, terminable

_DESCRIPTION = "OAuth 2.0 access to the GoHighLevel API that is never lost."

_EPILOG = f"""\
configuration:
  A JSON file with the library's keys (docs/configuration.md), the first of:
  --config, the environment variable {PATH_VARIABLE}, ~/.config/ghl-oauth/config.json.
  The client's secret: the environment variable {SECRET_VARIABLE}, else the file
  that "clientSecretFile" names, else "clientSecret". Without "store", tokens are kept in
  tokens.db beside the configuration. Relative paths begin at the configuration's folder.

exit status:
  0  done
  1  an error of another kind than these
  2  a wrong command line, or a configuration that cannot be used
  3  a person must consent: ghl-oauth login
  4  an error that the same command may not meet later
  5  the store did not take a new token, also when it was offered again for some seconds:
     the token is lost with the command; stderr names the resource and says what to do
  6  some stored tokens cannot be read: stderr names them, the others were listed or exported
  130, 143  ended by Ctrl-C, by SIGTERM
  A mint or a maintenance of which some tokens failed: 3 where one of them needs consent,
  else 4 where all of them may succeed later, else 1. An import that skipped every token: 1.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: What follows the program's name. Default: what it was started with.

    Returns:
        The exit status.

    Raises:
        SystemExit: The command line is wrong, or asks for help.
    """
    options = make_parser().parse_args(arguments, argparse.Namespace(config=None, json=False, verbose=0))
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
        # Who read the output has gone; Python must not complain at its end that it cannot write the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status.ERROR


def make_parser() -> argparse.ArgumentParser:
    """What is understood, and the help."""
    # Understood before the command and after it; a default there must not undo what was said before.
    general = argparse.ArgumentParser(add_help=False)
    absent = argparse.SUPPRESS
    general.add_argument("--config", metavar="FILE", default=absent, help="the configuration")
    general.add_argument("--json", action="store_true", default=absent, help="results and errors as JSON")
    general.add_argument("-v", "--verbose", action="count", default=absent, help="the log on stderr; -vv: more")

    parser = argparse.ArgumentParser(
        prog="ghl-oauth",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[general],
    )
    parser.add_argument("--version", action="version", version=f"ghl-oauth {library_version()} (ABI {abi_version()})")
    every = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: object, help_text: str, description: str = "", aliases: Sequence[str] = ()
    ) -> argparse.ArgumentParser:
        one = every.add_parser(
            name, help=help_text, description=description or help_text, aliases=aliases, parents=[general]
        )
        one.set_defaults(command=command)
        return one

    login = add(
        "login",
        commands.login,
        "let a person consent, and store the token",
        "Prints the link to the consent page, waits for the browser that comes back, and stores the token. The browser "
        "is waited for on a loopback port, to which your HTTPS tunnel leads; with --paste you copy its address.",
    )
    how = login.add_mutually_exclusive_group()
    how.add_argument("--port", type=_number(0, 65_535), help="the loopback port. Default: the redirect URI's")
    how.add_argument("--paste", action="store_true", help="read the address where the browser ended up from stdin")
    login.add_argument(
        "--timeout", type=_number(1, 3_600), default=300, metavar="SECONDS", help="how long to wait. Default: 300"
    )
    login.add_argument("--scopes", type=_text, help="separated by spaces. Default: the configured ones")
    login.add_argument("--redirect-uri", type=_text, metavar="URI", help="Default: the configured one")
    login.add_argument("--version-id", type=_text, metavar="ID", help="the app's version; a private app may need it")
    login.add_argument("--user-type", choices=("Company", "Location"), help="the kind of token that is wanted")

    token = add(
        "token",
        commands.token,
        "print a live access token, and nothing else",
        "Prints a live access token, renewed or minted if need be, on stdout, and nothing else.",
    )
    token.add_argument("resource", type=_text, metavar="RESOURCE", help="a company's or location's id")

    tokens = add("list", commands.list_tokens, "list the stored tokens, without secrets", aliases=["tokens"])
    _filters(tokens)

    locations = add("locations", commands.locations, "list a company's locations")
    locations.add_argument("company", type=_text, metavar="COMPANY", help="the company's id")
    locations.add_argument("--query", type=_text, metavar="TEXT", help="part of a location's name")
    which = locations.add_mutually_exclusive_group()
    which.add_argument("--installed", action="store_true", default=None, help="only those that have the app")
    which.add_argument("--not-installed", dest="installed", action="store_false", help="only those that have it not")

    mint = add(
        "mint",
        commands.mint,
        "mint tokens for a company's locations",
        "Mints a token for each location where the app is installed, or for those that are named, as fast as the rate "
        "limit allows. Those whose token is not due are left alone, so a second run goes on where the first ended.",
    )
    mint.add_argument("company", type=_text, metavar="COMPANY", help="the company's id")
    mint.add_argument("location", type=_text, nargs="*", metavar="LOCATION", help="only these")
    mint.add_argument("--force", action="store_true", help="also where the token is not due")
    mint.add_argument("--concurrency", type=_number(1, 64), metavar="N", help="requests at once. Default: 8")

    refresh = add("refresh", commands.refresh, "renew a token now, whatever the clock says")
    refresh.add_argument("resource", type=_text, metavar="RESOURCE", help="a company's or location's id")

    delete = add("delete", commands.delete, "delete a token, after asking")
    delete.add_argument("resource", type=_text, metavar="RESOURCE", help="a company's or location's id")
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")

    maintain = add(
        "maintain",
        commands.maintain,
        "renew what is due; for a scheduler, every few minutes",
        "One pass over the tokens that are due. Run it every few minutes, by cron or a systemd timer.",
    )
    maintain.add_argument("--company", type=_text, metavar="ID", help="only this company and its locations")
    maintain.add_argument("--concurrency", type=_number(1, 64), metavar="N", help="renewals at once. Default: 1")

    importing = add(
        "import",
        commands.import_tokens,
        "take over tokens from a file",
        "Takes over tokens that were granted elsewhere: a file that `export` wrote, or JSON with the tokens as the API "
        "or the vendor's SDKs have them.",
    )
    importing.add_argument("file", metavar="FILE", help="the file; - for stdin")
    importing.add_argument("--replace", action="store_true", help="let an older token replace a newer one")

    export = add(
        "export",
        commands.export_tokens,
        "write the tokens with their secrets",
        "Writes the tokens with their secrets, in the form that `import` reads. A refresh token works once: of two "
        "programs that use the same one, one loses.",
    )
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="a new file, of mode 0600; - for stdout")
    _filters(export)

    add(
        "doctor",
        doctor.run,
        "look for what is wrong, and say what to do",
        "Checks the configuration, the library, the store, the network, the clock, the API's version and the tokens.",
    )
    return parser


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--company", type=_text, metavar="ID", help="only this company and its locations")
    parser.add_argument("--type", choices=("Company", "Location"), help="only tokens of this kind")


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    return value


def _number(least: int, most: int) -> type:
    class Number(int):
        """An integer in a range; argparse names it in its complaint."""

        def __new__(cls, value: str) -> Number:
            number = super().__new__(cls, value)
            if not least <= number <= most:
                raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
            return number

    Number.__name__ = "number"
    return Number
