"""OAuth 2.0 access to GoHighLevel that survives crashes, races and lost responses.

Start with :class:`Client`. Errors are subclasses of :class:`GhlError`. The library logs to
``logging.getLogger("ghl_oauth")``. If the package contains no native library, the environment
variable ``GHL_OAUTH_LIBRARY`` names it.
"""

from __future__ import annotations

from importlib import import_module

from ._library import abi_version, library_version

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from typing import Any

    from ._boundary import library_info
    from .auth import httpx_auth, requests_auth
    from .client import Client
    from .errors import (
        BufferTooSmall,
        Cancelled,
        ConfigError,
        Conflict,
        ConsentDenied,
        Forbidden,
        GhlError,
        InternalError,
        InvalidArgument,
        InvalidRequest,
        LocationInactive,
        NetworkError,
        NotFound,
        ProtocolError,
        RateLimited,
        ReauthorizationRequired,
        ServerError,
        SignatureInvalid,
        StateMismatch,
        Status,
        StoreError,
        Timeout,
        Unauthorized,
    )
    from .models import (
        METRICS_CONTENT_TYPE,
        AcceptedToken,
        Adoption,
        AuthorizationUrl,
        BusyResource,
        Event,
        FailedToken,
        ImportResult,
        LastFailure,
        Location,
        Maintenance,
        MaintenanceProgress,
        Minting,
        MintProgress,
        OtherClient,
        RateLimiterStatistics,
        RequestStatistics,
        Response,
        SkippedToken,
        Statistics,
        Token,
        TokenInfo,
        TokenState,
        TokenStatistics,
        UnadoptedToken,
        Webhook,
        WebhookOutcome,
    )
    from .pages import Pages
    from .progress import ProgressBar, ProgressDisplay
    from .store import Store, StorePage

else:

    def __getattr__(name: str) -> Any:
        """Imports a name of this package when it is first used: importing all of them is slow."""
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        modules = (_MODULES[name],) if name in _MODULES else ("errors", "models")
        for each in modules:
            module = import_module(f"{__name__}.{each}")
            if hasattr(module, name):
                break
        value = globals()[name] = getattr(module, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})


_SUBMODULES = ("auth", "client", "errors", "models", "pages", "progress", "store")

# The modules of the names that are neither exceptions nor models.
_MODULES = {
    "Client": "client",
    "Pages": "pages",
    "ProgressBar": "progress",
    "ProgressDisplay": "progress",
    "Store": "store",
    "StorePage": "store",
    "httpx_auth": "auth",
    "library_info": "_boundary",
    "requests_auth": "auth",
}

__version__ = "0.1.0"

__all__ = [
    "METRICS_CONTENT_TYPE",
    "AcceptedToken",
    "Adoption",
    "AuthorizationUrl",
    "BufferTooSmall",
    "BusyResource",
    "Cancelled",
    "Client",
    "ConfigError",
    "Conflict",
    "ConsentDenied",
    "Event",
    "FailedToken",
    "Forbidden",
    "GhlError",
    "ImportResult",
    "InternalError",
    "InvalidArgument",
    "InvalidRequest",
    "LastFailure",
    "Location",
    "LocationInactive",
    "Maintenance",
    "MaintenanceProgress",
    "MintProgress",
    "Minting",
    "NetworkError",
    "NotFound",
    "OtherClient",
    "Pages",
    "ProgressBar",
    "ProgressDisplay",
    "ProtocolError",
    "RateLimited",
    "RateLimiterStatistics",
    "ReauthorizationRequired",
    "RequestStatistics",
    "Response",
    "ServerError",
    "SignatureInvalid",
    "SkippedToken",
    "StateMismatch",
    "Statistics",
    "Status",
    "Store",
    "StoreError",
    "StorePage",
    "Timeout",
    "Token",
    "TokenInfo",
    "TokenState",
    "TokenStatistics",
    "UnadoptedToken",
    "Unauthorized",
    "Webhook",
    "WebhookOutcome",
    "__version__",
    "abi_version",
    "httpx_auth",
    "library_info",
    "library_version",
    "requests_auth",
]
