"""Errors in the words of a Python program: the names and units of settings and parameters."""

from __future__ import annotations

from ._lazy_module import LazyModule

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    import re
    from collections.abc import Mapping
    from typing import Protocol

    class Explained(Protocol):
        """The part of :class:`ghl_oauth.GhlError` that is rewritten."""

        message: str
        help: str | None
        parameter: str | None
        http_status: int | None

else:
    re = LazyModule("re")

# Sections of the configuration, whose keys may be mentioned by any error.
_SECTIONS = (
    "store",
    "timeouts",
    "retry",
    "rateLimit",
    "refresh",
    "limits",
    "http",
    "webhook",
    "consentPage",
)

# Sections and configuration keys outside of sections whose names differ between the languages.
_KEYS = (
    "clientId",
    "clientSecret",
    "clientSecretFile",
    "redirectUri",
    "baseUrl",
    "authorizeUrl",
    "apiVersion",
    "tokenRequestEncoding",
    "rateLimit",
    "consentPage",
)

# Parameters of calls whose names in Python are not those in the library in snake_case.
_PARAMETERS = {
    "timeoutMs": "timeout",
    "minValidSeconds": "min_valid",
    "bodyBase64": "body",
    "retryAfterMs": "retry_after",
    "headers_json": "headers",
    "tokens_json": "tokens",
}

# Parameters of calls with the library's name in snake_case.
_IN_SNAKE_CASE = (
    "accessToken",
    "allowMissingState",
    "appId",
    "callId",
    "companyId",
    "dryRun",
    "expiresBefore",
    "grantType",
    "isInstalled",
    "locationId",
    "locationIds",
    "loginInSameTab",
    "onTrial",
    "pageSize",
    "pageToken",
    "planId",
    "redirectUrl",
    "refreshToken",
    "resourceId",
    "restrictToUserLocations",
    "userType",
    "versionId",
)

# The types of JSON values, as the library's errors name them.
_TYPES = {"an array": "a list"}

# The patterns are compiled when they are first used. Not inside URLs, paths and longer words.
_BEGIN, _END = r"(?<![\w./@:-])", r"(?![\w/@-]|:\S)"
_CAMEL_CASE = "[a-z][a-z0-9]*(?:[A-Z][a-z0-9]+)*"
_SETTING = rf"{_BEGIN}(?:(?:{'|'.join(_SECTIONS)})\.{_CAMEL_CASE}|{'|'.join(_KEYS)}){_END}"
_PARAMETER = rf"{_BEGIN}(?:{'|'.join((*_PARAMETERS, *_IN_SNAKE_CASE))}){_END}"
_TYPE = rf"\bexpected ({'|'.join(_TYPES)})\b"
_RANGE = r"\bfrom (\d+) to (\d+)\b"
_ARGUMENT = r" in (?:config|params|request)_json\b"

# The settings that web frameworks need behind a proxy.
_PROXY = "behind a proxy"
_PROXY_HELP = (
    "; for Flask, wrap the app: app.wsgi_app = "
    "werkzeug.middleware.proxy_fix.ProxyFix(app.wsgi_app, x_proto=1, x_host=1); for Django, set "
    "SECURE_PROXY_SSL_HEADER; for uvicorn, set --forwarded-allow-ips"
)


# How the library reports that it was built without the feature.
_NO_POSTGRESQL = "does not include PostgreSQL"


class Names:
    """The names that a program uses for the library's settings.

    A program writes ``retry={"max_attempts": 0}``; the library's error is about
    ``retry.maxAttempts``.
    """

    def __init__(self, written: Mapping[str, str] | None) -> None:
        """Takes the settings that the program gave, by the library's names.

        None stands for a configuration document, which contains the library's names.
        """
        self._written = written

    def explain(self, error: Explained) -> None:
        """Rewrites an error that the library has just returned."""
        parameter = error.parameter
        if _NO_POSTGRESQL in error.message:
            error.help = 'install the library that does: pip install "ghl-oauth[postgres]"'
        if error.help is not None:
            error.help = self._translated(error.help)
            if _PROXY in error.help:
                error.help += _PROXY_HELP
        if error.http_status is None:  # otherwise the message quotes the server
            error.message = self._translated(error.message)
            if parameter is not None and self._is_in_seconds(parameter):
                error.message = re.sub(_RANGE, _seconds, error.message)
                error.message = re.sub("an integer|a whole number", "a number", error.message)
        if parameter is not None:
            error.parameter = self._translated(parameter)

    def _is_in_seconds(self, parameter: str) -> bool:
        return parameter.endswith("Ms") and not self._translated(parameter).endswith(("Ms", "_ms"))

    def _translated(self, text: str) -> str:
        text = re.sub(_PARAMETER, lambda found: _parameter(found.group()), text)
        if self._written is not None:
            written = self._written
            text = re.sub(
                _SETTING, lambda found: written.get(found.group()) or setting(found.group()), text
            )
            text = text.replace("keys are camelCase", "names are in snake_case")
            text = text.replace("config_json", "the configuration")
        text = re.sub(_ARGUMENT, "", text).replace(" in the configuration has", " has")
        return re.sub(_TYPE, lambda found: f"expected {_TYPES[found.group(1)]}", text)


def setting(name: str) -> str:
    """The name in Python of a configuration key, with its section: ``timeouts.total_seconds``."""
    in_words = re.sub("[A-Z]", lambda found: "_" + found.group().lower(), name)
    return re.sub("_ms$", "_seconds", in_words)


def _parameter(name: str) -> str:
    return _PARAMETERS.get(name) or setting(name)


def _seconds(found: re.Match[str]) -> str:
    low, high = (f"{int(number) / 1000:g}" for number in found.groups())
    return f"from {low} to {high}"
