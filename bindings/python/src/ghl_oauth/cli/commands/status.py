"""``ghl-oauth status``: sums up the stored tokens, for people and for scripts."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import datetime, timezone

from ..._library import library_version
from .. import output, raw, report, status
from ..arguments import text
from ..output import Refusal, expiry
from ..session import Session

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ..._configuration import Configuration
    from ...models import FailedToken

DESCRIPTION = (
    "Sums up the stored tokens: how many there are in each state, which ones fail and why, and "
    "when the next one expires; or describes one of them. It asks only the store, never the API."
)
EXAMPLES = (
    "ghl-oauth status",
    "ghl-oauth status ve9EPM428h8vShlRW1KT  # one connection",
    "ghl-oauth status --json | jq .tokens.reauthorizationRequired",
)

_STATES = ("ok", "inactive", "reauthorizationRequired", "unsaved")

_WORDS = {
    "inactive": "paused",
    "reauthorizationRequired": "need consent",
    "unsaved": "not saved",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument(
        "resource",
        type=text,
        nargs="?",
        metavar="RESOURCE",
        help="show the token of this company or location alone",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the summary. The worst token determines the exit status."""
    with Session.begin(options.config) as session:
        tokens, unreadable = session.run(raw.stored_tokens)
        if options.resource is not None:
            return _one(options, tokens, unreadable)
        found = summary(session.configuration, tokens, unreadable, datetime.now(timezone.utc))
        if options.json:
            output.show_json(found)
        else:
            _show(found)
    worst = report.failing(tokens)
    return worst or (status.UNREADABLE if unreadable else status.OK)


def _one(
    options: argparse.Namespace,
    tokens: Sequence[Mapping[str, Any]],
    unreadable: Sequence[FailedToken],
) -> int:
    """Prints the token of one company or location."""
    ours = options.resource
    for failed in unreadable:
        if failed.resource_id == ours:
            output.show_failed([failed])
            return status.UNREADABLE
    token = next((token for token in tokens if token["resourceId"] == ours), None)
    if token is None:
        raise Refusal(
            f"no token is stored for {ours}",
            "ghl-oauth login, or for a location: ghl-oauth token, which mints it if its company "
            "is connected",
            status.CONSENT,
        )
    if options.json:
        output.show_json(token)
        return report.failing([token])
    now = datetime.now(timezone.utc)
    last = report.last_failure(token) or {}

    def at(milliseconds: int | None) -> str:
        return "-" if milliseconds is None else output.moment(output.instant(milliseconds), now)

    lines = [
        ("resource", token["resourceId"]),
        ("type", token["userType"] or "-"),
        ("company", token["companyId"] or "-"),
        ("state", output.paint(token["state"], output.STATES.get(token["state"]))),
        ("expires", output.moment(expiry(token), now)),
        ("last success", at(token["lastSuccessAt"])),
    ]
    if last:
        lines += [
            ("last failure", at(last.get("at"))),
            ("reason", output.plain(str(last.get("message") or last.get("status")))),
            ("failed", f"{last.get('attempts')} since {at(last.get('firstAt'))}"),
            ("next attempt", at(last.get("nextAttemptAt"))),
        ]
        if last.get("traceId"):
            lines.append(("trace ID", output.plain(str(last["traceId"]))))
    if token["state"] == "reauthorizationRequired":
        lines.append(("cure", "ghl-oauth login"))
    for name, value in lines:
        output.put(f"{name:<13}{value}")
    return report.failing([token])


def summary(
    configuration: Configuration,
    tokens: Sequence[Mapping[str, Any]],
    unreadable: Sequence[FailedToken],
    now: datetime,
) -> dict[str, Any]:
    """The document that ``--json`` prints; ``docs/python.md`` describes its keys."""
    states = Counter(token["state"] for token in tokens)
    failing = [
        token
        for token in tokens
        if token["state"] in _STATES[2:] or (token["state"] == "ok" and report.last_failure(token))
    ]
    ahead = [
        token
        for token in tokens
        if (at := expiry(token)) is not None and at >= now and not output.is_never(at)
    ]
    next_one = min(ahead, key=lambda token: token["expiresAt"], default=None)
    path = configuration.store_path
    return {
        "library": library_version(),
        "configuration": str(configuration.path),
        "clientId": configuration.document.get("clientId"),
        "store": {
            "kind": configuration.store_kind,
            "path": path,
        },
        "at": _milliseconds(now),
        "tokens": {
            "total": len(tokens),
            "company": sum(token["userType"] == "Company" for token in tokens),
            "location": sum(token["userType"] == "Location" for token in tokens),
            **{state: states[state] for state in _STATES},
            "expired": sum(at is not None and at < now for at in map(expiry, tokens)),
            "failing": len(failing),
            "unreadable": len(unreadable),
        },
        "nextExpiry": next_one
        and {"resourceId": next_one["resourceId"], "at": next_one["expiresAt"]},
        "failing": [
            {
                "resourceId": token["resourceId"],
                "userType": token["userType"],
                "companyId": token["companyId"],
                "state": token["state"],
                "expiresAt": token["expiresAt"],
                "lastFailure": report.last_failure(token),
            }
            for token in failing
        ],
        "unreadable": [
            {"resourceId": each.resource_id, "message": each.error.message} for each in unreadable
        ],
    }


def _show(found: dict[str, Any]) -> None:
    now = output.instant(found["at"])
    store, tokens, next_one = found["store"], found["tokens"], found["nextExpiry"]
    place = f", {store['path']}" if store["path"] else ""
    output.put(f"store        {output.plain(store['kind'] + place)}")
    output.put(
        f"tokens       {tokens['total']}: {tokens['company']} of companies, "
        f"{tokens['location']} of locations"
    )
    parts = [output.paint(f"{tokens['ok']} ok", "green" if tokens["ok"] else None)]
    # The other failing tokens have a state of their own.
    failing = sum(token["state"] == "ok" for token in found["failing"])
    if failing:
        parts[0] += f" ({output.paint(f'{failing} failing', 'red')})"
    for key, words in _WORDS.items():
        if tokens[key]:
            colour = "yellow" if key == "inactive" else "red"
            parts.append(output.paint(f"{tokens[key]} {words}", colour))
    output.put(f"states       {', '.join(parts)}")
    if tokens["expired"]:
        output.put(f"expired      {output.paint(str(tokens['expired']), 'yellow')} access tokens")
    if tokens["unreadable"]:
        output.put(f"unreadable   {output.paint(str(tokens['unreadable']), 'red')}")
    if next_one:
        at = output.moment(output.instant(next_one["at"]), now)
        output.put(f"next expiry  {at}: {output.plain(next_one['resourceId'])}")
    if found["failing"]:
        output.put("")
        output.show_table(
            ("RESOURCE", "STATE", "OLD TOKEN EXPIRES", "LAST ATTEMPT", "FAILED", "NEXT", "REASON"),
            [_row(each, now) for each in found["failing"]],
            output.STATES,
        )
    for each in found["unreadable"]:
        output.put(output.plain(f"cannot be read: {each['resourceId']}: {each['message']}"))


def _row(token: dict[str, Any], now: datetime) -> tuple[str, ...]:
    last = token["lastFailure"] or {}
    times = [token["expiresAt"], last.get("at"), last.get("nextAttemptAt")]
    expires, at, next_at = (
        "-" if each is None else output.moment(output.instant(each), now) for each in times
    )
    return (
        token["resourceId"],
        token["state"],
        expires,
        at,
        str(last.get("attempts", "-")),
        next_at,
        str(last.get("message") or "-"),
    )


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
