"""Checks of the library, the configuration and the keys of the webhooks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from ... import __version__, _library
from ..._configuration import Configuration
from . import Check

VENDOR = "https://services.leadconnectorhq.com"
"""The API's usual base URL."""

_VENDOR_KEY = "i2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg="
"""The Ed25519 key that the vendor publishes, without its DER prefix."""

_WEBHOOK_HELP = (
    "remove webhook.ed25519PublicKeys from the configuration, so that the vendor's key is accepted"
)


def library() -> Check:
    """The version of the library, and whether the package has the same."""
    version = _library.library_version()
    message = f"version {version}, ABI {_library.abi_version()}, {_library.library._name}"
    if __version__ != version:
        return Check(
            "library",
            "warning",
            message,
            f"the Python package has version {__version__}: install both from one build, or unset "
            "GHL_OAUTH_LIBRARY",
        )
    return Check("library", "ok", message)


def configuration(found: Configuration) -> Iterator[Check]:
    """The file, the source of the secret, and who else can read it."""
    yield Check("configuration", "ok", f"{found.path}; client secret from {found.secret_from}")
    for warning in found.warnings:
        yield Check("configuration", "warning", warning)


def webhooks(found: Configuration) -> Check:
    """Whether a delivery of the vendor's could be verified."""
    webhook = found.document.get("webhook")
    webhook = webhook if isinstance(webhook, dict) else {}
    keys = webhook.get("ed25519PublicKeys")
    if keys is None:
        return Check("webhooks", "ok", "the vendor's key is accepted")
    if not keys:
        old = webhook.get("rsaPublicKeys")
        message = "only the older signature x-wh-signature is accepted, which is no longer sent"
        if not old:
            message = "no key is accepted, so every delivery is refused"
        return Check("webhooks", "warning", message, _WEBHOOK_HELP)
    base_url = found.document.get("baseUrl") or VENDOR
    if base_url.startswith(VENDOR) and _VENDOR_KEY not in map(_raw_key, keys):
        return Check(
            "webhooks",
            "warning",
            f"{len(keys)} configured, but not the key that the vendor publishes: its deliveries "
            "are refused unless the vendor has changed its key",
            _WEBHOOK_HELP,
        )
    noun = "key is" if len(keys) == 1 else "keys are"
    return Check("webhooks", "ok", f"{len(keys)} {noun} configured")


def _raw_key(key: object) -> str:
    """The base64 of a key's 32 bytes, from PEM, hex or base64."""
    text = "".join(line for line in str(key).split() if not line.startswith("-"))
    text = text.replace("BEGIN", "").replace("PUBLIC", "").replace("KEY-----", "")
    try:
        data = bytes.fromhex(text)
    except ValueError:
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error:
            return ""
    return base64.b64encode(data[-32:]).decode()
