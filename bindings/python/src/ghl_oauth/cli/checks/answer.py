"""Classifies a response: sent by the API or by another server, and its meaning."""

from __future__ import annotations

from . import Check, short

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from ..raw import Answer

OTHER_SERVER_HELP = (
    "allow this host through the proxy or firewall, sign in to the network if it asks for that, "
    "and check baseUrl"
)


LOGIN_REQUIRED = 511
"""Network Authentication Required (RFC 6585): the network wants a login before it forwards."""


def is_of_api(answer: Answer) -> bool:
    """Whether a response has a form of the API's: docs/errors.md."""
    body = answer.body
    if not isinstance(body, dict) or answer.status == LOGIN_REQUIRED:
        return False
    marks = ("statusCode", "error_description", "traceId")
    is_error = isinstance(body.get("error"), dict) or any(mark in body for mark in marks)
    return answer.ok or (answer.status >= 400 and is_error)


def is_temporary(answer: Answer) -> bool:
    """Whether the same request may succeed later."""
    return (
        (answer.status >= 500 and answer.status != LOGIN_REQUIRED)
        or answer.status in (408, 429)
        or (isinstance(answer.body, dict) and "command timed out" in words(answer).lower())
    )


def words(answer: Answer) -> str:
    """The message of a response."""
    body = answer.body
    if not isinstance(body, dict):
        return short(str(body), 80)
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else None
    return short(str(said or body.get("message") or body.get("error_description") or error or ""))


def described(answer: Answer) -> str:
    """The status and the type of a response, for messages."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    noun = "a web page" if "html" in kind else kind or "no content type"
    if answer.status == LOGIN_REQUIRED:
        noun = f"the network requires a login; {noun}"
    return f"status {answer.status}, {noun}"


def another_server(name: str, who: str, answer: Answer, with_words: bool) -> Check:
    """The finding for a response that is not the API's."""
    said = words(answer) if with_words else ""
    return Check(
        name,
        "problem",
        f"{who}: something else answers in place of the API, for instance a proxy, a firewall or "
        f"the login page of a network ({described(answer)})" + (f": {said}" if said else ""),
        OTHER_SERVER_HELP,
    )
