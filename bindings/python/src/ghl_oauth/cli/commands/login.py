"""``ghl-oauth login``: obtains user consent."""

from __future__ import annotations

import argparse
from typing import Any

from ...errors import InvalidArgument, StateMismatch
from .. import output, pending, report, status
from ..arguments import number, text
from ..output import Refusal, say
from ..session import Session

DESCRIPTION = (
    "Prints the link to the consent page, waits for the redirect, and stores the token. It "
    "listens on a loopback port, which your HTTPS tunnel must forward to; with --paste, you "
    "paste the browser's address instead."
)
EXAMPLES = (
    "ghl-oauth login --port 8080  # a tunnel forwards the redirect URI to this port",
    "ghl-oauth login --paste  # without a tunnel: copy the address from the browser",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--port",
        type=number(0, 65_535),
        help="the loopback port. Default: the port of the redirect URI",
    )
    how.add_argument(
        "--paste", action="store_true", help="read the browser's final address from stdin"
    )
    parser.add_argument(
        "--timeout",
        type=number(1, 3_600),
        default=300,
        metavar="SECONDS",
        help="how long to wait. Default: 300",
    )
    parser.add_argument(
        "--scopes", type=text, help="scopes, separated by spaces. Default: the configured ones"
    )
    parser.add_argument(
        "--redirect-uri",
        type=text,
        metavar="URI",
        help="redirect URI. Default: the configured one",
    )
    parser.add_argument(
        "--version-id",
        type=text,
        metavar="ID",
        help="the app's version; a private app may need it",
    )
    parser.add_argument(
        "--user-type", choices=("Company", "Location"), help="the requested type of token"
    )


def run(options: argparse.Namespace) -> int:
    """Prints the link, and waits for the redirect or a pasted address."""
    with Session.begin(options.config) as session:
        _consent(session, options)
    return status.OK


def _consent(session: Session, options: argparse.Namespace) -> None:
    if session.configuration.store_kind == "memory":
        output.warn("the store is in memory: the token is lost when this command ends")
    link = session.client.authorization_url(
        scopes=options.scopes, redirect_uri=options.redirect_uri, version_id=options.version_id
    )
    client_id = str(session.configuration.document.get("clientId"))
    pending.remember(client_id, link.state, options.redirect_uri)
    say(f"Open this link in a browser and give consent:\n\n  {link.url}\n")
    usual: dict[str, Any] = {
        "state": link.state,
        "redirect_uri": options.redirect_uri,
        "user_type": options.user_type,
    }
    if options.paste:
        say("Then paste the complete address to which the browser was redirected, and press Enter:")
        redirect_url = output.stdin().readline().strip()
        if not redirect_url:
            raise Refusal(
                "no address was pasted",
                "run the command again and paste the address; this link is valid for one hour",
            )
        state = pending.state_of(redirect_url)
        earlier = None if state in (None, link.state) else pending.find(client_id, str(state))
        if earlier is not None:
            say("This is the answer to an earlier link.")
            usual["state"] = earlier["state"]
            usual["redirect_uri"] = options.redirect_uri or earlier["redirectUri"]
        try:
            info = session.run(lambda client: client.authorization_complete(redirect_url, **usual))
        except StateMismatch as error:
            error.help = (
                "paste the address that followed the link above; a link of an earlier run works "
                "for one hour, once, for the same user on the same computer"
            )
            raise
        pending.forget(usual["state"])
    else:
        try:
            say(
                f"Waiting for the browser, at most {output.duration(options.timeout)}; press "
                "Ctrl-C to stop."
            )
            info = session.run(
                lambda client: client.authorization_listen(
                    port=options.port, timeout=options.timeout, **usual
                )
            )
        except InvalidArgument as error:
            if error.parameter == "port":
                error.help = (
                    "set --port to a free port that your HTTPS tunnel forwards to, or use --paste"
                )
            raise
        pending.forget(link.state)
    report.show_token(info, options)
