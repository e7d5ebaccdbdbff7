"""OAuth 2.0 access to the GoHighLevel API that is never lost.

Start with :class:`Client`. Errors are subclasses of :class:`GhlError`. The library logs to
``logging.getLogger("ghl_oauth")``. If the package contains no native library, the environment
variable ``GHL_OAUTH_LIBRARY`` names it.
"""

from ._boundary import library_info
from ._library import abi_version, library_version
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
    Adoption,
    AuthorizationUrl,
    Event,
    FailedToken,
    ImportResult,
    Location,
    Maintenance,
    MaintenanceProgress,
    Minting,
    MintProgress,
    OtherClient,
    Response,
    SkippedToken,
    Token,
    TokenInfo,
    TokenState,
    UnadoptedToken,
    Webhook,
    WebhookOutcome,
)
from .pages import Pages
from .progress import ProgressBar, ProgressDisplay
from .store import Store, StorePage

__version__ = "0.1.0"

__all__ = [
    "Adoption",
    "AuthorizationUrl",
    "BufferTooSmall",
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
    "ReauthorizationRequired",
    "Response",
    "ServerError",
    "SignatureInvalid",
    "SkippedToken",
    "StateMismatch",
    "Status",
    "Store",
    "StoreError",
    "StorePage",
    "Timeout",
    "Token",
    "TokenInfo",
    "TokenState",
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
