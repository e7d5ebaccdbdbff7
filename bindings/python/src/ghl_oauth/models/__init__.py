"""The results of the calls: frozen dataclasses, each with the library's whole document in ``raw``.

Fields that the API adds later appear in ``raw``, under the API's camelCase names. No ``repr`` shows
a secret.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any

    from ._fields import epoch_ms, flag
    from .adoption import Adoption, OtherClient, UnadoptedToken
    from .events import Event, Webhook, WebhookOutcome
    from .imports import AcceptedToken, ImportResult, SkippedToken
    from .locations import Location
    from .requests import Response
    from .runs import Maintenance, MaintenanceProgress, Minting, MintProgress
    from .statistics import (
        BusyResource,
        RateLimiterStatistics,
        RequestStatistics,
        Statistics,
        TokenStatistics,
    )
    from .stored import FailedToken, LastFailure, TokenInfo, TokenState
    from .tokens import AuthorizationUrl, Token

else:

    def __getattr__(name: str) -> Any:
        """Imports the module of a name when it is first used: creating dataclasses is slow."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


_MODULES = {
    "AcceptedToken": "imports",
    "Adoption": "adoption",
    "AuthorizationUrl": "tokens",
    "BusyResource": "statistics",
    "Event": "events",
    "FailedToken": "stored",
    "ImportResult": "imports",
    "LastFailure": "stored",
    "Location": "locations",
    "Maintenance": "runs",
    "MaintenanceProgress": "runs",
    "MintProgress": "runs",
    "Minting": "runs",
    "OtherClient": "adoption",
    "RateLimiterStatistics": "statistics",
    "RequestStatistics": "statistics",
    "Response": "requests",
    "SkippedToken": "imports",
    "Statistics": "statistics",
    "Token": "tokens",
    "TokenInfo": "stored",
    "TokenState": "stored",
    "TokenStatistics": "statistics",
    "UnadoptedToken": "adoption",
    "Webhook": "events",
    "WebhookOutcome": "events",
    "epoch_ms": "_fields",
    "flag": "_fields",
}

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text that ``Client.metrics`` returns."""

__all__ = [
    "METRICS_CONTENT_TYPE",
    "AcceptedToken",
    "Adoption",
    "AuthorizationUrl",
    "BusyResource",
    "Event",
    "FailedToken",
    "ImportResult",
    "LastFailure",
    "Location",
    "Maintenance",
    "MaintenanceProgress",
    "MintProgress",
    "Minting",
    "OtherClient",
    "RateLimiterStatistics",
    "RequestStatistics",
    "Response",
    "SkippedToken",
    "Statistics",
    "Token",
    "TokenInfo",
    "TokenState",
    "TokenStatistics",
    "UnadoptedToken",
    "Webhook",
    "WebhookOutcome",
    "epoch_ms",
    "flag",
]
