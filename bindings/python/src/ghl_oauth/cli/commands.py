"""The commands of the command line. Each returns an exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from ..client import Client
from ..errors import GhlError, InvalidArgument
from ..models import FailedToken, TokenInfo
from . import output, status
from .output import Refusal, say
from .session import Session

_IMPORT_HELP = "use a file that `ghl-oauth export` wrote, or a JSON list"


def login(options: argparse.Namespace) -> int:
    """Prints the link, and waits for the redirect or a pasted address."""
    with Session.begin(options.config) as session:
        _consent(session, options)
    return status.OK


def _consent(session: Session, options: argparse.Namespace) -> None:
    if session.configuration.store_kind == "memory":
        say("ghl-oauth: warning: the store is in memory: the token is lost when this command ends")
    link = session.client.authorization_url(
        scopes=options.scopes, redirect_uri=options.redirect_uri, version_id=options.version_id
    )
    say(f"Open this link in a browser and give consent:\n\n  {link.url}\n")
    usual: dict[str, Any] = {
        "state": link.state,
        "redirect_uri": options.redirect_uri,
        "user_type": options.user_type,
    }
    if options.paste:
        say("Then paste the complete address to which the browser was redirected, and press Enter:")
        redirect_url = sys.stdin.readline().strip()
        if not redirect_url:
            raise Refusal(
                "no address was pasted", "run the command again; a link is valid for one hour"
            )
        info = session.run(lambda client: client.authorization_complete(redirect_url, **usual))
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
    _show_token(info, options)


def token(options: argparse.Namespace) -> int:
    """Prints a valid access token and nothing else."""
    with Session.begin(options.config) as session:
        print(session.run(lambda client: client.access_token(options.resource)), flush=True)
    return status.OK


def list_tokens(options: argparse.Namespace) -> int:
    """Lists the stored tokens."""

    def fetch(client: Client) -> tuple[list[TokenInfo], Sequence[FailedToken]]:
        pages = client.tokens_list(
            company_id=options.company, user_type=options.type, page_size=1000
        )
        return list(pages), pages.failed

    with Session.begin(options.config) as session:
        tokens, failed = session.run(fetch)
        output.show_tokens(tokens, options.json)
    return _unreadable(failed, options)


def locations(options: argparse.Namespace) -> int:
    """Lists a company's locations."""
    with Session.begin(options.config) as session:
        found = session.run(
            lambda client: list(
                client.installed_locations(
                    options.company,
                    query=options.query,
                    is_installed=options.installed,
                    page_size=100,
                )
            )
        )
        if options.json:
            output.show_json([dict(location.raw) for location in found])
        else:
            words = {True: "yes", False: "no", None: "-"}
            output.show_table(
                ("LOCATION", "NAME", "INSTALLED", "ADDRESS"),
                (
                    (
                        location.id,
                        location.name or "-",
                        words[location.is_installed],
                        location.address or "-",
                    )
                    for location in found
                ),
            )
    return status.OK


def mint(options: argparse.Namespace) -> int:
    """Mints tokens for many locations."""
    bar = output.Bar()
    with Session.begin(options.config) as session:
        try:
            minting = session.run(
                lambda client: client.tokens_mint(
                    options.company,
                    options.location or None,
                    force=options.force,
                    concurrency=options.concurrency,
                    progress=bar,
                )
            )
        finally:
            bar.end()
        if options.json:
            output.show_json(dict(minting.raw))
        else:
            print(
                f"{minting.total} locations: {minting.minted} minted, {minting.fresh} not due, "
                f"{len(minting.failed)} failed"
            )
        return _failures(minting.failed, options)


def refresh(options: argparse.Namespace) -> int:
    """Refreshes a token now."""
    with Session.begin(options.config) as session:
        _show_token(session.run(lambda client: client.token_refresh(options.resource)), options)
    return status.OK


def delete(options: argparse.Namespace) -> int:
    """Deletes a token after confirmation."""
    with Session.begin(options.config) as session:
        if not options.yes:
            if not sys.stdin.isatty():
                raise Refusal(
                    "stdin is not a terminal",
                    "use --yes to delete without confirmation",
                    status.USAGE,
                )
            sys.stderr.write(
                f"Delete the token of {options.resource}? Only a new consent, or for a location a "
                "new mint, brings it back. [y/N] "
            )
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                say("Nothing was deleted.")
                return status.ERROR
        _show_token(session.run(lambda client: client.token_delete(options.resource)), options)
    return status.OK


def maintain(options: argparse.Namespace) -> int:
    """Refreshes the tokens that are due."""
    with Session.begin(options.config) as session:
        done = session.run(
            lambda client: client.tokens_maintain(
                company_id=options.company, concurrency=options.concurrency
            )
        )
        if options.json:
            output.show_json(dict(done.raw))
        else:
            due = output.moment(done.next_due_at, datetime.now(timezone.utc))
            sealing = ""
            if done.resealed or done.unsealed:
                sealing = f"; {done.resealed} resealed, {done.unsealed} not resealed"
            print(
                f"{done.checked} due: {done.refreshed} refreshed, {len(done.failed)} "
                f"failed{sealing}; next due {due}"
            )
        return _failures(done.failed, options)


def import_tokens(options: argparse.Namespace) -> int:
    """Imports tokens from a file."""
    try:
        if options.file == "-":
            text = sys.stdin.read()
        else:
            with open(options.file, encoding="utf-8") as file:
                text = file.read()
        document = json.loads(text)
    except OSError as error:
        raise Refusal(f"{options.file} cannot be read: {error.strerror}") from None
    except ValueError:
        # Without the decoder's message, which may quote a token.
        raise Refusal(f"{options.file} is not JSON", _IMPORT_HELP) from None
    if isinstance(document, dict):
        document = document.get("tokens", [document])
    if not isinstance(document, list) or not all(isinstance(each, dict) for each in document):
        raise Refusal(f"{options.file} does not contain a list of tokens", _IMPORT_HELP)
    with Session.begin(options.config) as session:
        done = session.run(lambda client: client.tokens_import(document, replace=options.replace))
        if options.json:
            output.show_json(dict(done.raw))
        else:
            print(f"{done.imported} imported, {len(done.skipped)} skipped")
            for skip in done.skipped:
                say(
                    output.plain(
                        f"  skipped {skip.resource_id or f'token {skip.index}'}: {skip.reason}"
                    )
                )
        if done.skipped and not done.imported:
            raise Refusal(
                "no token was imported: all were skipped", "see the reason listed with each token"
            )
    return status.OK


def adopt(options: argparse.Namespace) -> int:
    """Moves the tokens of another client id to this one, in the same database."""
    with Session.begin(options.config) as session:
        done = session.run(
            lambda client: client.tokens_adopt(
                options.client, resource_id=options.resource, dry_run=options.dry_run
            )
        )
        if options.json:
            output.show_json(dict(done.raw))
        elif options.client is None:
            output.show_table(
                ("CLIENT ID", "TOKENS"),
                [(each.client_id, str(each.tokens)) for each in done.clients],
            )
        else:
            verb = "would be adopted" if options.dry_run else "adopted"
            print(
                f"{done.adopted} {verb}, {len(done.skipped)} skipped, {len(done.failed)} unreadable"
            )
            for skip in done.skipped:
                say(output.plain(f"  skipped {skip.resource_id}: {skip.reason}"))
        return _unreadable(done.failed, options)


def export_tokens(options: argparse.Namespace) -> int:
    """Exports tokens with their secrets."""

    def fetch(client: Client) -> tuple[str, Sequence[FailedToken]]:
        tokens = client.tokens_export(
            company_id=options.company, user_type=options.type, page_size=1000
        )
        text = json.dumps({"tokens": [dict(token.raw) for token in tokens]}, indent=2) + "\n"
        return text, tokens.failed

    with Session.begin(options.config) as session:
        if options.output == "-":
            text, failed = session.run(fetch)
            sys.stdout.write(text)
        else:
            try:
                descriptor = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise Refusal(
                    f"{options.output} cannot be created: {error.strerror}",
                    "use the name of a new file",
                ) from None
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    text, failed = session.run(fetch)
                    file.write(text)
            except BaseException:
                os.unlink(options.output)
                raise
    say("Refresh tokens are single-use: only one program may continue to use these tokens.")
    return _unreadable(failed, options)


def _show_token(info: TokenInfo, options: argparse.Namespace) -> None:
    if options.json:
        output.show_json(dict(info.raw))
    else:
        output.show_tokens([info], as_json=False)


def _failures(failed: Sequence[FailedToken], options: argparse.Namespace) -> int:
    errors: list[GhlError] = [failure.error for failure in failed]
    if not options.json:
        output.show_failed(failed, as_json=False)
    return status.of_all(errors)


def _unreadable(failed: Sequence[FailedToken], options: argparse.Namespace) -> int:
    output.show_failed(failed, options.json)
    return status.UNREADABLE if failed else status.OK
