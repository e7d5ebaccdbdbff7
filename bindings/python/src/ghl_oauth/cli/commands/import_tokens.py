"""``ghl-oauth import``: imports tokens from files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import _configuration
from ...models import ImportResult
from .. import import_conflicts, output, session_files, status
from ..output import Refusal, say
from ..session import Session
from ..session_files import Entry

DESCRIPTION = (
    "Imports tokens from files that `export` wrote, from JSON in the format of the API, or from "
    "the stores of the vendor's SDKs: the output of mongoexport (with or without --jsonArray), "
    "JSON files with one or more sessions, and PHP session files. Stop the program that uses these "
    "tokens first, and look at the outcome with --dry-run."
)
EXAMPLES = (
    "ghl-oauth import tokens.json",
    "ghl-oauth import --dry-run sessions.ndjson  # reports what would happen to each token",
    "ghl-oauth import /var/lib/php/sessions  # all files of a folder",
    "ssh old-host ghl-oauth export --output - | ghl-oauth import -",
)

_HELP = (
    "use a file that `ghl-oauth export` or mongoexport wrote, JSON with tokens or sessions, or PHP "
    "session files"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a file, or a folder of files; - for stdin"
    )
    parser.add_argument(
        "--replace", action="store_true", help="allow an older token to replace a newer one"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only report what would happen to each token"
    )


def run(options: argparse.Namespace) -> int:
    """Imports tokens from files."""
    configuration = _configuration.read(options.config)
    app = str(configuration.document.get("clientId", "")).partition("-")[0]
    found = [entry for file in options.files for entry in _read(file, app)]
    entries = import_conflicts.resolve(found)
    tokens = [entry.token for entry in entries if entry.token is not None]
    path = configuration.store_path
    if options.dry_run and path is not None and not os.path.exists(path):
        # A dry run does not create the database.
        document = {**configuration.document, "store": {"kind": "memory"}}
        configuration = configuration.with_document(document)
    with Session.of(configuration) as session:
        done = session.run(
            lambda client: client.tokens_import(
                tokens, replace=options.replace, dry_run=options.dry_run or None
            )
        )
        outcomes = _outcomes(entries, done)
        _show(outcomes, done, options)
        if outcomes and not done.imported:
            verb = "would be" if options.dry_run else "was"
            raise Refusal(
                f"no token {verb} imported: all were skipped",
                "see the reason listed with each token",
            )
    return status.UNREADABLE if any(entry.is_lost for entry in entries) else status.OK


def _read(file: str, app: str) -> Sequence[Entry]:
    """The tokens of a file or folder.

    Raises:
        Refusal: It cannot be read, or contains no tokens.
    """
    try:
        if file == "-":
            content = output.stdin().buffer.read()
            file, entries = "stdin", list(session_files.read("stdin", content, app))
        elif os.path.isdir(file):
            entries = list(session_files.read_folder(file, app))
        else:
            with open(file, "rb") as opened:
                entries = list(session_files.read(file, opened.read(), app))
    except OSError as error:
        raise Refusal(f"{file} cannot be read: {error.strerror}") from None
    except session_files.Unreadable as error:
        raise Refusal(f"{file} contains no tokens: {error}", _HELP) from None
    if entries and all(entry.token is None for entry in entries):
        for entry in entries[1:]:
            say(output.plain(f"  {entry.source}: {entry.problem}"))
        raise Refusal(
            output.plain(f"{entries[0].source} contains no token: {entries[0].problem}"), _HELP
        )
    return entries


@dataclass(frozen=True)
class _Outcome:
    """What happened to an entry, or would happen."""

    entry: Entry
    resource_id: str | None
    action: str
    """``"imported"``, ``"replaced"`` or ``"skipped"``; without a dry run no ``"replaced"``."""
    reason: str | None = None


def _outcomes(entries: Sequence[Entry], done: ImportResult) -> Sequence[_Outcome]:
    skipped = {skip.index: skip for skip in done.skipped}
    accepted = {token.index: token for token in done.accepted}
    outcomes: list[_Outcome] = []
    index = 0
    for entry in entries:
        if entry.token is None:
            outcomes.append(_Outcome(entry, entry.resource_id, "skipped", entry.problem))
            continue
        skip, accept = skipped.get(index), accepted.get(index)
        index += 1
        if skip is not None:
            reason = skip.reason.replace('"replace": true', "--replace")
            if entry.resource_id and reason.endswith("Id is missing"):
                reason += '; add "userType": "Company" or "Location" to the session'
            outcomes.append(
                _Outcome(entry, skip.resource_id or entry.resource_id, "skipped", reason)
            )
        elif accept is not None:
            action = "replaced" if accept.replaces else "imported"
            outcomes.append(_Outcome(entry, accept.resource_id, action))
        else:
            outcomes.append(_Outcome(entry, None, "imported"))
    return outcomes


def _show(outcomes: Sequence[_Outcome], done: ImportResult, options: argparse.Namespace) -> None:
    skipped = [
        (index, outcome) for index, outcome in enumerate(outcomes) if outcome.action == "skipped"
    ]
    if options.json:
        document: dict[str, Any] = {
            "imported": done.imported,
            "skipped": [_json(index, outcome) for index, outcome in skipped],
        }
        if options.dry_run:
            document["dryRun"] = True
            document["accepted"] = [
                {**_json(index, outcome), "replaces": outcome.action == "replaced"}
                for index, outcome in enumerate(outcomes)
                if outcome.action != "skipped"
            ]
        output.show_json(document)
        return
    if options.dry_run:
        verbs = {"imported": "import", "replaced": "replace", "skipped": "skip"}
        output.show_table(
            ("RESOURCE", "OUTCOME", "FROM", "REASON"),
            (
                (
                    outcome.resource_id or "-",
                    verbs[outcome.action],
                    outcome.entry.source,
                    outcome.reason or "-",
                )
                for outcome in outcomes
            ),
        )
        output.put(
            f"{done.imported} would be imported, {len(skipped)} skipped; nothing was changed"
        )
        return
    output.put(f"{done.imported} imported, {len(skipped)} skipped")
    for _, outcome in skipped:
        resource, source = outcome.resource_id, outcome.entry.source
        found = (
            f"{resource}: {outcome.reason} ({source})"
            if resource
            else f"{source}: {outcome.reason}"
        )
        say(output.plain(f"  skipped {found}"))


def _json(index: int, outcome: _Outcome) -> dict[str, Any]:
    document = {
        "index": index,
        "resourceId": outcome.resource_id,
        "source": outcome.entry.source,
    }
    return document if outcome.reason is None else {**document, "reason": outcome.reason}
